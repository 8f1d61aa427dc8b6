# SPDX-License-Identifier: GPL-2.0-only
"""The escape key: what is for the program, what is for the guest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from block.aio.context import AioContext
from block.aio.world import ClockType, World
from miniqemu.chardev.base import Chardev, Event
from miniqemu.chardev.mux import BUFFER_MAX, MuxChardev

if TYPE_CHECKING:
    from miniqemu.chardev.base import CanRead, Notify, Read


class Terminal(Chardev):
    """Keeps what is written, as much as it has room for; the test types by `type`."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = b""
        self.room = 1 << 20

    def write(self, data: bytes | bytearray | memoryview) -> int:
        taken = bytes(data[: self.room])
        self.shown += taken
        self.room -= len(taken)
        return len(taken)

    def set_handlers(
        self, can_read: CanRead | None, read: Read | None, event: Notify | None = None
    ) -> None:
        self.can_read, self.read, self.event = can_read, read, event

    def type(self, keys: bytes) -> None:
        assert self.read is not None
        self.read(keys)


class Clock(World):
    """A world whose clocks stand still until the test moves them."""

    now_ns = 0

    def clock_ns(self, clock: ClockType) -> int:
        return self.now_ns


class Setup:
    def __init__(self) -> None:
        self.world = Clock()
        self.ctx = AioContext("test", self.world)
        self.terminal = Terminal()
        self.quits = 0
        self.mux = MuxChardev(self.ctx, self.terminal, self.quit, program="prog")
        self.got = b""
        self.room = 1000
        self.events: list[Event] = []
        self.mux.set_handlers(lambda: self.room, self.receive, self.events.append)

    def quit(self) -> None:
        self.quits += 1

    def receive(self, data: bytes) -> None:
        self.got += data
        self.room -= len(data)


@pytest.fixture
def setup() -> Iterator[Setup]:
    setup = Setup()
    yield setup
    setup.mux.close()
    assert setup.ctx.registrations() == []
    setup.ctx.close()


def test_ordinary_keys_go_to_the_guest(setup: Setup) -> None:
    setup.terminal.type(b"ls\r\x03\x04")
    assert setup.got == b"ls\r\x03\x04"


def test_escape_x_says_so_and_quits(setup: Setup) -> None:
    setup.terminal.type(b"\x01x")
    assert setup.quits == 1
    assert setup.terminal.shown == b"prog: Terminated\n\r"
    assert setup.got == b""


def test_the_two_keys_may_come_apart(setup: Setup) -> None:
    setup.terminal.type(b"\x01")
    setup.terminal.type(b"x")
    assert setup.quits == 1


def test_escape_twice_sends_one(setup: Setup) -> None:
    setup.terminal.type(b"\x01\x01a")
    assert setup.got == b"\x01a"


def test_an_unknown_letter_is_swallowed_with_its_escape(setup: Setup) -> None:
    setup.terminal.type(b"\x01za")
    assert setup.got == b"a"


@pytest.mark.parametrize("letter", [b"h", b"?"])
def test_the_help_names_every_letter(setup: Setup, letter: bytes) -> None:
    setup.terminal.type(b"\x01" + letter)
    shown = setup.terminal.shown.decode()
    for line in ("C-a h", "C-a x    exit emulator", "C-a t", "C-a b", "C-a C-a  sends C-a"):
        assert line in shown
    assert "no monitor yet" in shown


def test_escape_c_says_that_there_is_no_monitor(setup: Setup) -> None:
    setup.terminal.type(b"\x01c")
    assert b"no monitor yet" in setup.terminal.shown


def test_escape_b_is_a_break_on_the_line(setup: Setup) -> None:
    setup.terminal.type(b"\x01b")
    assert setup.events == [Event.BREAK]


def test_another_escape_key_leaves_ctrl_a_to_the_guest(setup: Setup) -> None:
    setup.mux.escape = 0x14
    setup.terminal.type(b"\x01x\x14x")
    assert setup.got == b"\x01x"
    assert setup.quits == 1
    assert setup.mux.key_name() == "C-t"


def test_keys_wait_for_a_guest_that_takes_none(setup: Setup) -> None:
    setup.room = 0
    setup.terminal.type(b"abc")
    assert setup.got == b""
    setup.room = 2
    setup.mux.accept_input()
    setup.ctx.poll(False)
    assert setup.got == b"ab"


def test_escape_x_works_while_the_guest_takes_no_keys(setup: Setup) -> None:
    setup.room = 0
    setup.terminal.type(b"abc\x01x")
    assert setup.quits == 1


def test_it_asks_for_no_more_keys_than_it_can_keep(setup: Setup) -> None:
    setup.room = 0
    setup.terminal.type(b"x" * (BUFFER_MAX - 1))
    assert setup.terminal.can_read is not None
    assert setup.terminal.can_read() == 1


def test_timestamps_come_before_each_line_until_switched_off(setup: Setup) -> None:
    setup.terminal.type(b"\x01t")
    setup.mux.write(b"one\ntw")
    setup.world.now_ns = 3_723_004_000_000
    setup.mux.write(b"o\nthree\n")
    setup.terminal.type(b"\x01t")
    setup.mux.write(b"four\n")
    assert setup.terminal.shown == (
        b"[00:00:00.000] one\n[00:00:00.000] two\n[01:02:03.004] three\nfour\n"
    )


def test_a_timestamp_cut_by_a_slow_terminal_is_completed_later(setup: Setup) -> None:
    setup.terminal.type(b"\x01t")
    setup.terminal.room = 5
    assert setup.mux.write(b"one\n") == 0
    setup.terminal.room = 12
    assert setup.mux.write(b"one\n") == 2
    setup.terminal.room = 100
    assert setup.mux.write(b"e\n") == 2
    assert setup.terminal.shown == b"[00:00:00.000] one\n"
