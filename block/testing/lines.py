# SPDX-License-Identifier: GPL-2.0-only
"""Steps between lines: puts rewritten code into running modules, and takes it out again.

`Lines` compiles the rewritten source of a module (rewrite.py) and swaps the `__code__` of its
functions in place, so that whoever has a reference to one runs the new code. The production code
knows nothing of it and pays nothing.

R1  The functions are the module's own as they are loaded, and are put back as they were.
R2  `recorder` is called by the rewritten code of all fake threads: it belongs to one run at a time.
    A real thread of the process (a worker that is idle and retires, say) may run that code, too;
    then it does nothing, for that thread is in no world of ours.
R3  The helpers stay in the modules: a coroutine that a run has left suspended unwinds by rewritten
    code, some time. When no run goes on they do nothing.
R4  What was rewritten once is kept: a process explores the same modules many times.
R5  Class bodies and module bodies do not run again. A function that is made while another one runs
    (a closure) is rewritten with it.
"""

from __future__ import annotations

import ast
import inspect
import sys
from _thread import get_ident
from types import CodeType, FunctionType, ModuleType

from block.lean import CO_ITERABLE_COROUTINE
from block.testing.accesses import CONTAINERS, MEMORY, READ, WRITE
from block.testing.rewrite import rewritten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from block.testing.world import DeterministicWorld

CHANGES = (
    "append", "appendleft", "extend", "insert", "pop", "popleft", "popitem", "remove", "clear",
    "update", "setdefault", "add", "discard", "sort", "reverse", "rotate",
)  # fmt: skip
SYSTEM_CALLS = (
    "send", "sendall", "sendmsg", "sendfile", "recv", "recv_into", "recvmsg", "close", "shutdown",
    "accept", "connect", "read", "readv", "write", "writev", "eventfd_read", "eventfd_write",
    "pread", "pwrite", "preadv", "pwritev",
)  # fmt: skip
# (module, with steps) -> the rewritten code of its functions, by name and line (R4).
_codes: dict[tuple[str, bool], dict[str, CodeType]] = {}
# How an attribute of a class is read; anything else is not noted: it does not change.
ATTRIBUTE, CONTENT, CHANGE, SYSTEM, QUIET = range(5)


class Recorder:
    """What the rewritten code calls; notes accesses for the world that runs."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[type, str], int] = {}
        self._thread = 0  # that of the run; 0: none goes on

    def begin(self, world: DeterministicWorld) -> None:
        """A run begins in this world."""
        self._thread = get_ident()
        self._kernel = world.kernel
        self._scheduler = world.scheduler
        self._touch = world.scheduler.touch
        self._step = world.scheduler.step
        self._names = world.names

    def end(self) -> None:
        """It is over: code that runs now is not noted."""
        self._thread = 0

    def step(self) -> None:
        if get_ident() == self._thread and not self._scheduler.quiet:
            self._step("")

    def get(self, owner: Any, name: str) -> Any:
        value = getattr(owner, name)
        if get_ident() != self._thread:
            return value
        cls = owner.__class__
        kind = self._kinds.get((cls, name))
        if kind is None:
            kind = self._kinds[cls, name] = _how(cls, owner, name)
        if kind == QUIET:
            return value
        names = self._names
        if kind == ATTRIBUTE:
            thing = names.of((names.number(owner), name))
            self._touch(thing << 2)
            if type(value) in CONTAINERS and not names.knows(value):
                names.give(value, names.of((thing, "content")))
        elif kind == SYSTEM:
            self._touch(self._kernel | WRITE)
        else:
            self._touch(names.number(owner) << 2 | (WRITE if kind == CHANGE else READ))
        return value

    def set(self, owner: Any, name: str) -> Any:
        if get_ident() == self._thread and not isinstance(owner, ModuleType):
            thing = self._names.of((self._names.number(owner), name))
            self._touch(thing << 2 | WRITE)
        return owner

    def items(self, thing: Any) -> Any:
        if get_ident() == self._thread:
            self._content(thing, READ)
        return thing

    def change(self, thing: Any) -> Any:
        if get_ident() == self._thread:
            self._content(thing, WRITE)
        return thing

    def _content(self, thing: Any, kind: int) -> None:
        if type(thing) in CONTAINERS:
            self._touch(self._names.number(thing) << 2 | kind)
        elif type(thing) is memoryview:
            self._touch(self._names.of(MEMORY) << 2 | kind)

    def variable(self, name: str, value: Any) -> Any:
        if get_ident() == self._thread:
            self._touch(self._names.of(name) << 2)
        return value

    def assign(self, name: str) -> None:
        if get_ident() == self._thread:
            self._touch(self._names.of(name) << 2 | WRITE)


def _how(cls: type, owner: object, name: str) -> int:
    """Classifies an attribute of a class."""
    if issubclass(cls, ModuleType | type):
        return SYSTEM if owner is sys.modules["os"] and name in SYSTEM_CALLS else QUIET
    if cls in CONTAINERS:
        return CHANGE if name in CHANGES else CONTENT
    if cls.__module__ == "socket" or cls.__name__ == "socket":
        return SYSTEM if name in SYSTEM_CALLS else QUIET
    if cls.__module__ == "builtins" or cls.__module__.startswith("block.testing"):
        return QUIET
    found = inspect.getattr_static(cls, name, None)
    is_code = callable(found) or isinstance(found, property | staticmethod | classmethod)
    return QUIET if is_code and not inspect.ismemberdescriptor(found) else ATTRIBUTE


class Lines:
    """Modules whose functions have steps between lines, from `install` to `remove`."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._before: list[tuple[FunctionType, CodeType]] = []

    def install(self, modules: dict[str, bool]) -> None:
        """Rewrites modules: name -> whether with steps, or only to note what is touched."""
        for name, steps in modules.items():
            module = sys.modules[name]
            codes = _codes.get((name, steps))
            if codes is None:
                codes = _codes[name, steps] = self._compile(module, steps)
            vars(module).update(self._helpers())
            for function in functions_of(module):
                code = codes.get(f"{function.__qualname__}:{function.__code__.co_firstlineno}")
                if code is not None:
                    before = function.__code__
                    awaitable = before.co_flags & CO_ITERABLE_COROUTINE  # @coroutine has set it
                    self._before.append((function, before))
                    function.__code__ = code.replace(co_flags=code.co_flags | awaitable)

    def remove(self) -> None:
        """Puts everything back (R1)."""
        for function, code in self._before:
            function.__code__ = code
        self._before.clear()

    def _helpers(self) -> dict[str, object]:
        recorder = self.recorder
        return {
            "__step__": recorder.step, "__get__": recorder.get, "__set__": recorder.set,
            "__items__": recorder.items, "__change__": recorder.change,
            "__var__": recorder.variable, "__assign__": recorder.assign,
        }  # fmt: skip

    def _compile(self, module: ModuleType, steps: bool) -> dict[str, CodeType]:
        source = inspect.getsource(module)
        tree = rewritten(ast.parse(source), module.__name__, steps)
        code = compile(tree, module.__file__ or "", "exec", dont_inherit=True)
        return {f"{each.co_qualname}:{each.co_firstlineno}": each for each in codes_of(code)}


def codes_of(code: CodeType) -> Iterator[CodeType]:
    """Yields the code of all functions in a piece of code, nested ones too."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from codes_of(constant)


def functions_of(module: ModuleType) -> Iterator[FunctionType]:
    """Yields the functions that a module defines, those in its classes too."""
    seen: set[int] = set()
    pending: list[object] = list(vars(module).values())
    while pending:
        thing = pending.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, FunctionType):
            pending.append(getattr(thing, "__wrapped__", None))
            if thing.__module__ == module.__name__:
                yield thing
        elif isinstance(thing, staticmethod | classmethod):
            pending.append(thing.__func__)
        elif isinstance(thing, property):
            pending += [thing.fget, thing.fset, thing.fdel]
        elif isinstance(thing, type) and thing.__module__ == module.__name__:
            pending += vars(thing).values()
