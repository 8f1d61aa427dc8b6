# SPDX-License-Identifier: GPL-2.0-only
"""Random work on an image, of qcow2 mostly, beside a plain bytearray that says what must come out.

Work       makes operations from a seed, applies them to an image and to the model
qemu_io    the same operations as commands for qemu-io

Offsets and lengths prefer the edges of clusters: there the mistakes are.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import block
from block.core import flags as f
from block.core.backend import BlockBackend

SECTOR = 512


class Op(NamedTuple):
    """One operation; `pattern` is the byte that a write fills its range with."""

    what: str
    offset: int
    nbytes: int
    pattern: int = 0


class Work:
    """A seeded stream of operations, and the model of the disk they work on."""

    def __init__(self, seed: int, size: int, cluster_size: int, base: bytes = b"") -> None:
        self.random = random.Random(seed)
        self.size = size
        self.cluster_size = cluster_size
        self.model = bytearray(base[:size].ljust(size, b"\0"))

    def place(self) -> tuple[int, int]:
        """A range within the disk: odd, or at clusters' edges, short or over several clusters."""
        pick = self.random
        cluster = self.cluster_size
        offset = pick.randrange(self.size)
        if pick.random() < 0.4:
            offset = offset // cluster * cluster
        elif pick.random() < 0.5:
            offset = offset // SECTOR * SECTOR
        longest = pick.choice((SECTOR, 4096, cluster, 3 * cluster, min(40 * cluster, 1 << 20)))
        nbytes = pick.randint(1, longest)
        if pick.random() < 0.4:
            nbytes = max(cluster, nbytes // cluster * cluster)
        return offset, min(nbytes, self.size - offset)

    def ops(self, count: int) -> Iterator[Op]:
        """Yields operations."""
        names = ("write", "read", "zeroes", "unmap", "discard", "flush", "reopen")
        weights = (40, 30, 8, 8, 10, 3, 0.3)
        for _ in range(count):
            what = self.random.choices(names, weights)[0]
            yield Op(what, *self.place(), self.random.randrange(1, 256))

    def note(self, op: Op, has_backing: bool = False, version: int = 3) -> None:
        """Does to the model what the operation does to a disk."""
        start, end = op.offset, op.offset + op.nbytes
        if op.what == "write":
            self.model[start:end] = bytes([op.pattern]) * op.nbytes
        elif op.what in ("zeroes", "unmap"):
            self.model[start:end] = bytes(op.nbytes)
        elif op.what == "discard":
            start = -(-start // self.cluster_size) * self.cluster_size
            if end != self.size:
                end = end // self.cluster_size * self.cluster_size
            if start < end and (version > 2 or not has_backing):
                self.model[start:end] = bytes(end - start)


def do(disk: BlockBackend, op: Op) -> bool:
    """Does an operation that changes something; False where it is none."""
    start, nbytes = op.offset, op.nbytes
    if op.what == "write":
        disk.pwrite(start, bytes([op.pattern]) * nbytes)
    elif op.what == "zeroes":
        disk.pwrite_zeroes(start, nbytes)
    elif op.what == "unmap":
        disk.pwrite_zeroes(start, nbytes, f.REQ_MAY_UNMAP)
    elif op.what == "discard":
        disk.pdiscard(start, nbytes)
    elif op.what == "flush":
        disk.flush()
    else:
        return False
    return True


class OurImage:
    """An image opened by us; `apply` does operations, and compares what it reads."""

    def __init__(
        self, path: Path, work: Work, version: int = 3, fmt: str = "qcow2", **options: Any
    ) -> None:
        self.path = path
        self.work = work
        self.version = version
        self.fmt = fmt
        self.options = {"discard": "unmap", **options}
        self._open()

    def _open(self) -> None:
        self.disk = block.open(
            os.fspath(self.path), format=self.fmt, cache="unsafe", options=self.options
        )
        bs = self.disk.bs
        assert bs is not None
        self.has_backing = bs.backing is not None

    def apply(self, op: Op) -> None:
        """Does one operation on the image and on the model."""
        if op.what == "read":
            expected = self.work.model[op.offset : op.offset + op.nbytes]
            assert self.disk.pread(op.offset, op.nbytes) == expected, op
        elif not do(self.disk, op):
            self.disk.close()
            self._open()
        self.work.note(op, self.has_backing, self.version)

    def work_on(self, count: int) -> None:
        """Does so many operations, and closes it."""
        try:
            for op in self.work.ops(count):
                self.apply(op)
        finally:
            self.close()

    def close(self) -> None:
        """Reads all of it once more, and closes it."""
        try:
            assert self.disk.pread(0, self.work.size) == self.work.model
        finally:
            self.disk.close()


def qemu_io(op: Op) -> str | None:
    """The command for qemu-io; None for what it has no command for."""
    place = f"{op.offset} {op.nbytes}"
    return {
        "write": f"write -P {op.pattern} {place}",
        "read": f"read {place}",
        "zeroes": f"write -z {place}",
        "unmap": f"write -z -u {place}",
        "discard": f"discard {place}",
        "flush": "flush",
    }.get(op.what)
