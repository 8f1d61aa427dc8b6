# SPDX-License-Identifier: GPL-2.0-only
"""The byte locks that keep two users of one image apart, byte for byte QEMU's.

Permission i (bit i of BLK_PERM_*) has two bytes in the image file, and locks on them are shared:

    byte 100 + i   locked by everyone who uses permission i
    byte 200 + i   locked by everyone who does not let others use it

R1  To use a permission: lock 100 + i, then see that nobody holds 200 + i. To forbid it to others:
    lock 200 + i, then see that nobody holds 100 + i. First lock, then look: two that start at the
    same moment may both be refused, never both be let in.
R2  The locks belong to the open file description (OFD), not to the process: closing another
    descriptor of the same file does not lose them, and they guard against this process too.
    Where there are no OFD locks, locking=auto takes none; locking=on falls back to POSIX locks.
R3  Locks follow the descriptor, so whoever replaces it takes them anew first.

Called in the main thread, at open, close, reopen and changes of permissions.
Source: block/file-posix.c (raw_apply_lock_bytes, raw_check_lock_bytes), util/osdep.c.
"""

from __future__ import annotations

import errno
import os

from block.core.error import BlockError
from block.core.flags import BLK_PERM_ALL
from block.lean import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

RAW_LOCK_PERM_BASE = 100
RAW_LOCK_SHARED_BASE = 200

PERM_NAMES = ("consistent read", "write", "write unchanged", "resize", "change children")

FLOCK = Struct("hhqqi4x")
"""struct flock: l_type, l_whence, l_start, l_len, l_pid (which must be 0 for OFD locks)."""

_ofd_works: bool | None = None


def has_ofd_locks() -> bool:
    """True when this kernel has open-file-description locks (qemu_has_ofd_lock)."""
    global _ofd_works
    if _ofd_works is None:
        _ofd_works = _probe_ofd()
    return _ofd_works


def _probe_ofd() -> bool:
    try:
        import fcntl

        with open("/dev/null", "rb") as probe:
            query = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(probe, fcntl.F_OFD_GETLK, query)
    except (OSError, ImportError, AttributeError):
        return False
    return True


def lock_byte(fd: int, byte: int, unlock: bool = False) -> None:
    """Takes or drops a shared lock on one byte, without waiting. Raises OSError(EAGAIN)."""
    import fcntl

    kind = fcntl.F_UNLCK if unlock else fcntl.F_RDLCK
    command = fcntl.F_OFD_SETLK if has_ofd_locks() else fcntl.F_SETLK
    fcntl.fcntl(fd, command, FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))


def is_locked_by_others(fd: int, byte: int) -> bool:
    """True when someone else holds a lock on the byte (qemu_lock_fd_test)."""
    import fcntl

    command = fcntl.F_OFD_GETLK if has_ofd_locks() else fcntl.F_GETLK
    answer = fcntl.fcntl(fd, command, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    kind: int = FLOCK.unpack(answer)[0]
    return kind != fcntl.F_UNLCK


def bits(mask: int) -> Iterator[tuple[int, int]]:
    """(number, bit) of each permission in a mask (PERM_FOREACH)."""
    for number in range(BLK_PERM_ALL.bit_length()):
        if mask & 1 << number:
            yield number, 1 << number


class LockedBytes:
    """Which bytes of one descriptor are locked: permissions used, permissions not shared."""

    __slots__ = ("perm", "unshared")

    def __init__(self) -> None:
        self.perm = 0
        self.unshared = 0

    def lock(self, fd: int, perm: int, unshared: int) -> None:
        """Takes the locks that are missing; keeps the others (raw_apply_lock_bytes).

        Raises BlockError: "Failed to lock byte 101".
        """
        for number, bit in bits(perm & ~self.perm):
            _set(fd, RAW_LOCK_PERM_BASE + number)
            self.perm |= bit
        for number, bit in bits(unshared & ~self.unshared):
            _set(fd, RAW_LOCK_SHARED_BASE + number)
            self.unshared |= bit

    def drop_all_but(self, fd: int, perm: int, unshared: int) -> None:
        """Drops the locks that are held beyond these. A file system may fail even that (NFS
        does): the lock then stays until close, which harms nobody but others."""
        for number, bit in bits(self.perm & ~perm):
            if _drop(fd, RAW_LOCK_PERM_BASE + number):
                self.perm &= ~bit
        for number, bit in bits(self.unshared & ~unshared):
            if _drop(fd, RAW_LOCK_SHARED_BASE + number):
                self.unshared &= ~bit


def _set(fd: int, byte: int) -> None:
    try:
        lock_byte(fd, byte)
    except OSError as error:
        raise BlockError(error.errno or errno.EAGAIN, f"Failed to lock byte {byte}") from None


def _drop(fd: int, byte: int) -> bool:
    try:
        lock_byte(fd, byte, unlock=True)
    except OSError:
        return False
    return True


def check_bytes(fd: int, perm: int, shared: int, filename: str) -> None:
    """Sees that nobody forbids what we use, nor uses what we forbid (raw_check_lock_bytes).

    Raises BlockError(EAGAIN) with QEMU's text and hint.
    """
    for number, _ in bits(perm):
        if is_locked_by_others(fd, RAW_LOCK_SHARED_BASE + number):
            raise _in_use(f'Failed to get "{PERM_NAMES[number]}" lock', filename)
    for number, _ in bits(BLK_PERM_ALL & ~shared):
        if is_locked_by_others(fd, RAW_LOCK_PERM_BASE + number):
            raise _in_use(f'Failed to get shared "{PERM_NAMES[number]}" lock', filename)


def _in_use(message: str, filename: str) -> BlockError:
    return BlockError(
        errno.EAGAIN, message, hint=f"Is another process using the image [{filename}]?"
    )
