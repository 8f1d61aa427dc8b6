# SPDX-License-Identifier: GPL-2.0-only
"""Changing a file's length, with or without allocating it, and making a new file.

    preallocation   what the new part of the file gets
    off             a hole: costs nothing, may meet "no space" at each later write
    falloc          blocks, by posix_fallocate: quick, unwritten
    full            zeroes written to the disk and synced

R1  Where it fails half-way, the file gets its old length back.
R2  The first block of a new file is written: on some file systems a read with O_DIRECT from a hole
    succeeds with any length, and the probing of alignment would learn nothing (align.py).

These block. Source: block/file-posix.c (handle_aiocb_truncate, raw_co_create).
"""

from __future__ import annotations

import errno
import os

from block.core.error import BlockError, failed
from block.core.flags import BLK_PERM_ALL, BLK_PERM_RESIZE, BLK_PERM_WRITE, SECTOR_SIZE
from block.protocols.file import locks
from block.protocols.file.align import MAX_BLOCKSIZE
from block.protocols.file.syscalls import aligned_buffer

CHUNK = 65536

FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_NOCOW_FL = 0x00800000
FS_IOC_FSGETXATTR = 0x801C581F
FS_IOC_FSSETXATTR = 0x401C5820
FS_XFLAG_EXTSIZE = 0x00000800
FSXATTR_SIZE = 28

DEFAULT_EXTENT_SIZE_HINT = 1 << 20


def truncate(fd: int, length: int, preallocation: str = "off") -> int:
    """Makes the regular file `length` bytes long (raw_regular_truncate). Returns 0.

    Raises BlockError with QEMU's text.
    """
    old_length = os.fstat(fd).st_size
    if preallocation not in GROW:
        raise BlockError(errno.ENOTSUP, f"Unsupported preallocation mode: {preallocation}")
    if old_length > length and preallocation != "off":
        raise BlockError(errno.ENOTSUP, "Cannot use preallocation for shrinking files")
    try:
        GROW[preallocation](fd, old_length, length)
    except OSError:
        if os.fstat(fd).st_size != old_length:
            os.ftruncate(fd, old_length)
        raise
    return 0


def _resize(fd: int, length: int) -> None:
    try:
        os.ftruncate(fd, length)
    except OSError as error:
        raise failed("Could not resize file", error) from None


def _grow_off(fd: int, old_length: int, length: int) -> None:
    _resize(fd, length)
    if old_length == 0 and length > 0:
        allocate_first_block(fd, length)


def _grow_falloc(fd: int, old_length: int, length: int) -> None:
    """No ftruncate before: it makes posix_fallocate look for holes where it must emulate."""
    if length == old_length:
        return
    try:
        os.posix_fallocate(fd, old_length, length - old_length)
    except OSError as error:
        raise failed("Could not preallocate new data", error) from None
    if old_length == 0:
        allocate_first_block(fd, length)


def _grow_full(fd: int, old_length: int, length: int) -> None:
    _resize(fd, length)
    zeroes = bytes(CHUNK)
    at = old_length
    try:
        while at < length:
            at += os.pwrite(fd, zeroes[: length - at], at)
    except OSError as error:
        raise failed("Could not write zeros for preallocation", error) from None
    try:
        os.fsync(fd)
    except OSError as error:
        raise failed("Could not flush file to disk", error) from None


GROW = {"off": _grow_off, "falloc": _grow_falloc, "full": _grow_full}


def allocate_first_block(fd: int, length: int) -> None:
    """Writes zeroes to the begin of an empty image (R2); a failure harms nothing."""
    size = SECTOR_SIZE if length < MAX_BLOCKSIZE else MAX_BLOCKSIZE
    with aligned_buffer(size) as zeroes:
        try:
            os.pwrite(fd, zeroes, 0)
        except OSError:
            return


def create(
    filename: str,
    length: int,
    preallocation: str = "off",
    nocow: bool = False,
    extent_size_hint: int | None = None,
) -> None:
    """Makes an empty file, or empties an existing one that nobody uses (raw_co_create).

    Raises BlockError: the name, or the lock that someone else holds.
    """
    try:
        fd = os.open(filename, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise failed(f"Could not create '{filename}'", error) from None
    try:
        # The length is promised, so nobody else may resize meanwhile.
        perm = BLK_PERM_WRITE | BLK_PERM_RESIZE
        locked = locks.LockedBytes()
        if locks.has_ofd_locks():
            locked.lock(fd, perm, BLK_PERM_RESIZE)
            locks.check_bytes(fd, perm, BLK_PERM_ALL & ~BLK_PERM_RESIZE, filename)
        truncate(fd, 0)
        if nocow:
            _set_nocow(fd)
        _set_extent_size_hint(fd, extent_size_hint)
        truncate(fd, length, preallocation)
    finally:
        os.close(fd)


def _set_nocow(fd: int) -> None:
    """An optimisation on btrfs; where it fails nothing is lost."""
    import array
    import fcntl

    flags = array.array("l", [0])
    try:
        fcntl.ioctl(fd, FS_IOC_GETFLAGS, flags)
        flags[0] |= FS_NOCOW_FL
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, flags)
    except OSError:
        return


def _set_extent_size_hint(fd: int, hint: int | None) -> None:
    """Asks XFS for larger extents; only a hint that was asked for may complain."""
    import fcntl
    import struct

    attributes = bytearray(FSXATTR_SIZE)
    size = DEFAULT_EXTENT_SIZE_HINT if hint is None else hint
    try:
        fcntl.ioctl(fd, FS_IOC_FSGETXATTR, attributes)
        flags, _ = struct.unpack_from("II", attributes)
        struct.pack_into("II", attributes, 0, flags | FS_XFLAG_EXTSIZE, size)
        fcntl.ioctl(fd, FS_IOC_FSSETXATTR, attributes)
    except OSError as error:
        if hint:
            from block.core.report import warn_report

            warn_report(f"Failed to set extent size hint: {error.strerror}")
