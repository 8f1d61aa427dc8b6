# SPDX-License-Identifier: GPL-2.0-only
"""A character device on descriptors: what goes out, what comes in, and who waits for whom."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from block.aio.context import AioContext
from miniqemu.chardev.base import Event
from miniqemu.chardev.fd import QUEUE_MAX, FdChardev


class Device:
    """What a serial port would be: takes `room` bytes and remembers them."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.got = b""
        self.events: list[Event] = []

    def can_read(self) -> int:
        return self.room

    def read(self, data: bytes) -> None:
        assert len(data) <= self.room
        self.got += data
        self.room -= len(data)


class Line:
    """A chardev with pipes on both sides."""

    def __init__(self, ctx: AioContext) -> None:
        self.from_us, self.keys = os.pipe()
        self.output, self.to_us = os.pipe()
        os.set_blocking(self.output, False)
        self.chardev = FdChardev(ctx, self.from_us, self.to_us)

    def read(self) -> bytes:
        """What has come out by now."""
        try:
            return os.read(self.output, 100_000)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.chardev.close()
        for fd in (self.from_us, self.keys, self.output, self.to_us):
            if fd >= 0:
                os.close(fd)

    def hang_up_keys(self) -> None:
        os.close(self.keys)
        self.keys = -1

    def hang_up_output(self) -> None:
        os.close(self.output)
        self.output = -1


@pytest.fixture
def line(ctx: AioContext) -> Iterator[Line]:
    line = Line(ctx)
    yield line
    line.close()


def attach(line: Line, room: int = 100) -> Device:
    device = Device(room)
    line.chardev.set_handlers(device.can_read, device.read, device.events.append)
    return device


def fill(line: Line) -> int:
    """Writes until nothing more is taken; returns how much that was."""
    total = 0
    while taken := line.chardev.write(b"x" * 10_000):
        total += taken
    return total


def test_what_is_written_comes_out_at_once_when_the_pipe_has_room(line: Line) -> None:
    assert line.chardev.write(b"hello") == 5
    assert line.read() == b"hello"


def test_a_full_pipe_makes_write_queue_and_then_refuse_but_never_wait(line: Line) -> None:
    taken = fill(line)
    assert taken >= QUEUE_MAX
    assert line.chardev.write(b"y") == 0


def test_what_was_queued_comes_out_in_order_once_the_reader_reads(
    line: Line, ctx: AioContext
) -> None:
    taken = fill(line)
    got = b""
    while len(got) < taken:
        ctx.poll(False)
        got += line.read()
    assert got == b"x" * taken
    ctx.poll(False)
    assert line.chardev.watched == set()


def test_who_waits_for_room_is_called_once_when_there_is_some(line: Line, ctx: AioContext) -> None:
    taken = fill(line)
    calls: list[str] = []
    line.chardev.when_writable(lambda: calls.append("room"))
    while ctx.poll(False):
        pass
    assert calls == []
    drained = 0
    while drained < taken:
        drained += len(line.read())
        ctx.poll(False)
    for _ in range(3):
        ctx.poll(False)
    assert calls == ["room"]


def test_a_reader_that_has_gone_swallows_everything(line: Line) -> None:
    line.hang_up_output()
    assert line.chardev.write(b"x" * 1_000_000) == 1_000_000
    assert line.chardev.write(b"more") == 4


def test_flush_waits_until_the_queue_has_left(line: Line) -> None:
    import threading

    taken = fill(line)
    got = bytearray()

    def read_all() -> None:
        while len(got) < taken:
            got.extend(line.read())

    reader = threading.Thread(target=read_all)
    reader.start()
    line.chardev.flush()
    reader.join()
    assert not line.chardev.queue
    assert len(got) == taken


def test_flush_gives_up_on_a_reader_that_does_not_read(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("miniqemu.chardev.fd.FLUSH_SECONDS", 0.01)
    fill(line)
    line.chardev.flush()
    assert line.chardev.queue


def test_keys_reach_the_device(line: Line, ctx: AioContext) -> None:
    device = attach(line)
    os.write(line.keys, b"help\r")
    ctx.poll(True)
    assert device.got == b"help\r"


def test_a_device_without_room_gets_nothing_until_it_says_so(line: Line, ctx: AioContext) -> None:
    device = attach(line, room=2)
    os.write(line.keys, b"abcd")
    ctx.poll(True)
    assert device.got == b"ab"
    while ctx.poll(False):
        pass
    assert line.chardev.watched == set()
    device.room = 100
    line.chardev.accept_input()
    while len(device.got) < 4:
        ctx.poll(True)
    assert device.got == b"abcd"


def test_the_end_of_input_is_told_once_and_ends_the_watching(line: Line, ctx: AioContext) -> None:
    device = attach(line)
    line.hang_up_keys()
    while ctx.poll(False):
        pass
    assert device.events == [Event.CLOSED]
    assert line.chardev.watched == set()
    assert line.chardev.write(b"still here") == 10


def test_the_end_of_dev_null_is_seen_too(ctx: AioContext) -> None:
    with open(os.devnull, "rb") as null:
        chardev = FdChardev(ctx, null.fileno(), -1)
        device = Device()
        chardev.set_handlers(device.can_read, device.read, device.events.append)
        while not device.events:
            ctx.poll(True)
        assert device.events == [Event.CLOSED]
        chardev.close()


def test_descriptors_are_blocking_again_after_close(ctx: AioContext) -> None:
    line = Line(ctx)
    assert not os.get_blocking(line.from_us)
    line.chardev.close()
    assert os.get_blocking(line.from_us)
    assert os.get_blocking(line.to_us)
    line.close()


def test_a_descriptor_that_was_non_blocking_stays_so(ctx: AioContext) -> None:
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    chardev = FdChardev(ctx, -1, sink)
    chardev.close()
    assert not os.get_blocking(sink)
    os.close(source)
    os.close(sink)


def test_any_thread_may_write_and_wait(line: Line, ctx: AioContext) -> None:
    import threading

    fill(line)
    calls: list[int] = []
    thread = threading.Thread(
        target=lambda: line.chardev.when_writable(lambda: calls.append(threading.get_ident()))
    )
    thread.start()
    thread.join()
    while not calls:
        line.read()
        ctx.poll(False)
    assert calls == [threading.get_ident()]
