# SPDX-License-Identifier: GPL-2.0-only
"""Users of a tree: they submit random requests without pause, and check each answer.

R1  A user submits from its callbacks alone, so from the thread at home in the tree's context. In a
    drained section its backend parks what it submits.
R2  No two requests in flight touch the same unit of the disk, unless both read: so the model says
    what every read must return. After a discard that is anything, until the next write.
R3  A callback comes once for each request, in the thread at home in the tree's context.
All of a Load's state belongs to the thread at home in the tree's context; who waits for the load
reads `completed` only.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

from block.aio.context import AioContext
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.node import BlockDriverState
from tests.conformance.trail import Trail

UNIT = 4096
MOST_UNITS = 4
LONGEST = 1 << 20
KINDS = ("read",) * 12 + ("write",) * 9 + ("zeroes", "zeroes", "discard", "flush")

Report = Callable[..., None]
"""What is told of a mistake: its kind, what was seen, and the line if there is one."""


class Model:
    """What the disk must hold; `known` has a 1 for each byte that is certain (R2)."""

    def __init__(self, length: int) -> None:
        self.data = bytearray(length)
        self.known = bytearray(b"\1") * length
        self.readers = [0] * (length // UNIT)
        self.writers = bytearray(length // UNIT)

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data
        self.known[offset : offset + len(data)] = b"\1" * len(data)

    def discard(self, offset: int, nbytes: int) -> None:
        self.known[offset : offset + nbytes] = bytes(nbytes)

    def differs_at(self, offset: int, read: bytes | bytearray) -> int | None:
        """Returns the first offset at which a read is wrong."""
        end = offset + len(read)
        if read == self.data[offset:end]:
            return None
        for at, (got, held, sure) in enumerate(
            zip(read, self.data[offset:end], self.known[offset:end], strict=True), offset
        ):
            if sure and got != held:
                return at
        return None

    def free(self, units: range, writes: bool) -> bool:
        """Says whether a request may touch these units now."""
        if any(self.writers[unit] for unit in units):
            return False
        return not writes or not any(self.readers[unit] for unit in units)

    def begin(self, units: range, writes: bool) -> None:
        for unit in units:
            if writes:
                self.writers[unit] = 1
            else:
                self.readers[unit] += 1

    def end(self, units: range, writes: bool) -> None:
        for unit in units:
            if writes:
                self.writers[unit] = 0
            else:
                self.readers[unit] -= 1


class Load:
    """All users of one root, their common model, and how far they are.

    trail       who has touched which byte
    keeps_data  False: what a read returns is not looked at
    """

    def __init__(
        self,
        root: BlockDriverState,
        report: Report,
        trail: Trail,
        seed: int,
        keeps_data: bool = True,
    ) -> None:
        self.root = root
        self.report = report
        self.trail = trail
        self.random = random.Random(seed)
        self.keeps_data = keeps_data
        self.model = Model(min(root.getlength(), LONGEST) // UNIT * UNIT)
        self.users: list[User] = []
        self.completed = 0
        self.stopping = False
        self.wanted = 0  # who waits for so many is woken, by `waiter`
        self.waiter: AioContext | None = None

    def add_users(self, shares: tuple[tuple[float, float], ...], depth: int) -> None:
        """Adds a user for each part of the disk: (0, 1) is all of it."""
        n_units = len(self.model.writers)
        for first, last in shares:
            units = range(int(first * n_units), int(last * n_units))
            self.users.append(User(self, units, depth))

    @property
    def in_flight(self) -> int:
        return sum(len(user.in_flight) for user in self.users)

    def start(self) -> None:
        """Lets all users begin; in the thread at home in the tree's context."""
        for user in self.users:
            user.submit_more()

    def fill(self) -> None:
        """Writes all of the disk once, so that every tree begins with the same bytes."""
        data = self.random.randbytes(len(self.model.data))
        self.users[0].blk.pwrite(0, data)
        self.model.write(0, data)

    def one_more(self) -> None:
        """Counts a completion, and wakes who waits for it."""
        self.completed += 1
        if self.completed >= self.wanted and self.waiter is not None:
            self.waiter.notify()

    def verify(self) -> None:
        """Compares the whole disk with the model, after the load has ended."""
        if not self.keeps_data:
            return
        at = self.model.differs_at(0, self.users[0].blk.pread(0, len(self.model.data)))
        if at is not None:
            self.report_data(at, f"byte {at} is wrong at the end")

    def report_data(self, at: int, what: str) -> None:
        """Tells of a wrong byte, and who has touched it."""
        where, who = self.trail.about(at)
        self.report("data", f"{what}; {who}", where)

    def close(self) -> None:
        for user in self.users:
            user.blk.unref()


class User:
    """A backend on the root that keeps `depth` requests in flight in its part of the disk."""

    def __init__(self, load: Load, units: range, depth: int) -> None:
        self.load = load
        self.units = units
        self.depth = depth
        self.blk = BlockBackend(f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE, f.BLK_PERM_ALL)
        self.blk.insert_bs(load.root)
        self.in_flight: dict[int, _Request] = {}
        self.last_number = 0

    def submit_more(self) -> None:
        while len(self.in_flight) < self.depth and not self.load.stopping:
            request = _Request.made_for(self)
            if request is None:
                return  # all is busy: the next completion looks again
            self.last_number += 1
            self.in_flight[self.last_number] = request
            request.submit(self.last_number)

    def done(self, number: int, ret: int) -> None:
        """Is the callback of a request (R3)."""
        load = self.load
        request = self.in_flight.pop(number, None)
        if request is None:
            load.report("completed twice", f"request {number}")
            return
        if not self.blk.aio_context.is_home():
            load.report("wrong thread", self.blk.aio_context.stranger())
        request.end(ret)
        load.one_more()
        for user in load.users:  # one that found all busy has waited for this
            user.submit_more()


class _Request:
    """One request, from its submission to its check."""

    __slots__ = ("buffer", "kind", "nbytes", "offset", "units", "user")

    def __init__(self, user: User, kind: str, offset: int, nbytes: int, units: range) -> None:
        self.user = user
        self.kind = kind
        self.offset = offset
        self.nbytes = nbytes
        self.units = units
        self.buffer = b"" if kind in ("zeroes", "discard", "flush") else bytearray(nbytes)

    @classmethod
    def made_for(cls, user: User) -> _Request | None:
        """Makes a random one in a place where nobody is now; None if there is none."""
        load = user.load
        kind = load.random.choice(KINDS)
        if kind == "flush":
            return cls(user, kind, 0, 0, range(0))
        for _ in range(8):
            first = load.random.choice(user.units)
            units = range(first, min(first + load.random.randint(1, MOST_UNITS), user.units.stop))
            if load.model.free(units, kind != "read"):
                load.model.begin(units, kind != "read")
                head, tail = load.random.choice(((0, 0), (0, 0), (512, 512), (0, 1024), (100, 7)))
                nbytes = len(units) * UNIT - head - tail
                return cls(user, kind, first * UNIT + head, nbytes, units)
        return None

    def submit(self, number: int) -> None:
        user, blk, load = self.user, self.user.blk, self.user.load

        def done(ret: int) -> None:
            user.done(number, ret)

        if self.kind == "read":
            blk.aio_preadv(self.offset, [memoryview(self.buffer)], done)
        elif self.kind == "write":
            self.buffer = load.random.randbytes(self.nbytes)
            half = memoryview(self.buffer)[: self.nbytes // 2]
            rest = memoryview(self.buffer)[self.nbytes // 2 :]
            blk.aio_pwritev(self.offset, [half, rest], done)
        elif self.kind == "zeroes":
            unmap = load.random.choice((0, f.REQ_MAY_UNMAP))
            blk.aio_pwrite_zeroes(self.offset, self.nbytes, done, unmap)
        elif self.kind == "discard":
            blk.aio_pdiscard(self.offset, self.nbytes, done)
        else:
            blk.aio_flush(done)

    def end(self, ret: int) -> None:
        """Checks the answer, and notes in the model what the disk holds now."""
        load = self.user.load
        model = load.model
        model.end(self.units, self.kind != "read")
        if ret < 0:
            name = errno.errorcode.get(-ret, str(ret))
            load.report("failed", f"{self.kind} of {self.nbytes} bytes at {self.offset}: {name}")
        elif self.kind == "read" and load.keeps_data:
            at = model.differs_at(self.offset, self.buffer)
            if at is not None:
                what = f"a read of {self.nbytes} bytes at {self.offset} is wrong at byte {at}"
                load.report_data(at, what)
        elif self.kind == "write":
            model.write(self.offset, bytes(self.buffer))
        elif self.kind == "zeroes":
            model.write(self.offset, bytes(self.nbytes))
        elif self.kind == "discard":
            model.discard(self.offset, self.nbytes)
