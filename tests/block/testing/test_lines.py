# SPDX-License-Identifier: GPL-2.0-only
"""Rewritten code: does what it did before, with steps between lines, and notes what it touches."""

from __future__ import annotations

import ast
import sys
import textwrap
import traceback
import types
from collections.abc import Iterator

import pytest

from block.aio.bh import BottomHalf
from block.aio.context import AioContext
from block.aio.wakeup import WakeUp
from block.testing.accesses import READ, WRITE
from block.testing.choices import Chooser
from block.testing.lines import Lines, Recorder, functions_of
from block.testing.rewrite import rewritten
from block.testing.world import DeterministicWorld

SAMPLE = '''
from __future__ import annotations
from collections import deque

counter = 0

class Base:
    __slots__ = ("value",)
    def __init__(self, value):
        """A docstring stays the first statement."""
        self.value = value

class Thing(Base):
    __slots__ = ("items", "table")
    def __init__(self, value):
        super().__init__(value)
        self.items = deque()
        self.table = {}

    @property
    def double(self):
        return self.value * 2

    @staticmethod
    def three():
        return 3

    def work(self, n):
        global counter
        total = 0
        while total < n:
            total += 1
            self.items.append(total)
            if total % 2 == 0 and self.items:
                self.table[total] = self.double
            elif not self.table:
                continue
            else:
                counter += 1
        for each in self.items:
            total += each
        with memoryview(b"abc") as view:
            total += len(view)
        try:
            self.table["nobody"]
        except KeyError as error:
            total += len(error.args)
        finally:
            del self.table[2]
        return total, list(self.items), {k: v for k, v in self.table.items()}, self.three(), counter

    def closure(self):
        found = 0
        def inner():
            nonlocal found
            found += self.value
        inner(); inner()
        return found

    def fails(self):
        return (
            self.value.nothing
        )

    async def later(self):
        return [x async for x in self.stream()]

    async def stream(self):
        for x in self.items:
            yield x
'''


@pytest.fixture
def sample() -> Iterator[types.ModuleType]:
    module = types.ModuleType("sample")
    module.__file__ = "sample.py"
    sys.modules["sample"] = module
    exec(compile(SAMPLE, "sample.py", "exec"), vars(module))
    yield module
    del sys.modules["sample"]


class Noted(Chooser):
    """Keeps all that is touched."""

    def __init__(self) -> None:
        super().__init__()
        self.accesses: list[int] = []

    def touch(self, access: int) -> None:
        self.accesses.append(access)


def rewrite_in_place(module: types.ModuleType, recorder: Recorder) -> None:
    """As Lines.install, for a module without a file."""
    tree = rewritten(ast.parse(SAMPLE), "sample", steps=True)
    vars(module).update(Lines(recorder)._helpers())
    exec(compile(tree, "sample.py", "exec"), vars(module))


def behaviour(module: types.ModuleType) -> list[object]:
    thing = module.Thing(21)
    later = thing.later()
    found = [thing.work(5), thing.closure(), thing.double]
    with pytest.raises(StopIteration) as stop:
        later.send(None)
    return [*found, stop.value.value, module.Base.__init__.__doc__]


def test_rewritten_code_does_what_it_did(sample: types.ModuleType) -> None:
    before = behaviour(sample)
    recorder = Recorder()
    rewrite_in_place(sample, recorder)
    sample.counter = 0
    assert behaviour(sample) == before
    sample.counter = 0
    world = DeterministicWorld(Chooser())
    recorder.begin(world)
    assert behaviour(sample) == before
    assert world.scheduler.n_steps > 40
    world.close()


def test_tracebacks_name_the_same_lines(sample: types.ModuleType) -> None:
    def lines() -> list[int | None]:
        with pytest.raises(AttributeError) as caught:
            sample.Thing(1).fails()
        frames = traceback.extract_tb(caught.value.__traceback__)
        return [frame.lineno for frame in frames if frame.filename == "sample.py"]

    before = lines()
    rewrite_in_place(sample, Recorder())
    assert lines() == before


def test_a_store_is_noted_as_a_change_and_a_load_as_a_read(sample: types.ModuleType) -> None:
    noted = Noted()
    world = DeterministicWorld(noted)
    recorder = Recorder()
    rewrite_in_place(sample, recorder)
    thing = sample.Thing(1)
    recorder.begin(world)
    noted.accesses.clear()
    assert thing.double == 2
    value = world.names.of((world.names.number(thing), "value")) << 2
    assert noted.accesses == [value | READ]
    noted.accesses.clear()
    sample.Base.__init__(thing, 5)
    assert noted.accesses == [value | WRITE]
    world.close()


def test_the_content_of_a_container_is_something_of_its_own(sample: types.ModuleType) -> None:
    noted = Noted()
    world = DeterministicWorld(noted)
    recorder = Recorder()
    rewrite_in_place(sample, recorder)
    thing = sample.Thing(1)
    recorder.begin(world)
    thing.work(2)
    content = world.names.number(thing.items) << 2
    attribute = world.names.of((world.names.number(thing), "items")) << 2
    assert {content | WRITE, content | READ, attribute | READ} <= set(noted.accesses)
    assert attribute | WRITE not in noted.accesses
    variable = world.names.of("sample:counter") << 2
    assert variable | READ in noted.accesses
    world.close()


def test_the_event_loop_is_put_back_as_it_was() -> None:
    import block.aio.bh
    import block.aio.wakeup

    modules = (block.aio.bh, block.aio.wakeup)
    before = [{f: f.__code__ for f in functions_of(module)} for module in modules]
    lines = Lines(Recorder())
    lines.install({"block.aio.bh": True, "block.aio.wakeup": True})
    assert BottomHalf.schedule.__code__ not in before[0].values()
    assert "__step__" in WakeUp.notify.__code__.co_names
    lines.remove()
    assert [{f: f.__code__ for f in functions_of(module)} for module in modules] == before


def test_the_event_loop_works_with_a_step_between_every_two_lines() -> None:
    recorder = Recorder()
    lines = Lines(recorder)
    lines.install({"block.aio.context": True, "block.aio.bh": True, "block.aio.timer": True})
    world = DeterministicWorld(Chooser())
    recorder.begin(world)
    try:
        ctx = AioContext("rewritten", world)
        ran: list[int] = []
        bh = ctx.bh_new(lambda: ran.append(1))
        bh.schedule()
        bh.schedule()
        assert ctx.poll(True)
        bh.delete()
        ctx.close()
        assert ran == [1]
        assert world.scheduler.n_steps > 60
    finally:
        recorder.end()
        lines.remove()
        world.close()


def test_a_line_that_touches_only_its_own_variables_is_no_step() -> None:
    text = textwrap.dedent("""
        def f(a):
            b = a
            c = a + b
            a.x = c
            return c
    """)
    rewritten_text = ast.unparse(rewritten(ast.parse(text), "m", steps=True))
    assert rewritten_text.count("__step__()") == 1
    assert "__step__" not in ast.unparse(rewritten(ast.parse(text), "m", steps=False))
