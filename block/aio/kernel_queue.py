# SPDX-License-Identifier: GPL-2.0-only
"""A queue of requests that the kernel does by itself: what Linux AIO and io_uring share.

    submit            run, at the end of the pass          the kernel
    request --------> pending --------> slots -----------> works ---> its ring of completions
                                                                         | eventfd
    co.enter() <----- finished <------ completions <---------------------+

A queue belongs to one node, and its eventfd is a handler of the node's context.

R1  What comes in one pass of the loop, or between plug and unplug, is handed over together; but
    no more than BATCH requests at a time, so that the disk works on one batch while we make the
    next and complete the last. (The kernel joins a batch's neighbours: small ones cost it more.)
    A LARGE request has nothing to gain from company, and waits for nobody.
R2  A slot is a number that travels through the kernel and back; a request has one while it is in
    flight. Without a free slot it waits in `pending`; each completion looks there again.
R3  A request keeps its memory alive until its completion and no longer (`kept`, `qiov`; DESIGN.md,
    rule 8): then nobody but its coroutine knows it.
R4  Nobody is woken inside `submit` (DESIGN.md, rule 4).
R5  Between `detach` and `attach` there is no loop, and nothing is pending or in flight.
R6  The kernel's errors are results of the one request that they are about. "Try again" is nobody's
    result: it is tried again, with the next completion, or within 10 ms if nothing is in flight.

All methods are for the thread at home in the context. Whose is a queue? QEMU's was the node's in
2014, and its eventfd moved (patch 13 of the series). Since 2016 it has been the context's, shared
by its nodes, and freed with the context. Here it is the node's: io_destroy takes 30 ms, too
long for each move, and closing a node shall free what it took (patch 14). What the later form
gains, one system call for the requests of several disks, is little beside that.
"""

from __future__ import annotations

import errno
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from block.aio.bh import BH
    from block.aio.context import AioContext
    from block.aio.coroutine import Coroutine
    from block.aio.notifier import EventNotifier

READ, WRITE, FLUSH = range(3)
BATCH = 16
LARGE = 256 << 10
TRY_AGAIN = frozenset((errno.EAGAIN, errno.EBUSY, errno.EINTR))


class KernelRequest:
    """A read, a write or a flush of one descriptor (struct qemu_laiocb, LuringAIOCB).

    co     the coroutine that waits for it
    ret    bytes done, or -errno, when it has been woken
    """

    __slots__ = ("co", "fd", "kept", "kind", "nbytes", "offset", "qiov", "ret")

    def __init__(
        self, co: Coroutine, kind: int, fd: int, offset: int, nbytes: int, qiov: list[memoryview]
    ) -> None:
        self.co = co
        self.kind = kind
        self.fd = fd
        self.offset = offset
        self.nbytes = nbytes
        self.qiov = qiov
        self.kept: object = None
        self.ret = 0

    def __await__(self) -> Generator[None, None, None]:
        yield


class KernelQueue:
    """What both engines' queues do; a subclass talks to the kernel."""

    def __init__(self, depth: int, notifier: EventNotifier, owner: object) -> None:
        self.owner = owner
        self.bh: BH | None = None  # between attach and detach
        self.notifier = notifier
        self.pending: deque[KernelRequest] = deque()
        self.finished: deque[KernelRequest] = deque()
        self.slots: list[KernelRequest | None] = [None] * depth
        self.free = list(range(depth))

    @property
    def in_flight(self) -> int:
        """How many requests the kernel has."""
        return len(self.slots) - len(self.free)

    @property
    def idle(self) -> bool:
        """Whether no request is here."""
        return not (self.pending or self.in_flight or self.finished)

    # -- what a subclass defines

    def submit_pending(self) -> None:
        """Hands over what is pending, as far as there are slots."""
        raise NotImplementedError

    def completions(self) -> Iterable[tuple[int, int]]:
        """Takes what the kernel has reported: pairs of a slot and a result."""
        raise NotImplementedError

    # -- the way through

    def submit(self, request: KernelRequest) -> KernelRequest:
        """Takes a request, to be awaited by its coroutine at once (R1, R4)."""
        pending = self.pending
        pending.append(request)
        if len(pending) == BATCH or request.nbytes >= LARGE:
            self.submit_pending()
        elif len(pending) == 1:
            bh = self.bh
            assert bh is not None, "R5"
            bh.ctx.defer_call(bh)
        return request

    def run(self) -> None:
        """Hands over what is pending, and wakes who is done; the bottom half."""
        if self.pending:
            self.submit_pending()
        self.complete()

    def on_event(self, notifier: EventNotifier) -> None:
        """The kernel has set the eventfd: one read of it for all that is done by now."""
        notifier.test_and_clear()
        self.complete()
        if self.pending:
            self.submit_pending()

    def complete(self) -> None:
        """Wakes the coroutines of all that is done."""
        self.finish(self.completions())
        finished = self.finished
        try:
            while finished:
                finished.popleft().co.enter()
        finally:
            if finished:  # a coroutine has failed; the others have their turn in the next pass
                self.run_again()

    def finish(self, done: Iterable[tuple[int, int]]) -> None:
        """Notes results and frees slots."""
        slots, free, finished = self.slots, self.free, self.finished
        for slot, ret in done:
            request = slots[slot]
            assert request is not None, "completed twice"
            slots[slot] = None
            free.append(slot)
            request.ret = ret
            finished.append(request)

    def run_again(self) -> None:
        """Has `run` called in the next pass."""
        assert self.bh is not None, "R5"
        self.bh.schedule()

    def try_again(self) -> None:
        """The kernel had no room; if no completion will remind us, the clock does (R6)."""
        assert self.bh is not None, "R5"
        if not self.in_flight:
            self.bh.schedule_idle()

    # -- the event loop

    def detach(self) -> None:
        """Leaves the loop (laio_detach_aio_context, luring_detach_aio_context)."""
        assert self.idle, "R5: detached with requests in flight"
        assert self.bh is not None, "R5: detached twice"
        self.bh.ctx.set_event_notifier(self.notifier, None)
        self.bh.delete()
        self.bh = None

    def attach(self, ctx: AioContext) -> None:
        """Comes into a loop (laio_attach_aio_context, luring_attach_aio_context)."""
        assert self.bh is None, "R5: attached twice"
        self.bh = ctx.bh_new(self.run, owner=self.owner)
        ctx.set_event_notifier(self.notifier, self.on_event, owner=self.owner)

    def cleanup(self) -> None:
        """Gives back what the kernel and the system gave (laio_cleanup, luring_cleanup)."""
        self.notifier.close()
