# SPDX-License-Identifier: GPL-2.0-only
"""Fuzz target: an image file in which anything at all may stand.

The input is the file; one target for each format. It is kept in memory, opened, looked at from all
sides, written to, checked, repaired, and opened again. What must hold:

R1  Nothing but BlockError comes out, whatever the image says.
R2  The file never becomes longer than what was asked for: LIMIT bytes (EFBIG beyond).
R3  An image that a repair leaves without errors has none when it is checked again; qcow2 has no
    leaks either (a qed image never frees a cluster).
R4  When it is closed, no node is left.

libFuzzer watches over time and memory (run.py).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack, chdir
from functools import partial
from tempfile import TemporaryDirectory
from unittest.mock import patch

from block.core import check, graph
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.iov import Iov
from block.core.node import BlockDriverState
from block.core.open import open_backend
from block.core.status import co_block_status
from block.core.wait import run_sync
from block.crypto.hashes import pbkdf2
from block.crypto.luks import keyslot
from block.ops import bitmap as bitmap_ops
from block.ops.info import query_image_info
from tests.fuzz.image_seeds import a_secret
from tests.support.drivers import Disk, ZeroRam, ram_node

LONGEST = 768 << 10  # bytes of an image
LIMIT = 8 << 20
SECRET = "fuzz"
EXTENTS = 64  # that are read; an image that lies may have millions


class ShortRam(ZeroRam):
    """Memory as a file, which the file system does not let grow for ever (R2)."""

    format_name = protocol_name = "short-ram"

    async def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> None:
        _fits(offset + nbytes)
        await super().co_pwritev(bs, offset, nbytes, qiov, flags)

    async def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> None:
        _fits(offset + nbytes)
        await super().co_pwrite_zeroes(bs, offset, nbytes, flags)

    async def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> None:
        _fits(offset)
        await super().co_truncate(bs, offset, exact, prealloc, flags)


def _fits(length: int) -> None:
    if length > LIMIT:
        raise BlockError(errno.EFBIG, os.strerror(errno.EFBIG))


class Target:
    """Runs images of one format."""

    def __init__(self, fmt: str) -> None:
        self.fmt = fmt
        self._options = {"driver": fmt, "file": "file0", "backing": None}
        self._left = ExitStack()
        if fmt == "luks":
            self._left.enter_context(a_secret(SECRET))
            self._left.enter_context(patch.object(keyslot, "pbkdf2", hashed_soon))
            self._options["key-secret"] = SECRET
        # Names that an image makes up lead to nothing here.
        self._left.enter_context(chdir(self._left.enter_context(TemporaryDirectory())))

    def close(self) -> None:
        """Leaves the empty folder, and forgets the password."""
        self._left.close()

    def __call__(self, data: bytes) -> None:
        """Runs one image; raises what it finds wrong."""
        image = bytearray(data[:LONGEST])
        self.on(image, f.BDRV_O_RDWR | f.BDRV_O_UNMAP, work)
        self.on(image, f.BDRV_O_RDWR | f.BDRV_O_CHECK, repair)
        self.on(image, 0, look)
        assert not graph.all_states, "R4"

    def on(self, image: bytes | bytearray, flags: int, use: Callable[[BlockBackend], None]) -> None:
        """Opens an image, uses it, and closes it; a bytearray keeps what was written."""
        disk = Disk(0)
        disk.data = bytearray(image) if isinstance(image, bytes) else image
        file = ram_node(disk, "file0", ShortRam)
        try:
            with open_backend(options=self._options, flags=flags) as blk:
                use(blk)
        except BlockError:
            return  # R1
        finally:
            file.unref()


def hashed_soon(alg: str, password: bytes, salt: bytes, iterations: int, length: int) -> bytes:
    """pbkdf2; a header may ask for hours of it, as with QEMU: that is no find."""
    return pbkdf2(alg, password, salt, min(iterations, 1000), length)


def tried(what: Callable[..., object], *arguments: object) -> None:
    """Does something to a disk; that it fails is the disk's right."""
    try:
        what(*arguments)
    except BlockError:
        return


def look(blk: BlockBackend) -> None:
    """Asks for everything that can be asked for, and reads."""
    bs = node(blk)
    length = blk.length
    tried(query_image_info, bs)
    tried(read_extents, blk, length)
    for offset in places(length):
        tried(blk.pread, offset, min(4096, length - offset))


def read_extents(blk: BlockBackend, length: int) -> None:
    """Reads the beginning of each of the first extents."""
    bs, offset = node(blk), 0
    for _ in range(EXTENTS):
        if offset >= length:
            return
        asked = partial(co_block_status, bs, True, offset, length - offset)
        _, nbytes, _, _ = run_sync(bs.aio_context, asked)
        assert 0 < nbytes <= length - offset
        tried(blk.pread, offset, min(nbytes, 65536))
        offset += nbytes


def work(blk: BlockBackend) -> None:
    """Changes the disk in all ways, here and there."""
    look(blk)
    length = blk.length
    for number, offset in enumerate(places(length)):
        nbytes = min(3000, length - offset)
        tried(blk.pwrite, offset, bytes([number + 1]) * nbytes)
        tried(blk.pwrite_zeroes, offset, nbytes // 2)
        tried(blk.pdiscard, offset, nbytes)
    tried(blk.flush)
    tried(blk.truncate, length + 65536)
    for bitmap in node(blk).dirty_bitmaps[:1]:
        tried(bitmap_ops.remove, node(blk), bitmap.name)


def repair(blk: BlockBackend) -> None:
    """Checks and repairs (R3)."""
    bs = node(blk)
    said: list[str] = []
    found = check.check(bs, check.FIX_LEAKS | check.FIX_ERRORS, said.append)
    if found.check_errors or found.corruptions:
        return
    again = check.check(bs, 0, said.append)
    leaks = again.leaks if bs.drv is not None and bs.drv.format_name == "qcow2" else 0
    assert (again.corruptions, leaks) == (0, 0), said


def node(blk: BlockBackend) -> BlockDriverState:
    assert blk.bs is not None
    return blk.bs


def places(length: int) -> list[int]:
    """Where a disk is looked at: its ends, its middle, and around the first clusters."""
    return sorted(
        {at for at in (0, 511, 4096, 65536, length // 2, length - 512) if 0 <= at < length}
    )
