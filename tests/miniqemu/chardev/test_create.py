# SPDX-License-Identifier: GPL-2.0-only
"""What may stand behind -serial: files, sockets, nothing; and what may not."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from block.aio.context import AioContext
from miniqemu.chardev.base import Chardev, ChardevError, Event
from miniqemu.chardev.create import new_chardev


@pytest.fixture
def make(ctx: AioContext) -> Callable[[str], Chardev]:
    return lambda spec: new_chardev(spec, ctx, lambda: None, "test", 1)


Make = Callable[[str], Chardev]


class Device:
    def __init__(self, line: Chardev) -> None:
        self.got = b""
        self.events: list[Event] = []
        line.set_handlers(lambda: 16, self.read, self.events.append)

    def read(self, data: bytes) -> None:
        self.got += data


def test_null_takes_everything(make: Make) -> None:
    line = make("null")
    assert line.write(b"x" * 100_000) == 100_000
    line.close()


def test_a_file_holds_what_was_written_and_nothing_older(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"older and longer")
    line = make(f"file:{path}")
    line.write(b"hello\n")
    line.close()
    assert path.read_bytes() == b"hello\n"


def test_the_rest_of_a_file_name_is_taken_as_it_is(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "a,server=on:b"
    make(f"file:{path}").close()
    assert path.exists()


def test_a_client_connects_and_speaks_both_ways(
    make: Make, ctx: AioContext, tmp_path: Path
) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        line = make(f"unix:{path}")
        device = Device(line)
        peer, _ = listener.accept()
    with peer:
        line.write(b"to you")
        assert peer.recv(100) == b"to you"
        peer.sendall(b"to me")
        while device.got != b"to me":
            ctx.poll(True)
    while Event.CLOSED not in device.events:
        ctx.poll(True)
    assert line.write(b"nobody there") == 12
    line.close()


def test_a_server_takes_one_client_after_the_other(
    make: Make, ctx: AioContext, tmp_path: Path
) -> None:
    path = str(tmp_path / "s")
    line = make(f"unix:{path},server=on,wait=off")
    device = Device(line)
    assert line.write(b"lost") == 4
    for name in (b"first", b"second"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(name)
            while name not in device.got:
                ctx.poll(True)
            line.write(b"hello " + name)
            assert client.recv(100) == b"hello " + name
        while device.events[-1] != Event.CLOSED:
            ctx.poll(True)
    assert device.events == [Event.OPENED, Event.CLOSED] * 2
    line.close()
    assert not os.path.exists(path)


def test_a_second_client_waits_until_the_first_has_left(
    make: Make, ctx: AioContext, tmp_path: Path
) -> None:
    path = str(tmp_path / "s")
    line = make(f"unix:{path},server=on,wait=off")
    device = Device(line)
    first, second = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    first.connect(path)
    second.connect(path)
    second.sendall(b"2")
    while not device.events:
        ctx.poll(True)
    for _ in range(3):
        ctx.poll(False)
    assert device.got == b""
    first.close()
    while device.got != b"2":
        ctx.poll(True)
    second.close()
    line.close()


def test_a_server_that_waits_does_not_start_without_a_client(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "s"
    done = threading.Event()

    def connect() -> None:
        while not (path.exists() and stat.S_ISSOCK(path.stat().st_mode)):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(str(path)):
                pass
            done.wait(10)

    thread = threading.Thread(target=connect)
    thread.start()
    line = make(f"unix:{path},server")
    assert line.write(b"x") == 1
    done.set()
    thread.join()
    line.close()


REFUSED = {
    "foo": "'foo' is not a valid char driver",
    "": "'' is not a valid char driver",
    "mon:foo": "'foo' is not a valid char driver",
    "pty": "'pty' is not supported by miniqemu",
    "vc:80Cx24C": "'vc:80Cx24C' is not supported by miniqemu",
    "tcp::4444,server": "'tcp::4444,server' is not supported by miniqemu",
    "file:": "Could not open '': No such file or directory",
    "file:/nope/x": "Could not open '/nope/x': No such file or directory",
    "unix:/nope/x": "Failed to connect to '/nope/x': No such file or directory",
    "unix:/nope/x,server=on": "Failed to bind socket to /nope/x: No such file or directory",
    "unix:/nope/x,foo=1": "Invalid parameter 'foo'",
    "unix:/nope/x,telnet=on": "Parameter 'telnet' is not supported by miniqemu",
    "unix:/nope/x,server=maybe": "Parameter 'server' expects 'on' or 'off'",
    "unix:/nope/x,wait=off": "'wait' option is incompatible with socket in client connect mode",
    "unix:": "unix: needs the path of a socket",
    "unix:/" + "x" * 107: "UNIX socket path '/" + "x" * 107 + "' is too long",
}


@pytest.mark.parametrize("spec", REFUSED)
def test_a_wrong_line_is_refused_with_its_cause(make: Make, spec: str) -> None:
    with pytest.raises(ChardevError) as caught:
        make(spec)
    assert str(caught.value).startswith(REFUSED[spec])
    assert "\n" not in str(caught.value)
