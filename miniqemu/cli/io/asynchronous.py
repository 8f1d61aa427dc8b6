# SPDX-License-Identifier: GPL-2.0-only
"""aio_read, aio_write and aio_flush: requests that nobody waits for at once.

R1  The command has succeeded when the request is on its way; what becomes of it is printed when
    it ends, while another command waits for something.
"""

from __future__ import annotations

import os

from block.core import drain
from block.core.accounting import READ, WRITE

from .buffers import READ_FILL, WRITE_FILL, create_iovec, dump, verify
from .numbers import cvtnum, parse_pattern, print_report
from .session import Failed
from .write import request_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Given, Session


class Invalid(Exception):
    """-i: the request is to be counted as invalid, and not made."""


def _invalid(_: str) -> object:
    raise Invalid


def _options(session: Session, argv: list[str], what: str, kind: int) -> Given | None:
    """The options of a request, None for one that is only counted as invalid."""
    try:
        return session.options(argv, {"P": parse_pattern, "i": _invalid})
    except Invalid:
        session.say(f"injecting invalid {what} request")
        session.disk.stats.invalid(kind)
        return None


def _vector(
    session: Session, given: Given, pattern: int, kind: int
) -> tuple[memoryview, list[memoryview]]:
    """The buffers of a request; one with wrong lengths counts as invalid. Raises Failed."""
    try:
        return create_iovec(session, given.words[1:], pattern)
    except Failed:
        session.disk.stats.invalid(kind)
        raise


class Request:
    """One that is on its way (struct aio_ctx); `buffer` is None for zeroes."""

    def __init__(
        self, session: Session, given: Given, offset: int, count: int, buffer: memoryview | None
    ) -> None:
        self.session = session
        self.given = given
        self.offset = offset
        self.count = count
        self.buffer = buffer
        self.start_ns = session.world.realtime_ns()

    def read_done(self, ret: int) -> None:
        """The callback of a read (aio_read_done)."""
        assert self.buffer is not None, "a read has a buffer"
        if ret < 0:
            self.session.say(f"readv failed: {os.strerror(-ret)}")
            return
        ns = self.session.world.realtime_ns() - self.start_ns
        if "P" in self.given:
            verify(self.session, self.buffer, self.given.number("P", 0), self.offset)
        if "v" in self.given and "q" not in self.given:
            for line in dump(self.buffer, self.offset):
                self.session.say(line)
        self._tell("read", ns)

    def write_done(self, ret: int) -> None:
        """The callback of a write (aio_write_done)."""
        if ret < 0:
            self.session.say(f"aio_write failed: {os.strerror(-ret)}")
            return
        self._tell("wrote", self.session.world.realtime_ns() - self.start_ns)

    def _tell(self, what: str, ns: int) -> None:
        if "q" not in self.given:
            print_report(self.session, what, ns, self.offset, self.count, "C" in self.given)


def do_aio_read(session: Session, argv: list[str]) -> None:
    """Sends a read off."""
    given = _options(session, argv, "read", READ)
    if given is None:
        return
    offset = cvtnum(given.words[0])
    buffer, vector = _vector(session, given, READ_FILL, READ)
    request = Request(session, given, offset, len(buffer), buffer)
    session.disk.aio_preadv(offset, vector, request.read_done)


def do_aio_write(session: Session, argv: list[str]) -> None:
    """Sends a write off, or with -z a write of zeroes."""
    given = _options(session, argv, "write", WRITE)
    if given is None:
        return
    _refuse_contradictions(given)
    offset = cvtnum(given.words[0])
    flags = request_flags(given)
    if "z" in given:
        count = cvtnum(given.words[1])
        request = Request(session, given, offset, count, None)
        session.disk.aio_pwrite_zeroes(offset, count, request.write_done, flags)
        return
    buffer, vector = _vector(session, given, given.number("P", WRITE_FILL), WRITE)
    request = Request(session, given, offset, len(buffer), buffer)
    session.disk.aio_pwritev(offset, vector, request.write_done, flags)


def _refuse_contradictions(given: Given) -> None:
    """As QEMU's, which lets -P pass beside -z: the zeroes win."""
    if "z" in given and len(given.words) != 2:
        raise Failed("-z supports only a single length parameter")
    if "u" in given and "z" not in given:
        raise Failed("-u requires -z to be specified")


def do_aio_flush(session: Session, argv: list[str]) -> None:
    """Waits for all requests, of all images."""
    drain.drain_all()
