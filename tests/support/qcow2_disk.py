# SPDX-License-Identifier: GPL-2.0-only
"""An image whose file is memory: every write is seen, can be held up, and can fail.

    with open_on(Tape(image_bytes)) as disk: ...               a qcow2 image
    with open_on(Tape(image_bytes), driver="qed") as disk: ...

A Tape remembers each write, each flush and each new length in order. `cut` makes the image that a
power cut leaves: everything up to a flush, and of what came later any part.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.iov import Iov, iov_to_bytes
from block.core.node import BlockDriverState
from block.core.open import open_backend
from tests.support.drivers import Disk, Ram, ram_node

FLUSH = (-1, b"")
TRUNCATE = -2


class Tape(Disk):
    """The state of a TapeRam: a Disk that also keeps (offset, data) of every write."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self.data[:] = data
        self.start = bytes(data)
        self.writes: list[tuple[int, bytes]] = []  # or FLUSH, or (TRUNCATE, length)
        self.bad_place: int | None = None  # the next write there fails
        self.writes_left: int | None = None  # so many succeed, then
        self.torn = False  # all others fail, or (False) only one
        self.keeps = False  # what fails is written all the same
        self.discards = False
        self.failed_at: int | None = None  # the offset of the last one that failed

    def must_fail(self, offset: int) -> bool:
        """Whether a write to that place fails."""
        if offset == self.bad_place:
            self.bad_place = None
            return True
        if self.writes_left is None:
            return False
        self.writes_left -= 1
        return self.writes_left == -1 or (self.writes_left < 0 and self.torn)

    def cut(self, at: int, source: random.Random, shuffle: bool) -> bytes:
        """The file after a cut before write number `at`. `shuffle`: of the writes since the
        last flush, some are lost and the others come in any order."""
        writes = self.writes[:at]
        if shuffle:
            flushed = max((n for n, write in enumerate(writes) if write == FLUSH), default=-1) + 1
            late = [write for write in writes[flushed:] if source.random() < 0.6]
            source.shuffle(late)
            writes = writes[:flushed] + late
        image = bytearray(self.start)
        for offset, data in writes:
            if offset == TRUNCATE:
                length = int.from_bytes(data, "big")
                del image[length:]
                image.extend(bytes(length - len(image)))
            elif offset >= 0:
                image.extend(bytes(max(0, offset + len(data) - len(image))))
                image[offset : offset + len(data)] = data
        return bytes(image)


class Flushed:
    """What was safe when: how long the tape was after each flush, and the disk then."""

    def __init__(self, size: int) -> None:
        self.moments: list[tuple[int, bytes]] = [(0, bytes(size))]
        self.changed: list[tuple[int, int, int]] = []  # when, from, to

    def compare(self, at: int, found: bytes) -> None:
        """Whatever nobody touched since the last flush before `at` is there."""
        moment, expected = max((m for m in self.moments if m[0] <= at), key=lambda m: m[0])
        image, wanted = bytearray(found), bytearray(expected)
        for when, start, end in self.changed:
            if when >= moment:
                image[start:end] = wanted[start:end] = bytes(end - start)
        assert image == wanted, f"flushed data are lost at write {at}"


class TapeRam(Ram):
    """Memory that writes onto its tape."""

    format_name = "tape"

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        tape: Tape = bs.opaque
        if tape.must_fail(offset):
            tape.failed_at = offset
            if tape.keeps:
                await super().co_pwritev(bs, offset, nbytes, qiov, flags)
            raise BlockError(errno.EIO, "the tape is torn", bs.node_name)
        await super().co_pwritev(bs, offset, nbytes, qiov, flags)
        bs.opaque.writes.append((offset, iov_to_bytes(qiov, 0, nbytes)))

    async def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> None:
        await super().co_truncate(bs, offset, exact, prealloc, flags)
        bs.opaque.writes.append((TRUNCATE, offset.to_bytes(8, "big")))

    async def co_flush_to_disk(self, bs: BlockDriverState) -> None:
        await super().co_flush_to_disk(bs)
        bs.opaque.writes.append(FLUSH)


class HoleyTapeRam(TapeRam):
    """One that also discards: that is a write of zeroes on its tape."""

    format_name = "holey-tape"

    async def co_pdiscard(self, bs: BlockDriverState, offset: int, nbytes: int) -> None:
        bs.opaque.data[offset : offset + nbytes] = bytes(nbytes)
        bs.opaque.writes.append((offset, bytes(nbytes)))


@contextmanager
def open_on(tape: Tape, **options: Any) -> Iterator[BlockBackend]:
    """An image opened over a tape; closed afterwards."""
    file = ram_node(tape, "tape0", HoleyTapeRam if tape.discards else TapeRam)
    file.open_flags |= f.BDRV_O_UNMAP
    try:
        disk = open_backend(
            options={"driver": "qcow2", "file": "tape0", "discard": "unmap", **options},
            flags=f.BDRV_O_RDWR | f.BDRV_O_RESIZE,
        )
    finally:
        file.unref()
    try:
        yield disk
    finally:
        tape.errors.clear()
        tape.writes_left = None
        if disk.refcnt:
            disk.unref()
