# SPDX-License-Identifier: GPL-2.0-only
"""io_uring: reads, writes and flushes through two rings shared with the kernel (block/io_uring.c).

    IoUring       the kernel's side, by the package liburing
    LuringState   the queue of one node (see kernel_queue.py)

R1  What has come together is written into the submission ring, and one io_uring_enter starts it.
R2  The eventfd that the ring knows says "look into the completion ring".
R3  `liburing` keeps nothing alive: neither the vector (`Iovec`) before the kernel has copied it,
    nor the memory that it points to. The request does, until its completion.
R4  `liburing` keeps the interpreter's lock while the kernel works. What is cached is copied in
    that time, so one call is given at most 256 KiB; between two calls other threads may run.
R5  What the kernel did not take from the submission ring stays there, for the next call.
R6  Completions are looked at one by one: cqe[1] would be the next place in memory, which at
    the ring's end is not the next in the ring.

R7  `Iovec` takes hold of each buffer and never lets go: memory that was read into once could not
    be unmapped any more, and each view of it stayed. So we let go for it, at once; R3 suffices.

Discussion: `prep_read` of the package refuses memoryviews of an mmap, which is what a guest's
memory is. `Iovec` and `prep_readv` take them as they are, for 0.15 us a request.
"""

from __future__ import annotations

import ctypes
import errno
import sys

from block.aio.kernel_queue import FLUSH, TRY_AGAIN, WRITE, KernelQueue, KernelRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.world import World

MAX_ENTRIES = 256
BYTES_AT_ONCE = 256 << 10
INSTALL = "the package liburing is missing: pip install liburing"

_release = ctypes.pythonapi.PyBuffer_Release
_release.restype = None


class PyBuffer(ctypes.Structure):
    """Python's Py_buffer, as far as its release looks into it."""

    _fields_ = [("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("rest", ctypes.c_char * 64)]


class IoUring:
    """A pair of rings."""

    def __init__(self, entries: int, eventfd: int) -> None:
        """Raises OSError: ENOSYS or EPERM where there is no io_uring, or no package for it."""
        try:
            import liburing
        except ImportError:
            raise OSError(errno.ENOSYS, INSTALL) from None
        self._lib = liburing
        self._get_sqe = liburing.io_uring_get_sqe
        self._readv, self._writev = liburing.io_uring_prep_readv, liburing.io_uring_prep_writev
        self._enter = liburing.io_uring_submit
        self._iovec = liburing.Iovec
        self._hold = PyBuffer()
        self._lets_go = keeps_hold(liburing.Iovec)
        self._hold_address = ctypes.c_void_p(ctypes.addressof(self._hold))
        self._ring = liburing.Ring()
        self._cqe = liburing.Cqe()
        liburing.io_uring_queue_init(entries, self._ring)
        try:
            liburing.io_uring_register_eventfd(self._ring, eventfd)
        except OSError:
            self.close()
            raise

    def prepare(self, slot: int, request: KernelRequest) -> None:
        """Writes a request into the submission ring, which has room (io_uring_prep_readv...)."""
        if request.kind == FLUSH:
            sqe = self._get_sqe(self._ring)
            self._lib.io_uring_prep_fsync(sqe, request.fd, self._lib.IORING_FSYNC_DATASYNC)
        else:
            request.kept = iovec = self._iovec(request.qiov)
            if self._lets_go:
                self._let_go(request.qiov)
            sqe = self._get_sqe(self._ring)
            prepare = self._writev if request.kind == WRITE else self._readv
            prepare(sqe, request.fd, iovec, request.offset)
        sqe.user_data = slot

    def _let_go(self, qiov: list[memoryview]) -> None:
        hold, address = self._hold, self._hold_address
        for view in qiov:
            hold.obj = id(view)
            _release(address)

    def submit(self) -> int:
        """Starts what was prepared (io_uring_submit). Returns how many, or -errno."""
        try:
            taken: int = self._enter(self._ring)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return taken

    def completions(self) -> list[tuple[int, int]]:
        """Takes what is done: pairs of a slot and a result."""
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


def keeps_hold(iovec: Callable[[list[memoryview]], object]) -> bool:
    """Whether the package's Iovec is one that never lets go of a buffer (R7)."""
    view = memoryview(bytearray(1))
    before = sys.getrefcount(view)
    iovec([view])
    return sys.getrefcount(view) > before


class LuringState(KernelQueue):
    """The requests of one node (struct LuringState)."""

    def __init__(self, world: World, owner: object) -> None:
        """Makes the rings and the eventfd (luring_init). Raises OSError."""
        notifier = world.new_notifier()
        try:
            self.kernel = world.new_io_uring(MAX_ENTRIES, notifier.write_fd)
        except OSError:
            notifier.close()
            raise
        super().__init__(MAX_ENTRIES, notifier, owner)
        self._prepared = 0  # written into the ring, and not taken yet (R5)

    def submit_pending(self) -> None:
        """Writes what is pending into the ring and starts it (ioq_submit)."""
        pending, free, slots = self.pending, self.free, self.slots
        prepare = self.kernel.prepare
        room = BYTES_AT_ONCE
        while pending and free:
            request = pending.popleft()
            slot = free.pop()
            slots[slot] = request
            try:
                prepare(slot, request)
            except (TypeError, ValueError):
                self.finish(slot, -errno.EINVAL)
                continue
            self._prepared += 1
            room -= request.nbytes
            if room <= 0:
                self._start()
                room = BYTES_AT_ONCE
        self._start()
        if self.finished:
            self.run_again()

    def _start(self) -> None:
        while self._prepared:
            ret = self.kernel.submit()
            if ret <= 0:
                assert ret == 0 or -ret in TRY_AGAIN, f"io_uring_enter: {ret}"
                self.try_again()
                return
            self._prepared -= ret

    def try_again(self) -> None:
        """What is left in the ring counts as in flight, so the clock reminds us in any case."""
        assert self.bh is not None, "R5"
        self.bh.schedule_idle()

    def run(self) -> None:
        """As every queue's, and starts what the kernel left in the ring (R5)."""
        if self._prepared:
            self._start()
        super().run()

    def reap(self) -> None:
        """Takes the completions (luring_process_completions)."""
        for slot, ret in self.kernel.completions():
            self.finish(slot, ret)

    def cleanup(self) -> None:
        """Gives back the rings and the eventfd (luring_cleanup)."""
        self.kernel.close()
        super().cleanup()
