# SPDX-License-Identifier: GPL-2.0-only
"""What every virtio device has: status, features, queues, interrupts (QEMU's VirtIODevice).

    transport (virtio_mmio)  registers, interrupt line, doorbells
      device (this)          the standard's state, common to all devices
        virtio_blk           what the device is for

Rules:
R1  Registers are touched under the big lock. What needs the tree moved or drained (start, stop,
    reset) happens in the main thread; the transport sees to it.
R2  `isr` and `broken` are written by vCPU threads, the main thread and the IOThread. `_lock` guards
    them: `isr |= bits` is a read, an or, and a write. `broken` only goes up while the device
    runs, and down in a reset, when the IOThread has stopped.
R3  Buffers are used while `started`, and at no other time (2.1.2: not before DRIVER_OK).
R4  The configuration space is a copy, renewed under the big lock; so a driver never reads a
    mixture, and `generation` says when to read again.
"""

from __future__ import annotations

from block.aio.world import World, the_world
from miniqemu.hw import virtio_status as status
from miniqemu.hw.virtqueue import F_EVENT_IDX, F_INDIRECT_DESC, BrokenRing, VirtQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from block.aio.context import AioContext
    from block.aio.notifier import EventNotifier
    from miniqemu.machine.memory import GuestMemory
else:
    Protocol = object

F_VERSION_1 = 1 << 32
ISR_QUEUE = 1  # a used buffer
ISR_CONFIG = 2  # the configuration changed, or the device needs a reset

__all__ = ["F_EVENT_IDX", "F_INDIRECT_DESC", "F_VERSION_1", "VirtioDevice"]


class Transport(Protocol):
    """What a device needs of the bus it sits on (VirtioBusClass)."""

    memory: GuestMemory
    ctx_main: AioContext
    has_ioeventfd: bool  # whether a doorbell can wake a loop without the vCPU's thread

    def raise_irq(self) -> None:
        """The interrupt status has a new bit."""

    def acknowledged(self) -> int:
        """Bits of the interrupt status that were acknowledged in the kernel since the last call."""

    def set_guest_notifier(self, assign: bool) -> None:
        """From now on `raise_irq` may be called from any thread (virtio_bus, irqfd)."""

    def set_host_notifier(self, queue: VirtQueue, assign: bool) -> None:
        """From now on a doorbell sets `queue.host_notifier` (virtio_bus, ioeventfd)."""

    def report(self, message: str) -> None:
        """Tells the person who runs the machine what the guest did wrong."""


def _nobody(reason: str) -> None:
    """Nobody to stop the machine: a device on its own, in a test."""


class VirtioDevice:
    """The part of a device that the standard prescribes for all (struct VirtIODevice)."""

    name = "virtio"
    device_id = 0

    def __init__(self, num_queues: int, queue_size: int, world: World | None = None) -> None:
        self.world = world or the_world()
        self._lock = self.world.new_lock()
        self.transport: Transport
        self.host_features = F_VERSION_1
        self.features = 0  # as negotiated
        self.status = 0  # without NEEDS_RESET
        self.broken = False
        self.isr = 0
        self.generation = 0
        self.config = bytearray()
        self.started = False
        self.vm_running = True
        self.last_error = ""
        self.request_vm_stop: Callable[[str], None] = _nobody
        fence = self.world.new_lock()
        self.queues = [VirtQueue(self, index, queue_size, fence) for index in range(num_queues)]

    # -- What a device fills in ------------------------------------------------------------

    def plugged(self) -> None:
        """The device has a transport now."""

    def negotiated(self) -> None:
        """FEATURES_OK: `features` are what they will be. Main thread."""

    def start(self) -> None:
        """DRIVER_OK, or the machine goes on: serve the queues. Main thread."""

    def stop(self) -> None:
        """The opposite: serve them no more, nothing in flight at return. Main thread."""

    def reset_device(self) -> None:
        """Back to power-on, after `stop`. Main thread."""

    def handle_output(self, queue: VirtQueue) -> None:
        """A doorbell in the vCPU's own thread, under the big lock."""

    def build_config(self) -> bytearray:
        """The configuration space as it is now."""
        return bytearray()

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver wrote into the configuration space; the range is inside it."""

    def queue_disabled(self, queue: VirtQueue) -> None:
        """A queue is about to be taken out of use, after `stop`."""

    def close(self) -> None:
        """The end, after a reset. Main thread."""

    # -- Status ----------------------------------------------------------------------------

    @property
    def status_register(self) -> int:
        """What the driver reads."""
        return self.status | (status.NEEDS_RESET if self.broken else 0)

    @property
    def state(self) -> status.State:
        """Where the device is in the standard's sequence."""
        return status.state_of(self.status_register)

    def set_status(self, value: int) -> None:
        """A write to the status register (virtio_set_status). Main thread."""
        asked = status.asked_by(value)
        action = status.TABLE[self.state][asked]
        if action is status.Action.RESET:
            self.reset()
        elif action is status.Action.GIVE_UP:
            self.status |= status.FAILED
            self.update_started()
        elif action is status.Action.STEP:
            self.status = asked.value
        elif action is status.Action.NEGOTIATE and self.features_acceptable():
            self.status = asked.value
            self.negotiated()
        elif action is status.Action.START:
            self.status = asked.value
            self.update_started()

    def features_acceptable(self) -> bool:
        """Whether FEATURES_OK may be set (virtio_validate_features; 2.2.2, 6.1, 6.2)."""
        unknown = self.features & ~self.host_features
        return not unknown and bool(self.features & F_VERSION_1)

    def update_started(self) -> None:
        """Starts or stops the device as status and run state ask. Main thread."""
        wanted = self.state is status.State.RUNNING and self.vm_running
        if wanted and not self.started:
            self.started = True
            self.start()
        elif self.started and not wanted:
            self.stop()
            self.started = False

    def set_vm_running(self, running: bool) -> None:
        """The machine stops or goes on (virtio_vmstate_change). Main thread."""
        self.vm_running = running
        self.update_started()

    def reset(self) -> None:
        """Everything back to power-on, nothing lost on the way (virtio_reset). Main thread."""
        if self.started:
            self.stop()
            self.started = False
        self.reset_device()
        self.status = self.features = 0
        for queue in self.queues:
            queue.reset()
        with self._lock:
            self.isr = 0
            self.broken = False
        self.config = self.build_config()

    def error(self, message: str) -> None:
        """The driver did what no device can recover from (virtio_error). Any thread."""
        with self._lock:
            first, self.broken = not self.broken, True
            self.last_error = message
        if first:
            self.transport.report(f"{self.name}: {message}")
            if self.status & status.DRIVER_OK:
                self.interrupt(ISR_CONFIG)

    # -- Queues ----------------------------------------------------------------------------

    def set_queue_ready(self, queue: VirtQueue, ready: bool) -> None:
        """A write to QueueReady (virtio_queue_set_rings). Main thread.

        Ready once the features are final, because they say how large the rings are. Taken away
        at any time: a driver reads the register until it is 0 (4.2.2.2), also of a broken device.
        """
        final = self.state in (status.State.NEGOTIATED, status.State.RUNNING)
        if ready == queue.ready or (ready and not final):
            return
        live = self.started
        if live:
            self.stop()
        self._set_ready(queue, ready)
        if live:
            self.start()

    def _set_ready(self, queue: VirtQueue, ready: bool) -> None:
        if not ready:
            self.queue_disabled(queue)
            queue.disable()
            return
        try:
            queue.enable(self.transport.memory, self.features)
        except BrokenRing as error:
            self.error(str(error))

    def notify_queue(self, index: int) -> None:
        """A doorbell that came as a register write (virtio_queue_notify). Big lock held."""
        if index >= len(self.queues) or not self.started or self.broken:
            return
        queue = self.queues[index]
        if not queue.ready:
            return
        notifier: EventNotifier | None = queue.host_notifier
        if notifier is not None:
            notifier.set()
        else:
            self.handle_output(queue)

    # -- Interrupts ------------------------------------------------------------------------

    def interrupt(self, bits: int) -> None:
        """Sets bits of the interrupt status and tells the guest (virtio_irq). See raise_irq."""
        with self._lock:
            self.isr = self.isr & ~self.transport.acknowledged() | bits
        self.transport.raise_irq()

    def interrupt_status(self) -> int:
        """What a driver reads from InterruptStatus. Big lock held."""
        with self._lock:
            self.isr &= ~self.transport.acknowledged()
            return self.isr

    def acknowledge(self, bits: int) -> None:
        """Clears bits of the interrupt status (a write to InterruptACK)."""
        with self._lock:
            self.isr &= ~bits

    def config_changed(self) -> None:
        """Renews the configuration space and tells the guest (virtio_notify_config). Big lock."""
        self.config = self.build_config()
        self.generation = (self.generation + 1) & 0xFFFF_FFFF
        if self.status & status.DRIVER_OK:
            self.interrupt(ISR_CONFIG)
