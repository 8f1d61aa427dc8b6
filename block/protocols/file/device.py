# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel says of devices, and does with them: /dev/sdb, /dev/loop0, /dev/null.

    how long it is          lseek to its end; a file's st_size is 0 here
    may it be written       BLKROGET: open(2) with O_RDWR succeeds on some read-only disks
    discard                 BLKDISCARD
    zeroes                  BLKZEROOUT; where they may be unmapped, a hole is punched first

R1  BLKZEROOUT may write zeroes itself, for minutes: not for those who want no fallback. Nor with
    the page cache in play, where Linux once left stale data after it (3.10); QEMU keeps away, too.
R2  What a disk lacks is ENOTSUP, and remembered in the node's state.
R3  All ioctls go through `ioctl`, and all questions of kind through `mode_of`: a test puts its own
    disk there, so it needs neither root nor a disk.

These block: they run in a worker thread. Source: block/file-posix.c (check_hdev_writable,
handle_aiocb_discard, handle_aiocb_write_zeroes_block).
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from block.core.error import BlockError, failed
from block.protocols.file.syscalls import NOT_SUPPORTED, punch_hole
from block.protocols.file.zero import not_supported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.protocols.file.state import FileState

BLKROGET = 0x125E
BLKSSZGET = 0x1268
BLKDISCARD = 0x1277
BLKZEROOUT = 0x127F
INT = struct.Struct("i")
RANGE = struct.Struct("QQ")
"""Offset and length in bytes, of BLKDISCARD and BLKZEROOUT."""


def ioctl(fd: int, request: int, argument: bytes) -> bytes:
    """Asks a device (R3); what the kernel has made of the argument. Raises OSError."""
    import fcntl

    return fcntl.ioctl(fd, request, argument)


def mode_of(fd: int) -> int:
    """The st_mode of what is open (R3)."""
    return os.fstat(fd).st_mode


def is_block(fd: int) -> bool:
    """Whether it is a disk."""
    return stat.S_ISBLK(mode_of(fd))


def check(fd: int, filename: str, writable: bool) -> None:
    """Raises BlockError unless a device is open, which can be written to if it is to be."""
    mode = mode_of(fd)
    if not stat.S_ISBLK(mode) and not stat.S_ISCHR(mode):
        what = "to be either a character or block device"
        raise BlockError(errno.EINVAL, f"'host_device' driver requires '{filename}' {what}")
    if writable and stat.S_ISBLK(mode):
        try:
            read_only = INT.unpack(ioctl(fd, BLKROGET, INT.pack(0)))[0]
            if read_only:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise failed("The device is not writable", error) from None


def length(fd: int) -> int:
    """How long the device is, in bytes (raw_getlength). Raises OSError."""
    return os.lseek(fd, 0, os.SEEK_END)


def sector_size(fd: int) -> int:
    """What a disk wants offsets and lengths to be multiples of (BLKSSZGET)."""
    try:
        size: int = INT.unpack(ioctl(fd, BLKSSZGET, INT.pack(0)))[0]
    except OSError:
        return 0
    return size


def _on_range(
    state: FileState, capability: str, fd: int, request: int, offset: int, nbytes: int
) -> int:
    """Has a disk do something with a range; returns 0. Raises OSError (R2)."""
    try:
        ioctl(fd, request, RANGE.pack(offset, nbytes))
    except OSError as error:
        if error.errno in NOT_SUPPORTED:
            setattr(state, capability, False)
            raise not_supported() from None
        raise
    return 0


def discard(state: FileState, fd: int, offset: int, nbytes: int) -> int:
    """Tells the disk that nobody needs a range any more; returns 0. Raises OSError."""
    if not state.has_discard:
        raise not_supported()
    return _on_range(state, "has_discard", fd, BLKDISCARD, offset, nbytes)


def write_zeroes_unmap(state: FileState, fd: int, offset: int, nbytes: int, may_write: bool) -> int:
    """Zeroes a range and gives it back, where the disk can do both at once; returns 0."""
    try:
        punch_hole(fd, offset, nbytes)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EINVAL):
            raise
        return write_zeroes(state, fd, offset, nbytes, may_write)
    return 0


def write_zeroes(state: FileState, fd: int, offset: int, nbytes: int, may_write: bool) -> int:
    """Zeroes a range; not, where that may take long and `may_write` is False (R1). Returns 0."""
    if not state.has_write_zeroes or not state.direct or not may_write:
        raise not_supported()
    return _on_range(state, "has_write_zeroes", fd, BLKZEROOUT, offset, nbytes)
