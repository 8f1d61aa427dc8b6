# SPDX-License-Identifier: GPL-2.0-only
"""Linux AIO: reads and writes that the kernel does by itself (linux-aio.c).

    LinuxAio        the kernel's side: io_setup, io_submit, its ring of events; by ctypes
    LinuxAioState   the queue of one node (see kernel_queue.py)

The kernel works in the background only on files that are open with O_DIRECT; on others io_submit
itself waits. So aio=native demands cache.direct=on.

R1  One io_submit hands over a batch of prepared iocbs, and lets other threads run meanwhile.
R2  The eventfd says "look into the ring": one read of it for all completions since the last one.
R3  Events are taken from the ring that the kernel has mapped for us, without a system call. The
    kernel moves `tail`, we move `head`. Between the look at `tail` and at the events there must
    be a fence; taking a lock is one.
R4  What io_submit refuses, it refuses for the first iocb; the others are tried again.
R5  One buffer goes as PREAD or PWRITE, several by an iovec.

What went wrong here once (abd269b7cf, 2014; patch 14): closing a node freed neither the kernel's
context nor the eventfd. Contexts are few: all of the machine's must fit /proc/sys/fs/aio-max-nr.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from threading import Lock

from block.aio.kernel_memory import addressof, iovec, memory_of
from block.aio.kernel_queue import FLUSH, WRITE, KernelQueue, KernelRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.aio.world import World

MAX_EVENTS = 1024

# machine -> numbers of io_setup, io_destroy, io_submit (asm/unistd.h)
SYSCALLS = {
    "x86_64": (206, 207, 209),
    "aarch64": (0, 1, 2),
    "riscv64": (0, 1, 2),
    "loongarch64": (0, 1, 2),
}

# struct iocb: data, key, rw_flags, opcode, reqprio, fd, buf, nbytes, offset, reserved2, flags,
# resfd (linux/aio_abi.h)
IOCB = struct.Struct("<QIIHhIQQqQII")
IOCB_FLAG_RESFD = 1
PREAD, PWRITE, FDSYNC, PREADV, PWRITEV = 0, 1, 3, 7, 8

# struct aio_ring (fs/aio.c) in 32-bit words, and its events in 64-bit words behind the header.
RING_NR, RING_HEAD, RING_TAIL, RING_MAGIC = 1, 2, 3, 4
MAGIC = 0xA10A10A1
RING_HEADER = 32
EVENT_WORDS = 4  # struct io_event: data, obj, res, res2


class LinuxAio:
    """A kernel context and the iocbs for it; `position` counts in the batch."""

    def __init__(self, depth: int, eventfd: int) -> None:
        """Raises OSError: ENOSYS where there is no Linux AIO, EAGAIN beyond aio-max-nr."""
        self._setup, self._destroy, self._submit = numbers()
        self._eventfd = eventfd
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.argtypes = [ctypes.c_long] * 4
        context = ctypes.c_ulong(0)
        if self._syscall(self._setup, depth, addressof(context), 0) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._context = context.value
        self.iocbs = bytearray(depth * IOCB.size)
        base = addressof(ctypes.c_char.from_buffer(self.iocbs))
        self._pointers = (ctypes.c_ulong * depth)()
        self._first_pointer = addressof(self._pointers)
        self._addresses = [base + slot * IOCB.size for slot in range(depth)]
        self._map_ring()

    def _map_ring(self) -> None:
        header = memoryview((ctypes.c_char * RING_HEADER).from_address(self._context))
        self.ring = header.cast("B").cast("I")
        if self.ring[RING_MAGIC] != MAGIC:
            self.close()
            raise OSError(errno.ENOSYS, "unknown layout of the kernel's ring")
        size = self.ring[RING_NR] * EVENT_WORDS
        events = (ctypes.c_int64 * size).from_address(self._context + RING_HEADER)
        self.events = memoryview(events).cast("B").cast("q")

    def prepare(self, position: int, slot: int, request: KernelRequest) -> None:
        """Fills the slot's iocb (io_prep_preadv and its like). TypeError: unfit memory."""
        write = request.kind == WRITE
        memory: object = None
        if len(request.qiov) == 1:
            memory = lent = memory_of(request.qiov[0], write)
            buf, nbytes, opcode = addressof(lent), request.nbytes, PWRITE if write else PREAD
        elif request.kind == FLUSH:
            buf, nbytes, opcode = 0, 0, FDSYNC
        else:
            memory = vector, _ = iovec(request.qiov, write)
            buf, nbytes, opcode = addressof(vector), len(vector) // 2, PWRITEV if write else PREADV
        IOCB.pack_into(
            self.iocbs, slot * 64, slot, 0, 0, opcode, 0, request.fd, buf, nbytes, request.offset,
            0, IOCB_FLAG_RESFD, self._eventfd,
        )  # fmt: skip
        self._pointers[position] = self._addresses[slot]
        request.kept = memory

    def submit(self, position: int, count: int) -> int:
        """Hands over iocbs of the batch (io_submit). Returns how many were taken, or -errno."""
        done: int = self._syscall(
            self._submit, self._context, count, self._first_pointer + 8 * position
        )
        return done if done >= 0 else -ctypes.get_errno()

    def close(self) -> None:
        """Gives the kernel's context back (io_destroy); takes 30 ms."""
        self.ring = self.events = memoryview(b"")
        self._syscall(self._destroy, self._context, 0, 0)


def numbers() -> tuple[int, int, int]:
    """This machine's system call numbers; OSError(ENOSYS) where there are none."""
    uname = os.uname()
    if uname.sysname != "Linux" or uname.machine not in SYSCALLS:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return SYSCALLS[uname.machine]


class LinuxAioState(KernelQueue):
    """The requests of one node (struct LinuxAioState)."""

    def __init__(self, world: World, owner: object) -> None:
        """Makes the kernel's context and the eventfd (laio_init). Raises OSError."""
        notifier = world.new_notifier()
        try:
            self.kernel = world.new_linux_aio(MAX_EVENTS, notifier.write_fd)
        except OSError:
            notifier.close()
            raise
        super().__init__(MAX_EVENTS, notifier, owner)
        self._fence = Lock()

    def submit_pending(self) -> None:
        """Prepares what is pending and hands it over (ioq_submit)."""
        pending, free, slots = self.pending, self.free, self.slots
        prepare = self.kernel.prepare
        batch: list[int] = []
        while pending and free:
            request = pending.popleft()
            slot = free.pop()
            slots[slot] = request
            try:
                prepare(len(batch), slot, request)
            except TypeError:
                self.finish([(slot, -errno.EINVAL)])
                continue
            batch.append(slot)
        if batch:
            self._hand_over(batch)
        if self.finished:
            self.run_again()

    def _hand_over(self, batch: list[int]) -> None:
        done = 0
        while done < len(batch):
            ret = self.kernel.submit(done, len(batch) - done)
            if ret > 0:
                done += ret
            elif ret == -errno.EAGAIN or ret == 0:
                self._take_back(batch[done:])
                return
            elif ret != -errno.EINTR:
                self.finish([(batch[done], ret)])  # R4
                done += 1

    def _take_back(self, slots: list[int]) -> None:
        for slot in reversed(slots):
            request = self.slots[slot]
            assert request is not None
            self.slots[slot] = None
            self.free.append(slot)
            self.pending.appendleft(request)
        self.try_again()

    def completions(self) -> list[tuple[int, int]]:
        """Takes the events out of the ring (qemu_laio_process_completions)."""
        ring, events = self.kernel.ring, self.kernel.events
        head, tail = ring[RING_HEAD], ring[RING_TAIL]
        with self._fence:  # R3
            pass
        found: list[tuple[int, int]] = []
        if tail < head:  # around the end of the ring
            found += _pairs(events[head * EVENT_WORDS : ring[RING_NR] * EVENT_WORDS])
            head = 0
        found += _pairs(events[head * EVENT_WORDS : tail * EVENT_WORDS])
        ring[RING_HEAD] = tail
        return found

    def cleanup(self) -> None:
        """Gives back the kernel's context and the eventfd (laio_cleanup; patch 14)."""
        self.kernel.close()
        super().cleanup()


def _pairs(events: memoryview) -> Iterator[tuple[int, int]]:
    """Slot and result of each event: the fields `data` and `res`."""
    return zip(events[::EVENT_WORDS].tolist(), events[2::EVENT_WORDS].tolist(), strict=True)
