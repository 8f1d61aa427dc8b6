# SPDX-License-Identifier: GPL-2.0-only
"""The driver `luks`: its hooks (bdrv_crypto_luks). What LUKS is stands in block/crypto.

    file:   | header | key material of 8 slots | payload: the disk, sector by sector |

R1  Every sector is data: what was never written reads as what zeroes decrypt to.
R2  The header changes only while keys are amended; then nobody else may use the file.
Requests run in the thread of the node's context, opening and closing in the main thread.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.driver import BlockDriver, BlockDriverInfo
from block.core.error import BlockError
from block.core.open import open_child
from block.core.options import invalid, take_options
from block.core.permissions import child_refresh_perms, default_perms
from block.crypto import request
from block.crypto.luks.amend import amend
from block.crypto.luks.volume import LuksBlock, open_luks
from block.crypto.options import KEY_SECRET, LUKS_AMEND_OPTS, take_luks_amend
from block.formats.luks import create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState

CHANGES = f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE


class LuksState:
    """One open volume (BlockCrypto)."""

    __slots__ = ("crypto", "file", "payload", "updating_keys")

    def __init__(self, file: BdrvChild, crypto: LuksBlock) -> None:
        self.file = file
        self.crypto = crypto
        self.payload = crypto.payload_offset
        self.updating_keys = False  # R2


class LuksDriver(BlockDriver):
    """The hooks of `luks`."""

    format_name = "luks"
    runtime_opts = (KEY_SECRET,)
    create_opts = create.CREATE_OPTS
    amend_opts = LUKS_AMEND_OPTS
    strong_runtime_opts = ("key-secret",)

    # -- opening and closing

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        bs.file = file = open_child(None, options, "file", bs, f.BDRV_CHILD_IMAGE)
        assert file is not None
        bs.supported_write_flags = f.REQ_FUA & file.bs.supported_write_flags
        taken = take_options(options, self.runtime_opts)
        no_io = bool(flags & f.BDRV_O_NO_IO)
        crypto = open_luks(file.pread, taken["key-secret"], no_io=no_io)
        bs.opaque = LuksState(file, crypto)
        bs.encrypted = True

    def create(self, filename: str, options: dict[str, object]) -> None:
        create.create(filename, options)

    def measure(self, options: dict[str, object], in_bs: BlockDriverState | None) -> dict[str, int]:
        return create.measure(options, in_bs)

    def amend_options(
        self,
        bs: BlockDriverState,
        options: dict[str, object],
        progress: Callable[[int, int], None],
        force: bool,
    ) -> None:
        """Changes passwords, alone with the file (block_crypto_amend_options_luks, R2)."""
        s: LuksState = bs.opaque
        wanted = take_luks_amend(options)
        s.updating_keys = True
        try:
            child_refresh_perms(bs, s.file)
            amend(s.crypto, wanted, s.file.pread, s.file.pwrite, force)
            bs.flush()
        finally:
            s.updating_keys = False
            child_refresh_perms(bs, s.file)

    def reopen_prepare(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        """Nothing of its own changes (block_crypto_reopen_prepare)."""

    def refresh_limits(self, bs: BlockDriverState) -> None:
        bs.bl.request_alignment = f.SECTOR_SIZE

    def getlength(self, bs: BlockDriverState) -> int:
        s: LuksState = bs.opaque
        length = s.file.bs.getlength() - s.payload
        if length < 0:
            message = "The file ends before the payload begins"
            raise BlockError(errno.EIO, message, bs.node_name, self.format_name)
        return length

    def get_info(self, bs: BlockDriverState) -> BlockDriverInfo | None:
        s: LuksState = bs.opaque
        below = s.file.bs.get_info()
        return None if below is None else BlockDriverInfo(below.cluster_size)

    def get_specific_info(self, bs: BlockDriverState) -> dict[str, object]:
        s: LuksState = bs.opaque
        return {"type": "luks", "data": s.crypto.get_info()}

    def child_perm(
        self, bs: BlockDriverState, child: BdrvChild | None, role: int, perm: int, shared: int
    ) -> tuple[int, int]:
        """Like a filter where the disk's content is concerned, as images have always been used
        (block_crypto_child_perms); alone with the file while keys change (R2)."""
        needed, let = default_perms(bs, role, perm, shared)
        let |= shared & CHANGES
        needed = needed & ~CHANGES | perm & CHANGES
        if bs.opaque is not None and bs.opaque.updating_keys:
            needed |= f.BLK_PERM_WRITE
            let &= ~(f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE)
        return needed, let

    # -- requests

    def try_preadv(self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov) -> int | None:
        s: LuksState = bs.opaque
        return request.try_preadv(s.file, s.payload + offset, s.crypto, offset, nbytes, qiov)

    def co_preadv(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        s: LuksState = bs.opaque
        return request.co_preadv(s.file, s.payload + offset, s.crypto, offset, nbytes, qiov)

    def co_pwritev(
        self, bs: BlockDriverState, offset: int, nbytes: int, qiov: Iov, flags: int
    ) -> Awaitable[None]:
        s: LuksState = bs.opaque
        place = s.payload + offset
        return request.co_pwritev(s.file, place, s.crypto, offset, nbytes, qiov, flags)

    async def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> None:
        s: LuksState = bs.opaque
        if s.payload > f.INT64_MAX - offset:
            raise invalid("The requested file size is too large")
        await s.file.co_truncate(offset + s.payload, exact, prealloc)
