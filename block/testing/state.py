# SPDX-License-Identifier: GPL-2.0-only
"""What modules remember: their global variables, put back after each run.

A run that fails or is left in the middle leaves nodes, counters and running coroutines behind, in
modules that are rewritten and in others.

R1  Containers are put back in place, as others may hold them; of other variables, those that can
    change without anybody's notice are numbers, flags and None. Constants (CAPITALS) stay.
"""

from __future__ import annotations

import sys

from block.testing.accesses import CONTAINERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from block.testing.accesses import Names

SCALARS = (int, float, bool, type(None))


class State:
    """The variables of some modules at one time."""

    def __init__(self, modules: Iterable[str]) -> None:
        self._containers: list[tuple[str, Any, Any]] = []
        self._scalars: list[tuple[dict[str, Any], str, Any]] = []
        for module in modules:
            variables = vars(sys.modules[module])
            for name, value in variables.items():
                if name.startswith("__") or name.isupper():
                    continue
                if type(value) in CONTAINERS:
                    self._containers.append((f"{module}:{name}", value, value.copy()))
                elif type(value) in SCALARS:
                    self._scalars.append((variables, name, value))

    def names(self, names: Names) -> None:
        """Names the containers, for a run that begins."""
        for name, container, _ in self._containers:
            if not names.knows(container):
                names.give(container, names.of(name))

    def restore(self) -> None:
        """Puts everything back."""
        for _, container, content in self._containers:
            if container == content:
                continue
            container.clear()
            (container.update if isinstance(container, dict | set) else container.extend)(content)
        for variables, name, value in self._scalars:
            variables[name] = value
