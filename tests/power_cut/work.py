# SPDX-License-Identifier: GPL-2.0-only
"""Work on an image whose file is logged, and the images that power cuts leave of it.

    cuts = Recorded(folder, "qcow2", seed=1, cluster_size=4096)
    for path, at in cuts.images():          a power cut behind each entry of the log
        ...

The tree is qcow2 -> blklogwrites -> file. Requests run several at a time, as a guest's do; a flush
stands alone, so one knows what was written before it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import block
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.open import open_backend
from block.ops.replay_log import ReplayLog
from tests.support.qcow2_disk import Flushed
from tests.support.qcow2_work import Op, Work

SIZE = (1 << 20) + 3 * 512


class Recorded:
    """An image that was worked on: `before` (its bytes then), the log, and what was safe when."""

    def __init__(
        self,
        folder: Path,
        fmt: str,
        seed: int,
        steps: int = 25,
        backed: bool = False,
        packed: bool = False,
        runtime: dict[str, object] | None = None,
        **create: Any,
    ) -> None:
        self.folder, self.fmt, self.seed = folder, fmt, seed
        image, log = folder / f"image.{fmt}", folder / "image.log"
        base = random.Random(seed).randbytes(SIZE) if backed else b""
        if backed:
            create |= backing_file(folder, "vmdk" if fmt == "vmdk" else "raw", base)
        block.create(os.fspath(image), fmt, SIZE, **create)
        log.write_bytes(b"")
        self.work = Work(seed, SIZE, 65536 if fmt == "vmdk" else create["cluster_size"], base)
        if packed:
            self._pack(image)
        self.before = image.read_bytes()
        self.safe = Flushed(SIZE)
        self.safe.moments = [(0, bytes(self.work.model))]
        self._do(image, log, steps, runtime or {})
        self.after = image.read_bytes()
        self.log = ReplayLog.open(os.fspath(log))

    def _pack(self, image: Path) -> None:
        """Fills the disk with compressed clusters, all of it safe."""
        pick = random.Random(self.seed)
        for at in range(0, SIZE, 16):
            self.work.model[at : at + 16] = bytes([pick.randrange(256)]) * 16
        del self.work.model[SIZE:]
        with block.open(os.fspath(image), format=self.fmt) as disk:
            disk.pwrite(0, bytes(self.work.model), f.REQ_WRITE_COMPRESSED)

    def _do(self, image: Path, log: Path, steps: int, runtime: dict[str, object]) -> None:
        file = {
            "driver": "blklogwrites",
            "file": {"driver": "file", "filename": os.fspath(image)},
            "log": {"driver": "file", "filename": os.fspath(log)},
        }
        options = {"driver": self.fmt, "file": file, "discard": "unmap", **runtime}
        with open_backend(options=options, flags=f.BDRV_O_RDWR) as disk:
            assert disk.bs is not None
            assert disk.bs.file is not None
            head = disk.bs.file.bs.opaque.head
            for _ in range(steps):
                begun = head.nr_entries
                for op in self._together():
                    submit(disk, op)
                    self.work.note(op, disk.bs.backing is not None)
                    self.safe.changed.append((begun, op.offset, op.offset + op.nbytes))
                disk.drain()
                if self.work.random.random() < 0.3:
                    disk.flush()
                    self.safe.moments.append((head.nr_entries, bytes(self.work.model)))

    def _together(self) -> list[Op]:
        """One to four changes that touch nothing of each other's clusters."""
        names = ["write", "write", "write", "zeroes", "unmap"]
        if self.fmt == "qcow2":
            names.append("discard")
        taken: set[int] = set()
        together = []
        for _ in range(self.work.random.randint(1, 4)):
            op = Op(
                self.work.random.choice(names), *self.work.place(), len(self.safe.changed) % 255
            )
            touched = set(range(op.offset >> 9, (op.offset + op.nbytes + 511) >> 9))
            if touched.isdisjoint(taken):
                taken |= touched
                together.append(op)
        return together

    def images(self, lossy: bool) -> Iterator[tuple[Path, int]]:
        """A power cut behind each entry, one after the other in the same file; `lossy`: of what was
        not flushed some is lost, and the rest came in another order."""
        pick = random.Random(self.seed)
        path = self.folder / f"cut.{self.fmt}"
        for at in range(len(self.log.entries) + 1):
            path.write_bytes(self.before)
            entries = self.log.power_cut(at, pick) if lossy else self.log.entries[:at]
            with path.open("r+b") as image:
                self.log.replay(entries, image)
            yield path, at


def backing_file(folder: Path, fmt: str, data: bytes) -> dict[str, str]:
    """Makes a backing file that holds `data`; returns the options that name it."""
    path = os.fspath(folder / f"base.{fmt}")
    block.create(path, fmt, len(data))
    with block.open(path, format=fmt, cache="unsafe") as disk:
        disk.pwrite(0, data)
    return {"backing_file": path, "backing_fmt": fmt}


def submit(disk: BlockBackend, op: Op) -> None:
    """Begins a change; its failure is an assertion's, when it ends."""

    def done(ret: int) -> None:
        assert ret == 0, op

    if op.what == "write":
        disk.aio_pwritev(op.offset, [memoryview(bytes([op.pattern]) * op.nbytes)], done)
    elif op.what == "discard":
        disk.aio_pdiscard(op.offset, op.nbytes, done)
    else:
        flags = f.REQ_MAY_UNMAP if op.what == "unmap" else 0
        disk.aio_pwrite_zeroes(op.offset, op.nbytes, done, flags)
