# SPDX-License-Identifier: GPL-2.0-only
"""virtio over memory-mapped registers, version 2 (virtio 1.2, 4.2; hw/virtio/virtio-mmio.c).

One device sits behind a window of 512 bytes: registers below 0x100, the device's configuration
space from there on. A slot without a device answers with the magic number and device id 0.

Rules:
R1  `read` and `write` are called under the big lock, by a vCPU's thread.
R2  Registers are 32 bits wide and read or written as such; any other access to one reads 0 and
    writes nothing. The configuration space may be read at any width from 1 to 8 bytes.
R3  What the standard forbids a driver to write at that moment is ignored: features after
    FEATURES_OK, a queue's numbers while it is ready, registers that are read-only.
R4  The interrupt line has two drivers, never at the same time: as a wire under the big lock while
    the device is served by the main loop, by `pulse` from any thread while an IOThread serves it.
R5  While an IOThread serves the device an acknowledgement ends in the kernel, which notes it in a
    notifier, and the vCPU runs on. We ask for it before a bit is set and before one is read: so
    it clears what was set before it, and nothing else.

Discussion: the board's interrupt pins are edge-triggered. A wire that is already high when a second
bit of the status is set gives no edge, and need not: the first one is not acknowledged yet. An
acknowledge that leaves a bit set must give a new one, so the wire goes down and up again.
"""

from __future__ import annotations

from block.aio.world import World, the_world
from miniqemu.hw.virtio import ISR_CONFIG, ISR_QUEUE, VirtioDevice
from miniqemu.hw.virtio_main_thread import MainThread
from miniqemu.hw.virtqueue import VirtQueue
from miniqemu.machine import debug

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.context import AioContext
    from block.aio.notifier import EventNotifier
    from miniqemu.machine.biglock import BigLock
    from miniqemu.machine.irq import IrqLine
    from miniqemu.machine.memory import AddressSpace

SIZE = 0x200
MAGIC = 0x7472_6976  # "virt"
VERSION = 2
VENDOR = 0x554D_4551  # "QEMU", so that a guest sees the same machine
NO_REGION = 0xFFFF_FFFF

# The registers (4.2.2), with the names of the specification.
MAGIC_VALUE = 0x000
VERSION_REGISTER = 0x004
DEVICE_ID = 0x008
VENDOR_ID = 0x00C
DEVICE_FEATURES = 0x010
DEVICE_FEATURES_SEL = 0x014
DRIVER_FEATURES = 0x020
DRIVER_FEATURES_SEL = 0x024
QUEUE_SEL = 0x030
QUEUE_NUM_MAX = 0x034
QUEUE_NUM = 0x038
QUEUE_READY = 0x044
QUEUE_NOTIFY = 0x050
INTERRUPT_STATUS = 0x060
INTERRUPT_ACK = 0x064
STATUS = 0x070
QUEUE_DESC_LOW = 0x080
QUEUE_DESC_HIGH = 0x084
QUEUE_DRIVER_LOW = 0x090
QUEUE_DRIVER_HIGH = 0x094
QUEUE_DEVICE_LOW = 0x0A0
QUEUE_DEVICE_HIGH = 0x0A4
SHM_SEL = 0x0AC
SHM_LEN_LOW = 0x0B0
SHM_LEN_HIGH = 0x0B4
SHM_BASE_LOW = 0x0B8
SHM_BASE_HIGH = 0x0BC
QUEUE_RESET = 0x0C0
CONFIG_GENERATION = 0x0FC
CONFIG = 0x100

# Queue address registers: which attribute of the queue, and which half of it.
QUEUE_ADDRESSES = {
    QUEUE_DESC_LOW: ("desc_addr", 0),
    QUEUE_DESC_HIGH: ("desc_addr", 32),
    QUEUE_DRIVER_LOW: ("avail_addr", 0),
    QUEUE_DRIVER_HIGH: ("avail_addr", 32),
    QUEUE_DEVICE_LOW: ("used_addr", 0),
    QUEUE_DEVICE_HIGH: ("used_addr", 32),
}
ACKNOWLEDGEMENTS = (ISR_QUEUE, ISR_QUEUE | ISR_CONFIG)  # those that end in the kernel (R5)
CONSTANTS = {MAGIC_VALUE: MAGIC, VERSION_REGISTER: VERSION, VENDOR_ID: VENDOR}
CONSTANTS |= dict.fromkeys((SHM_LEN_LOW, SHM_LEN_HIGH, SHM_BASE_LOW, SHM_BASE_HIGH), NO_REGION)


class VirtioMmioTransport:
    """The window of registers, and what connects a device to the machine (VirtIOMMIOProxy)."""

    size = SIZE

    def __init__(
        self,
        base: int,
        irq: IrqLine,
        address_space: AddressSpace,
        ctx_main: AioContext,
        big_lock: BigLock,
        device: VirtioDevice | None = None,
        *,
        world: World | None = None,
    ) -> None:
        self.base = base
        self.name = f"virtio-mmio at 0x{base:x}"
        self.irq = irq
        self.memory = address_space.ram
        self.has_ioeventfd = address_space.has_ioeventfd
        self.ctx_main = ctx_main
        self.report: Callable[[str], None] = _log_guest_error
        self.device: VirtioDevice | None = None
        self._space = address_space
        self._world = world or the_world()
        self._main = MainThread(ctx_main, big_lock, self._world)
        self._pulse = False  # R4
        self._acks: list[tuple[int, EventNotifier]] = []  # R5
        self._clear_selectors()
        self._readers: dict[int, Callable[[VirtioDevice], int]] = {
            DEVICE_ID: lambda device: device.device_id,
            DEVICE_FEATURES: self._read_features,
            QUEUE_NUM_MAX: lambda device: queue.max_size if (queue := self._queue(device)) else 0,
            QUEUE_READY: lambda device: int(queue.ready) if (queue := self._queue(device)) else 0,
            INTERRUPT_STATUS: lambda device: device.interrupt_status(),
            STATUS: lambda device: device.status_register,
            CONFIG_GENERATION: lambda device: device.generation,
        }
        self._writers: dict[int, Callable[[VirtioDevice, int], None]] = {
            DEVICE_FEATURES_SEL: self._write_device_features_sel,
            DRIVER_FEATURES_SEL: self._write_driver_features_sel,
            DRIVER_FEATURES: self._write_driver_features,
            QUEUE_SEL: self._write_queue_sel,
            QUEUE_NUM: self._write_queue_num,
            QUEUE_READY: self._write_queue_ready,
            QUEUE_NOTIFY: lambda device, value: device.notify_queue(value),
            INTERRUPT_ACK: self._write_interrupt_ack,
            STATUS: self._write_status,
        }
        if device is not None:
            self.plug(device)

    def plug(self, device: VirtioDevice) -> None:
        """Puts a device behind the window, once (virtio_bus_device_plugged)."""
        assert self.device is None, "there is a device already"
        self.device = device
        device.transport = self
        device.plugged()
        device.config = device.build_config()

    def _clear_selectors(self) -> None:
        self._device_features_sel = self._driver_features_sel = self._queue_sel = 0

    # -- The guest's side ------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """A load from the window (virtio_mmio_read)."""
        device = self.device
        if offset >= CONFIG:
            return self._read_config(offset - CONFIG, size)
        if size != 4:
            return self._odd(f"read of {size} bytes at register 0x{offset:x}")
        if offset in CONSTANTS:
            return CONSTANTS[offset] if device or offset < SHM_SEL else 0
        if device is None:
            return 0
        reader = self._readers.get(offset)
        if reader is None:
            return self._odd(f"read of register 0x{offset:x}")
        return reader(device)

    def write(self, offset: int, size: int, value: int) -> None:
        """A store to the window (virtio_mmio_write)."""
        device = self.device
        if device is None:
            return
        if offset >= CONFIG:
            self._write_config(device, offset - CONFIG, size, value)
        elif size != 4:
            self._odd(f"write of {size} bytes at register 0x{offset:x}")
        elif offset in QUEUE_ADDRESSES:
            self._write_queue_address(device, offset, value)
        elif (writer := self._writers.get(offset)) is not None:
            writer(device, value & 0xFFFF_FFFF)
        else:
            self._odd(f"write to register 0x{offset:x}")

    def _odd(self, what: str) -> int:
        if debug.enabled:
            debug.log("guest_errors", f"{self.name}: {what}")
        return 0

    # -- Features --------------------------------------------------------------------------

    def _read_features(self, device: VirtioDevice) -> int:
        sel = self._device_features_sel
        return (device.host_features >> (32 * sel)) & 0xFFFF_FFFF if sel < 2 else 0

    def _write_device_features_sel(self, device: VirtioDevice, value: int) -> None:
        self._device_features_sel = value

    def _write_driver_features_sel(self, device: VirtioDevice, value: int) -> None:
        self._driver_features_sel = value

    def _write_driver_features(self, device: VirtioDevice, value: int) -> None:
        sel = self._driver_features_sel
        if device.state.value > device.state.DRIVER.value or sel > 1:
            self._odd("features written when they are final, or beyond the 64th")
            return
        shift = 32 * sel
        device.features = device.features & ~(0xFFFF_FFFF << shift) | value << shift

    # -- Queues ----------------------------------------------------------------------------

    def _queue(self, device: VirtioDevice) -> VirtQueue | None:
        """The selected queue, if the device has it."""
        queues = device.queues
        return queues[self._queue_sel] if self._queue_sel < len(queues) else None

    def _write_queue_sel(self, device: VirtioDevice, value: int) -> None:
        self._queue_sel = value

    def _idle_queue(self, device: VirtioDevice) -> VirtQueue | None:
        """The selected queue, if its numbers may be written now (4.2.2.2)."""
        queue = self._queue(device)
        if queue is None or queue.ready:
            self._odd(f"set-up of queue {self._queue_sel}, which is ready or does not exist")
            return None
        return queue

    def _write_queue_num(self, device: VirtioDevice, value: int) -> None:
        if queue := self._idle_queue(device):
            queue.num = value  # checked when the queue becomes ready

    def _write_queue_address(self, device: VirtioDevice, offset: int, value: int) -> None:
        if queue := self._idle_queue(device):
            name, shift = QUEUE_ADDRESSES[offset]
            address = getattr(queue, name) & ~(0xFFFF_FFFF << shift)
            setattr(queue, name, address | (value & 0xFFFF_FFFF) << shift)

    def _write_queue_ready(self, device: VirtioDevice, value: int) -> None:
        queue = self._queue(device)
        if queue is not None:
            self._main.run(lambda: device.set_queue_ready(queue, bool(value & 1)))

    # -- Status and interrupts -------------------------------------------------------------

    def _write_status(self, device: VirtioDevice, value: int) -> None:
        self._main.run(lambda: self._set_status(device, value))

    def _set_status(self, device: VirtioDevice, value: int) -> None:
        device.set_status(value)
        if not device.status_register:
            self._clear_selectors()
            self._drive_wire()

    def _write_interrupt_ack(self, device: VirtioDevice, value: int) -> None:
        device.acknowledge(value)
        self._drive_wire()

    def _drive_wire(self) -> None:
        """Brings the line to what the status says, with an edge if a bit is left (R4)."""
        if not self._pulse:
            self.irq.set_level(False)
            if self.device is not None and self.device.isr:
                self.irq.set_level(True)

    def raise_irq(self) -> None:
        """The interrupt status has a new bit (virtio_mmio_update_irq, virtio_notify_irqfd)."""
        if self._pulse:
            self.irq.pulse()
        else:
            self.irq.set_level(True)

    def set_guest_notifier(self, assign: bool) -> None:
        """Changes who may drive the line (virtio_mmio_set_guest_notifiers). Main thread."""
        if assign == self._pulse:
            return
        if assign:
            self.irq.irqfd()
            self.irq.set_level(False)
            self._pulse = True
            self._bind_acks()
        else:
            self._unbind_acks()
            self._pulse = False
            self.irq.release_irqfd()
            self._drive_wire()

    def _bind_acks(self) -> None:
        """From here on acknowledgements end in the kernel, if it has a place for them."""
        for value in ACKNOWLEDGEMENTS if self.has_ioeventfd else ():
            notifier = self._world.new_notifier()
            try:
                self._space.add_ioeventfd(self.base + INTERRUPT_ACK, 4, notifier, datamatch=value)
            except OSError:
                notifier.close()
                return
            self._acks.append((value, notifier))

    def _unbind_acks(self) -> None:
        """They are register writes again, and what came before is not lost."""
        for value, notifier in self._acks:
            self._space.del_ioeventfd(self.base + INTERRUPT_ACK, 4, notifier, datamatch=value)
        if self.device is not None:
            self.device.interrupt_status()
        for _, notifier in self._acks:
            notifier.close()
        self._acks.clear()

    def acknowledged(self) -> int:
        """The bits that were acknowledged in the kernel since the last call (R5)."""
        bits = 0
        for value, notifier in self._acks:
            if notifier.test_and_clear():
                bits |= value
        return bits

    def set_host_notifier(self, queue: VirtQueue, assign: bool) -> None:
        """Binds a queue's doorbell to a notifier, or unbinds it (virtio_bus_set_host_notifier)."""
        doorbell = (self.base + QUEUE_NOTIFY, 4)
        if assign:
            notifier = self._world.new_notifier()
            try:
                self._space.add_ioeventfd(*doorbell, notifier, datamatch=queue.index)
            except OSError:
                notifier.close()
                raise
            queue.host_notifier = notifier
        elif queue.host_notifier is not None:
            notifier, queue.host_notifier = queue.host_notifier, None
            self._space.del_ioeventfd(*doorbell, notifier, datamatch=queue.index)
            notifier.close()

    # -- Configuration space ---------------------------------------------------------------

    def _read_config(self, offset: int, size: int) -> int:
        space = self.device.config if self.device else b""
        if offset + size > len(space):
            self._odd(f"read of {size} bytes at configuration offset {offset}")
            return (1 << (8 * size)) - 1 if self.device else 0
        return int.from_bytes(space[offset : offset + size], "little")

    def _write_config(self, device: VirtioDevice, offset: int, size: int, value: int) -> None:
        if offset + size > len(device.config):
            self._odd(f"write of {size} bytes at configuration offset {offset}")
            return
        value &= (1 << (8 * size)) - 1
        self._main.run(lambda: device.write_config(offset, value.to_bytes(size, "little")))

    # -- The machine's side ----------------------------------------------------------------

    def reset(self) -> None:
        """The machine was reset (virtio_mmio_reset). Main thread."""
        if self.device is not None:
            device = self.device
            self._main.run(lambda: self._set_status(device, 0))

    def vm_state_changed(self, running: bool) -> None:
        """The machine stops or goes on (virtio_vmstate_change). Main thread."""
        if self.device is not None:
            device = self.device
            self._main.run(lambda: device.set_vm_running(running))

    def close(self) -> None:
        """Stops the device and lets go of guest memory. Main thread."""
        self.reset()
        if self.device is not None:
            self.device.close()
            self.device = None


def _log_guest_error(message: str) -> None:
    debug.log("guest_errors", message)
