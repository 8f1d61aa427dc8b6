# SPDX-License-Identifier: GPL-2.0-only
"""Other forms of whole functions, put into place and taken out again.

    with replaced({"block.aio.wakeup:WakeUp.notify": before.notify}):
        ...

R1  A key is `module:qualname`. What is replaced must exist: a form of something that has
    been renamed since is an error, not a silent nothing.
R2  Whoever has imported a function by name gets the other form, too.
R3  A property or a static method stays one.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any


@contextlib.contextmanager
def replaced(forms: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Puts other forms of functions in place; takes them out at the end."""
    undo: list[tuple[Any, str, Any]] = []
    try:
        for key, form in forms.items():
            owner, name = owner_of(key)
            there = inspect.getattr_static(owner, name)
            _replace(owner, name, _like(there, form), undo)
            if not isinstance(owner, type):
                for module in importers(name, there):
                    if module is not owner:
                        _replace(module, name, form, undo)
        yield
    finally:
        for owner, name, there in reversed(undo):
            setattr(owner, name, there)


def importers(name: str, function: object) -> list[ModuleType]:
    """Returns the modules that have a function by its name. What is None in sys.modules is none."""
    modules = [module for module in sys.modules.values() if isinstance(module, ModuleType)]
    return [module for module in modules if vars(module).get(name) is function]


def owner_of(key: str) -> tuple[Any, str]:
    """Returns the module or class that a key's last name is in; raises if there is none (R1)."""
    module, _, qualname = key.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = qualname.split(".")
    for each in outer:
        owner = getattr(owner, each)
    if name not in vars(owner):
        raise LookupError(f"{key}: there is no such function any more")
    return owner, name


def _replace(owner: Any, name: str, form: Any, undo: list[tuple[Any, str, Any]]) -> None:
    undo.append((owner, name, inspect.getattr_static(owner, name)))
    setattr(owner, name, form)


def _like(there: object, form: Callable[..., Any]) -> object:
    """Wraps a form as what it replaces is wrapped (R3)."""
    if isinstance(there, staticmethod | classmethod):
        return type(there)(form)
    return property(form) if isinstance(there, property) else form
