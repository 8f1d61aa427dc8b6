# SPDX-License-Identifier: GPL-2.0-only
"""The two rings that io_uring.py works with, by whichever liburing this machine can run.

    PackageRings   the Python package `liburing`
    LibraryRings   the system's liburing.so.2, by ctypes
    new_rings      the first of them that runs here

R1  Both hand on what the kernel says: counts, and -errno; neither raises after it was made.
R2  Completions are looked at one by one or by pointers that liburing gives: in memory, what comes
    behind the ring's last entry is not the next one.

Discussion: the package's file for x86-64 is made for processors with AVX-512, and kills a program
on any other (SIGILL; many a laptop has none). So the processor is asked before it is imported.
The shared library, which QEMU brings along, runs everywhere.
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Rings(Protocol):
        """What io_uring.py asks of a pair of rings."""

        ring_fd: int

        def next_place(self) -> object: ...
        def enter(self) -> int: ...
        def completions(self) -> list[tuple[int, int]]: ...
        def close(self) -> None: ...


INSTALL = "liburing is missing: pip install liburing, or apt-get install liburing2"
UNFIT = "the package liburing needs AVX-512, which this processor lacks: apt-get install liburing2"
LIBRARY = "liburing.so.2"

# struct io_uring (liburing.h, 2.0 and later): where what we need stands, and its size
RING_SIZE, CQ_KHEAD, RING_FD = 216, 104, 196


class PackageRings:
    """By the package."""

    def __init__(self, entries: int, eventfd: int) -> None:
        import liburing

        self._lib = liburing
        self._ring = ring = liburing.Ring()
        self._cqe = liburing.Cqe()
        liburing.io_uring_queue_init(entries, ring)
        self.ring_fd: int = ring.ring_fd
        self._get_sqe = liburing.io_uring_get_sqe
        self._submit = liburing.io_uring_submit
        try:
            liburing.io_uring_register_eventfd(ring, eventfd)
        except OSError:
            self.close()
            raise

    def next_place(self) -> object:
        """Takes the next place of the submission ring (io_uring_get_sqe)."""
        return self._get_sqe(self._ring)

    def enter(self) -> int:
        """Starts what was prepared (io_uring_submit). Returns how many, or -errno."""
        try:
            taken: int = self._submit(self._ring)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return taken

    def completions(self) -> list[tuple[int, int]]:
        """Takes what is done: pairs of user_data and a result."""
        ring, cqe, lib = self._ring, self._cqe, self._lib
        found = []
        for _ in lib.CqeIter(ring, cqe):
            entry = cqe[0]
            try:
                found.append((entry.user_data, entry.res))
            except OSError as error:  # the package raises for a negative result
                found.append((entry.user_data, -(error.errno or errno.EIO)))
        if found:
            lib.io_uring_cq_advance(ring, len(found))
        return found

    def close(self) -> None:
        """Gives the rings back (io_uring_queue_exit)."""
        self._lib.io_uring_queue_exit(self._ring)


class Completion(ctypes.Structure):
    """struct io_uring_cqe."""

    user_data: int
    res: int
    _fields_ = (("user_data", ctypes.c_uint64), ("res", ctypes.c_int32), ("flags", ctypes.c_uint32))


class LibraryRings:
    """By the shared library; its calls let other threads run meanwhile."""

    def __init__(self, entries: int, eventfd: int) -> None:
        self._lib = lib = ctypes.CDLL(LIBRARY)
        self._ring = ring = ctypes.create_string_buffer(RING_SIZE)
        self._found = (ctypes.POINTER(Completion) * (2 * entries))()
        _check(lib.io_uring_queue_init(entries, ring, 0))
        self.ring_fd = ctypes.c_int.from_buffer(ring, RING_FD).value
        khead = ctypes.c_void_p.from_buffer(ring, CQ_KHEAD).value
        assert khead is not None, "io_uring_queue_init has filled it in"
        self._head = ctypes.c_uint.from_address(khead)
        self._get_sqe = lib.io_uring_get_sqe
        self._get_sqe.restype = ctypes.c_void_p
        self._submit: Callable[[Any], int] = lib.io_uring_submit
        try:
            _check(lib.io_uring_register_eventfd(ring, eventfd))
        except OSError:
            self.close()
            raise

    def next_place(self) -> object:
        """Takes the next place of the submission ring (io_uring_get_sqe)."""
        return self._get_sqe(self._ring)

    def enter(self) -> int:
        """Starts what was prepared (io_uring_submit). Returns how many, or -errno."""
        return self._submit(self._ring)

    def completions(self) -> list[tuple[int, int]]:
        """Takes what is done: pairs of user_data and a result (io_uring_peek_batch_cqe)."""
        places = self._found
        n = self._lib.io_uring_peek_batch_cqe(self._ring, places, len(places))
        found = [(cqe.user_data, cqe.res) for cqe in (places[i].contents for i in range(n))]
        self._head.value += n  # io_uring_cq_advance, which is no function of the library
        return found

    def close(self) -> None:
        """Gives the rings back (io_uring_queue_exit)."""
        self._lib.io_uring_queue_exit(self._ring)


def _check(ret: int) -> None:
    if ret < 0:
        raise OSError(-ret, os.strerror(-ret))


def has_avx512() -> bool:
    """Whether the processor runs the package's code; one that is not x86-64 has other code."""
    if os.uname().machine != "x86_64":
        return True
    with open("/proc/cpuinfo") as file:
        return any("avx512f" in line for line in file if line.startswith("flags"))


def new_rings(entries: int, eventfd: int) -> Rings:
    """Makes the rings, which say by the eventfd that something is done. Raises OSError.

    ENOPKG: there is no liburing that runs here; others are the kernel's (EPERM, ENOSYS, ENOMEM).
    """
    runs = has_avx512()
    if runs:
        try:
            return PackageRings(entries, eventfd)
        except ImportError:
            pass
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        raise OSError(errno.ENOPKG, INSTALL if runs else UNFIT) from None
    return LibraryRings(entries, eventfd)
