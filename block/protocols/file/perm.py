# SPDX-License-Identifier: GPL-2.0-only
"""What a node may do becomes locks on its file, and sometimes another descriptor.

R1  check_perm takes the locks for old and new permissions together; set_perm drops those that
    are not needed any more, abort those that were not needed before: nothing is unguarded.
R2  With auto-read-only the file is open for writing only while a parent may write: then the new
    descriptor is opened, locked, and kept aside in check_perm, and taken over in set_perm.
R3  Reopen brings its own new descriptor; check_perm uses that one.
R4  Once a new descriptor holds locks, they look like another user's from the old one: of several
    checks in one transaction only the first looks.

Called in the main thread, while the node is drained. Source: block/file-posix.c
(raw_handle_perm_lock, raw_reconfigure_getfd, raw_check_perm, raw_set_perm, raw_reopen_*).
"""

from __future__ import annotations

import errno
import os
import stat

from block.core import flags as f
from block.core.error import BlockError
from block.protocols.file import locks
from block.protocols.file.state import O_DIRECT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState
    from block.protocols.file.state import FileState

WRITERS = f.BLK_PERM_WRITE | f.BLK_PERM_WRITE_UNCHANGED | f.BLK_PERM_RESIZE


def os_flags(bdrv_flags: int, has_writers: bool) -> int:
    """The flags for open(2) that follow from BDRV_O_* (raw_parse_flags)."""
    if bdrv_flags & f.BDRV_O_AUTO_RDONLY:
        writable = has_writers
    else:
        writable = bool(bdrv_flags & f.BDRV_O_RDWR)
    flags = os.O_RDWR if writable else os.O_RDONLY
    return flags | O_DIRECT if bdrv_flags & f.BDRV_O_NOCACHE else flags


def open_file(state: FileState, flags: int) -> int:
    """Opens the regular file or the device, close-on-exec; returns the descriptor.

    Raises BlockError: "Could not open 'x': No such file or directory", "'file' driver
    requires 'x' to be a regular file".
    """
    filename = state.filename
    try:
        # Without O_NONBLOCK the open of a FIFO waits for its other end.
        fd = os.open(filename, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        code = getattr(error, "errno", errno.EINVAL)
        reason = os.strerror(code)
        code = errno.EACCES if code == errno.EROFS else code
        raise BlockError(code, f"Could not open '{filename}': {reason}") from None
    try:
        _check_kind(state, fd, flags)
    except BlockError:
        os.close(fd)
        raise
    os.set_blocking(fd, True)
    return fd


def _check_kind(state: FileState, fd: int, flags: int) -> None:
    """Raises BlockError where something else was opened than the driver is for."""
    if state.is_device:
        from block.protocols.file import device

        device.check(fd, state.filename, bool(flags & os.O_RDWR))
    elif not stat.S_ISREG(os.fstat(fd).st_mode):
        message = f"'file' driver requires '{state.filename}' to be a regular file"
        raise BlockError(errno.EINVAL, message)


def another_fd(bs: BlockDriverState, state: FileState, flags: int, perm: int) -> tuple[int, int]:
    """(descriptor, its flags) that fit BDRV_O_* `flags` and the permissions; the node's own
    one where it fits already (raw_reconfigure_getfd)."""
    wanted = os_flags(flags, bool(perm & WRITERS))
    if wanted == state.open_flags:
        return state.fd, wanted
    return open_file(state, wanted), wanted


def check_perm(bs: BlockDriverState, state: FileState, perm: int, shared: int) -> None:
    """Takes what new permissions need; raises and leaves all as it was (raw_check_perm)."""
    if state.new_fd_locked:
        return
    if state.new_fd is None and not state.reopening:
        fd, flags = another_fd(bs, state, bs.open_flags, perm)
        if fd != state.fd:
            state.new_fd, state.new_open_flags = fd, flags
    try:
        if guarded(bs, state):
            _prepare_locks(state, perm, shared)
            if state.new_fd is not None:
                locks.LockedBytes().lock(state.new_fd, perm, f.BLK_PERM_ALL & ~shared)
                state.new_fd_locked = True
    except OSError:
        abort(bs, state)
        raise


def guarded(bs: BlockDriverState, state: FileState) -> bool:
    """True when this node keeps locks at all."""
    return state.use_lock and not bs.open_flags & f.BDRV_O_INACTIVE


def _prepare_locks(state: FileState, perm: int, shared: int) -> None:
    """Locks for old and new together, then looks whether anyone minds (RAW_PL_PREPARE)."""
    if perm & ~state.perm == 0 and state.shared & ~shared == 0:
        return
    unshared = f.BLK_PERM_ALL & ~(state.shared & shared)
    state.locked.lock(state.fd, state.perm | perm, unshared)
    locks.check_bytes(state.fd, perm, shared, state.filename)


def set_perm(bs: BlockDriverState, state: FileState, perm: int, shared: int) -> None:
    """Takes over what check_perm made ready; cannot fail (raw_set_perm)."""
    if state.new_fd is not None:
        state.close()
        state.set_fd(state.new_fd, state.new_open_flags)
        state.new_fd = None
        state.new_fd_locked = False
        if guarded(bs, state):
            # What check_perm locked on the new descriptor; the extra locks went with the old one.
            state.locked.perm, state.locked.unshared = perm, f.BLK_PERM_ALL & ~shared
    if guarded(bs, state):
        state.locked.drop_all_but(state.fd, perm, f.BLK_PERM_ALL & ~shared)
    state.perm, state.shared = perm, shared


def abort(bs: BlockDriverState, state: FileState) -> None:
    """Puts back what check_perm changed (raw_abort_perm_update)."""
    state.new_fd_locked = False
    if state.new_fd is not None and not state.reopening:
        os.close(state.new_fd)
        state.new_fd = None
    if guarded(bs, state):
        state.locked.drop_all_but(state.fd, state.perm, f.BLK_PERM_ALL & ~state.shared)


def reopen_prepare(bs: BlockDriverState, state: FileState, flags: int) -> None:
    """Opens a second descriptor with the new flags, where they ask for one."""
    fd, open_flags = another_fd(bs, state, flags, state.perm)
    state.reopening = True
    if fd != state.fd:
        state.new_fd, state.new_open_flags = fd, open_flags


def reopen_commit(state: FileState) -> None:
    """Leaves the new descriptor to set_perm, which the core calls next."""
    state.reopening = False


def reopen_abort(state: FileState) -> None:
    """Closes the new descriptor again."""
    state.reopening = False
    if state.new_fd is not None:
        os.close(state.new_fd)
        state.new_fd = None
