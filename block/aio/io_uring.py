# SPDX-License-Identifier: GPL-2.0-only
"""io_uring: reads, writes and flushes through two rings shared with the kernel (block/io_uring.c).

    IoUring       the kernel's side, by liburing (liburing_rings.py)
    LuringState   the queue of one node (see kernel_queue.py)

R1  What has come together is written into the submission ring, and one io_uring_enter starts it.
R2  The eventfd that the ring knows says "look into the completion ring".
R3  A request's memory is kept alive by the request, until its completion (kernel_memory.py).
R4  The package keeps the interpreter's lock while the kernel works. What is cached is copied in
    that time, so one call is given at most 256 KiB; between two calls other threads may run.
R5  What the kernel did not take from the submission ring stays there, for the next call.

Discussion: liburing gives the next free place of the submission ring, starts what is there,
and reads completions. What is written into a place, we write: the package's `prep_read` refuses
memoryviews of an mmap, which is what a guest's memory is, and its `Iovec` takes them, but never
gives them back: each would stay for ever, and so would the guest's memory. So we map the
ring's places ourselves, as liburing has done.
"""

from __future__ import annotations

import errno
import mmap
import struct

from block.aio.kernel_memory import addressof, iovec, memory_of
from block.aio.kernel_queue import FLUSH, TRY_AGAIN, WRITE, KernelQueue, KernelRequest
from block.aio.liburing_rings import new_rings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.world import World

MAX_ENTRIES = 256
BYTES_AT_ONCE = 256 << 10

# struct io_uring_sqe: opcode, flags, ioprio, fd, off, addr, len, op_flags, user_data, buf_index,
# personality, splice_fd_in, addr3, pad (linux/io_uring.h)
SQE = struct.Struct("<BBHiQQIIQHHiQQ")
READV, WRITEV, FSYNC, READ_ONE, WRITE_ONE = 1, 2, 3, 22, 23  # IORING_OP_*
FSYNC_DATASYNC = 1
OFF_SQES = 0x10000000  # where the mapping of the places begins


class IoUring:
    """A pair of rings."""

    def __init__(self, entries: int, eventfd: int) -> None:
        """Raises OSError: ENOSYS or EPERM where there is no io_uring, ENOPKG: no liburing."""
        self._rings = rings = new_rings(entries, eventfd)
        self._next_place = rings.next_place
        try:
            self._places = mmap.mmap(rings.ring_fd, entries * SQE.size, offset=OFF_SQES)
        except OSError:
            rings.close()
            raise
        self._mask = entries - 1  # a power of two
        self._next = 0

    def prepare(self, slot: int, request: KernelRequest) -> None:
        """Writes a request into the submission ring, which has room (io_uring_prep_readv...).

        TypeError: unfit memory; then nothing was written.
        """
        write = request.kind == WRITE
        if len(request.qiov) == 1:
            request.kept = lent = memory_of(request.qiov[0], write)
            opcode, flags = WRITE_ONE if write else READ_ONE, 0
            address, length = addressof(lent), request.nbytes
        elif request.kind == FLUSH:
            opcode, address, length, flags = FSYNC, 0, 0, FSYNC_DATASYNC
        else:
            request.kept = vector, _ = iovec(request.qiov, write)
            opcode, flags = WRITEV if write else READV, 0
            address, length = addressof(vector), len(vector) // 2
        self._next_place()
        place = self._next & self._mask
        self._next += 1
        SQE.pack_into(
            self._places, place * 64, opcode, 0, 0, request.fd, request.offset, address, length,
            flags, slot, 0, 0, 0, 0, 0,
        )  # fmt: skip

    def submit(self) -> int:
        """Starts what was prepared (io_uring_submit). Returns how many, or -errno."""
        return self._rings.enter()

    def completions(self) -> list[tuple[int, int]]:
        """Takes what is done: pairs of a slot and a result."""
        return self._rings.completions()

    def close(self) -> None:
        """Gives the rings back (io_uring_queue_exit)."""
        self._places.close()
        self._rings.close()


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
            except TypeError:
                self.finish([(slot, -errno.EINVAL)])
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

    def completions(self) -> list[tuple[int, int]]:
        """Takes what is done (luring_process_completions)."""
        return self.kernel.completions()

    def cleanup(self) -> None:
        """Gives back the rings and the eventfd (luring_cleanup)."""
        self.kernel.close()
        super().cleanup()
