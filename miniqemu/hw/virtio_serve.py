# SPDX-License-Identifier: GPL-2.0-only
"""Serving a device's queues on the main loop, and what both ways of serving share.

    MainLoopService (this)      doorbells and requests on the main loop, under the big lock
    dataplane.DataPlane         the same in an IOThread, without it

A service rings in (doorbells -> `device.handle_queue`), and rings out (`notify` -> one interrupt
for a batch of completions, by a bottom half; QEMU's notify_guest_bh).

Rules:
R1  `start` and `stop` are called in the main thread, by turns. After `stop` nothing is in flight,
    no handler is registered, and the driver has been told of everything that was completed.
R2  `notify` and `kick` of a running service: `notify` in the context's thread, `kick` anywhere.
R3  `running` changes while the context is held, so a bottom half that was scheduled before a stop
    and runs after it sees that there is nothing to do.
R4  A doorbell's handler is external: a drained section turns it off, and what the driver adds
    meanwhile waits in the ring. While it is off nobody looks into the ring either.
"""

from __future__ import annotations

from block.aio.bh import BottomHalf
from miniqemu.hw.virtio import ISR_QUEUE

MAX_PASSES = 64  # of bottom halves in a vCPU's thread, before the main loop gets the rest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.context import AioContext
    from block.aio.notifier import EventNotifier
    from miniqemu.hw.virtio import VirtioDevice
    from miniqemu.hw.virtio_blk import VirtioBlk
    from miniqemu.hw.virtqueue import VirtQueue


class NotifyBatch(BottomHalf):
    """Tells the driver once of all that was completed in a pass (notify_guest_bh)."""

    __slots__ = ("_device", "_queues")

    def __init__(self, ctx: AioContext, device: VirtioDevice) -> None:
        super().__init__(ctx, device)
        self._device = device
        self._queues: list[VirtQueue] = []

    def add(self, queue: VirtQueue) -> None:
        """The queue has a new used buffer (virtio_blk_data_plane_notify)."""
        if not queue.notify_pending:
            queue.notify_pending = True
            self._queues.append(queue)
            self.schedule()

    def callback(self) -> None:
        """Raises one interrupt if any of the queues wants it."""
        queues, self._queues = self._queues, []
        wanted = False
        for queue in queues:
            queue.notify_pending = False
            wanted = queue.needs_interrupt() or wanted
        if wanted:
            self._device.interrupt(ISR_QUEUE)


class Doorbell:
    """How a queue's new requests are noticed: the driver rings, or somebody looks into the ring.

    A PollHandler (virtio_queue_host_notifier_aio_poll and its like).
    """

    def __init__(self, service: Service, queue: VirtQueue) -> None:
        self._service = service
        self._device = service.device
        self._queue = queue

    def rung(self, notifier: EventNotifier) -> None:
        """The driver rang."""
        notifier.test_and_clear()
        self._device.handle_queue(self._queue)

    def work(self) -> int:
        """How many requests were taken, modulo 2^16."""
        return self._queue.last_avail

    def io_poll(self) -> bool:
        """Whether there is something that `handle_queue` would take."""
        return self._queue.pending() and self._device.takes_requests

    def io_poll_ready(self) -> None:
        """Takes it."""
        self._device.handle_queue(self._queue)

    def io_poll_begin(self) -> None:
        """The driver need not ring."""
        self._queue.begin_polling()

    def io_poll_end(self) -> None:
        """It must; and if it added something before it could know, we ring in its stead."""
        if not self._queue.end_polling():
            self._service.kick(self._queue)


class Service:
    """The doorbells of a device's queues in one context."""

    def __init__(self, device: VirtioBlk, ctx: AioContext) -> None:
        self.device = device
        self.ctx = ctx
        self.batch = NotifyBatch(ctx, device)
        self.notify = self.batch.add
        self.running = False

    def start(self) -> None:
        """Begins to serve the queues."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ends it (R1)."""
        raise NotImplementedError

    def kick(self, queue: VirtQueue) -> None:
        """Looks into a queue soon, as if the driver had rung (R2)."""
        notifier = queue.host_notifier
        if notifier is not None:
            notifier.set()
        else:
            self.ctx.bh_schedule_oneshot(lambda: self._look(queue), owner=self.device)

    def go_on(self, queue: VirtQueue, jumps: int) -> None:
        """Takes more of a queue when the answers that are there have been given. At home."""
        self.ctx.bh_schedule_oneshot(lambda: self._go_on(queue, jumps), owner=self.device)

    def _go_on(self, queue: VirtQueue, jumps: int) -> None:
        if self.running:
            if queue.notify_pending:
                self.flush_notifications()
            self.device.handle_queue(queue, jumps)

    def kick_all(self) -> None:
        """Looks into all queues: for what came while nobody served them."""
        for queue in self.device.queues:
            if queue.ready:
                self.kick(queue)

    def _look(self, queue: VirtQueue) -> None:
        if self.running:
            self.device.handle_queue(queue)

    def resubmit(self) -> None:
        """Starts again what an error had stopped, before anything new is taken."""
        if self.device.stopped:
            self.ctx.bh_schedule_oneshot(self._resubmit, owner=self.device)

    def _resubmit(self) -> None:
        if self.running:
            self.device.resubmit()

    def assign_doorbells(self) -> None:
        """Turns each queue's doorbell into a notifier (virtio_bus_set_host_notifier): all or none.

        Raises OSError when the kernel gives no ioeventfd.
        """
        try:
            for queue in self.device.queues:
                if queue.ready:
                    self.device.transport.set_host_notifier(queue, True)
        except OSError:
            self.unassign_doorbells()
            raise

    def unassign_doorbells(self) -> None:
        """Turns them back into register writes."""
        for queue in self.device.queues:
            self.device.transport.set_host_notifier(queue, False)

    def attach_handlers(self) -> None:
        """Listens to the doorbells in the context (virtio_queue_aio_set_host_notifier_handler)."""
        for queue in self.device.queues:
            if queue.host_notifier is not None:
                doorbell = Doorbell(self, queue)
                self.ctx.set_event_notifier(
                    queue.host_notifier,
                    doorbell.rung,
                    owner=self.device,
                    is_external=True,
                    poll=doorbell,
                )

    def detach_handlers(self) -> None:
        """Listens no more."""
        for queue in self.device.queues:
            if queue.host_notifier is not None:
                self.ctx.set_event_notifier(queue.host_notifier, None)

    def serve_here(self, queue: VirtQueue) -> None:
        """Takes what is available in a vCPU's thread, which holds the big lock."""
        with self.ctx:
            self.device.handle_queue(queue)

    def flush_notifications(self) -> None:
        """Tells the driver now of what the bottom half has not told it yet. At home."""
        self.batch.cancel()
        self.batch.callback()


class MainLoopService(Service):
    """Requests on the main loop, under the big lock (virtio_device_start_ioeventfd).

    With `ioeventfd` a doorbell wakes the main loop; without, the vCPU that rings it takes the
    requests in its own thread, inside the register write. So it is with an accelerator that has no
    ioeventfd in the kernel (QEMU: kvm_eventfds_enabled).
    """

    def __init__(self, device: VirtioBlk, ctx: AioContext, ioeventfd: bool) -> None:
        super().__init__(device, ctx)
        self._ioeventfd = ioeventfd

    def start(self) -> None:
        """Listens on the main loop, and looks into each queue once."""
        if self._ioeventfd:
            self.assign_doorbells()
            self.attach_handlers()
        self.running = True
        self.resubmit()
        self.kick_all()

    def serve_here(self, queue: VirtQueue) -> None:
        """Takes requests and gives the answers that are there, without waking the main loop.

        Discussion: the main thread sleeps meanwhile, or waits for the big lock. A completion's
        bottom half would wake it, and it would then fight us for the interpreter: 5 times fewer
        requests a second. So its context counts as awake while we run its bottom halves.
        """
        ctx = self.ctx
        with ctx:
            ctx.end_prepare()
            self.device.handle_queue(queue, queue.num)  # the guest cannot look meanwhile
            for _ in range(MAX_PASSES):
                if not ctx.run_bottom_halves():
                    break
            if ctx.prepare() >= 0:
                ctx.notify()  # there is more to do, or somebody wants the main loop

    def stop(self) -> None:
        """Listens no more, and waits for what is in flight."""
        self.detach_handlers()
        self.running = False
        self.device.drain()
        self.unassign_doorbells()
        self.flush_notifications()
