# SPDX-License-Identifier: GPL-2.0-only
"""Where a file has data and where holes, by lseek's SEEK_DATA and SEEK_HOLE.

R1  An answer of the kernel is a moment's truth: someone may punch or cut the file between two
    calls. When the two do not fit together, the caller learns "unknown", and takes it for data.

Called in the node's context; these calls do not wait for the disk. They move the descriptor's
file offset, which nothing else here uses. Source: block/file-posix.c (find_allocation).
"""

from __future__ import annotations

import errno
import os


def find_allocation(fd: int, start: int) -> tuple[bool, int] | None:
    """(is there data at `start`?, where this changes), or None in the hole at the end
    of the file or behind it (find_allocation).

    Raises OSError where the file system cannot tell, and EBUSY or EIO where the answers
    contradict each other.
    """
    try:
        data = os.lseek(fd, start, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    except AttributeError:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP)) from None
    if data > start:
        return False, data
    hole = os.lseek(fd, start, os.SEEK_HOLE)
    if data < start or hole < start:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    if hole == start:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    return True, hole
