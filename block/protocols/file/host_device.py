# SPDX-License-Identifier: GPL-2.0-only
"""The `host_device` driver: a disk of this machine, or a character device (block/file-posix.c).

    host_device:/dev/sdb, or just /dev/sdb: a name that belongs to a device is opened so

It is the file driver but for what a device does otherwise: how long it is, that it stays so, what
discards and zeroes become (device.py). Which parts of it hold data, nobody can tell.

R1  To make an image there is to open the device, see that it is long enough, and clear its first
    sector, where the last format had its magic. What else it held is still there.
R2  A disk discards whole sectors and refuses all else. So the core cuts discards and zeroes there;
    of a discard the ends are dropped, of zeroes they are written. (QEMU passes on what it gets,
    and the discard fails.)

Requests run in the thread of the node's context, opening and closing in the main thread.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.driver import BlockDriver
from block.core.error import BlockError, failed
from block.core.filename import strip_protocol
from block.core.options import Option, parse_enum, take_options
from block.protocols.file import device
from block.protocols.file.driver import FileDriver, co_discard
from block.protocols.file.threads import in_pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.backend import BlockBackend
    from block.core.node import BlockDriverState

CREATE_OPTS = (
    Option("size", "size", "Virtual disk size", 0),
    Option("preallocation", "string", "Preallocation mode (allowed values: off)"),
)


class HostDeviceDriver(FileDriver):
    """The hooks of `host_device` (bdrv_host_device)."""

    format_name = "host_device"
    protocol_name = "host_device"
    is_device = True
    create_opts = CREATE_OPTS
    # A device may hold anything, and tells nothing of where.
    has_zero_init = BlockDriver.has_zero_init
    co_block_status = BlockDriver.co_block_status  # type: ignore[assignment]  # awaitable, too
    delete_file = BlockDriver.delete_file

    def parse_filename(self, filename: str, options: dict[str, object]) -> None:
        strip_protocol(filename, "host_device:", options)

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        super().open(bs, options, flags)
        bs.supported_truncate_flags = 0

    def create(self, filename: str, options: dict[str, object]) -> None:
        """Makes ready what is there (bdrv_co_create_opts_simple, R1)."""
        from block.core.open import open_backend

        opts = take_options(options, self.create_opts)
        mode = parse_enum("preallocation", opts["preallocation"], f.PREALLOC_MODES, "off")
        if mode != "off":
            raise BlockError(errno.ENOTSUP, f"Unsupported preallocation mode '{mode}'")
        flags = f.BDRV_O_RDWR | f.BDRV_O_RESIZE
        try:
            disk = open_backend(filename, options={"driver": self.format_name}, flags=flags)
        except BlockError as error:
            what = (
                f"Protocol driver '{self.format_name}' does not support image creation, "
                "and opening the image failed"
            )
            number = error.errno or errno.EINVAL
            raise BlockError(number, f"{what}: {error}", hint=error.hint) from error
        with disk:
            _fit(disk, opts["size"])
            _clear_first_sector(disk)

    def getlength(self, bs: BlockDriverState) -> int:
        return device.length(bs.opaque.fd)

    def refresh_limits(self, bs: BlockDriverState) -> None:
        super().refresh_limits(bs)
        if device.is_block(bs.opaque.fd):
            size = device.sector_size(bs.opaque.fd)
            bs.bl.pdiscard_alignment = bs.bl.pwrite_zeroes_alignment = size  # R2

    # -- requests

    async def co_pdiscard(self, bs: BlockDriverState, offset: int, nbytes: int) -> None:
        if bs.bl.pdiscard_alignment and (offset | nbytes) % bs.bl.pdiscard_alignment:
            raise BlockError(errno.ENOTSUP, node=bs.node_name, driver=self.format_name)  # R2
        await co_discard(bs, device.discard, offset, nbytes)

    async def co_pwrite_zeroes(
        self, bs: BlockDriverState, offset: int, nbytes: int, flags: int
    ) -> None:
        state = bs.opaque
        fd, may_write = state.fd, not flags & f.REQ_NO_FALLBACK
        unmaps = flags & f.REQ_MAY_UNMAP
        how = device.write_zeroes_unmap if unmaps else device.write_zeroes
        await in_pool(bs, lambda: how(state, fd, offset, nbytes, may_write))

    async def co_truncate(
        self, bs: BlockDriverState, offset: int, exact: bool, prealloc: str, flags: int
    ) -> None:
        """A device has one length: whoever is content with it is served (raw_co_truncate)."""
        if prealloc != "off":
            message = f"Preallocation mode '{prealloc}' unsupported for this non-regular file"
            raise BlockError(errno.ENOTSUP, message, bs.node_name)
        length = self.getlength(bs)
        if exact and offset != length:
            raise BlockError(errno.ENOTSUP, "Cannot resize device files", bs.node_name)
        if offset > length:
            raise BlockError(errno.EINVAL, "Cannot grow device files", bs.node_name)


def _fit(disk: BlockBackend, size: int) -> None:
    """Raises unless a device is long enough (create_file_fallback_truncate)."""
    try:
        disk.truncate(size)
    except BlockError as error:
        if error.errno != errno.ENOTSUP or disk.length < size:
            raise


def _clear_first_sector(disk: BlockBackend) -> None:
    """So that nobody sees another format there (create_file_fallback_zero_first_sector)."""
    nbytes = min(disk.length, f.SECTOR_SIZE)
    try:
        if nbytes:
            disk.pwrite_zeroes(0, nbytes, f.REQ_MAY_UNMAP)
    except BlockError as error:
        raise failed("Failed to clear the new image's first sector", error) from error
