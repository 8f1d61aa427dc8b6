# SPDX-License-Identifier: GPL-2.0-only
"""`-accel tcg`: the guest's instructions are translated (libunicorn, which is QEMU's TCG).

    KVM's kernel part               here
    local APIC, IOAPIC, i8254       hw/lapic.py, ioapic.py, pit.py
    irqfd                           IrqLine.pulse calls the IOAPIC, in whatever thread
    ioeventfd                       AddressSpace matches the store (MMIO callback, big lock)
    a thread for each vCPU          one thread: vCPUs take turns of SLICE
    HLT waits in the kernel         `rest`: the thread waits until one of them has something to do

There is no i8259: pins reach a processor through the IOAPIC alone.

Rules: those of accel/base.py, and
R1  `lock` guards the interrupt controllers, who is asleep, and why a processor shall stop. It is a
    leaf: whoever holds it takes no other lock. The big lock is taken before it, never after.
R2  Whoever gives a processor something to do writes that first, under the lock, and then calls
    `wake`; who goes to sleep looks for it under the lock.
R3  An interrupt that cannot be taken now (IF = 0, or right behind STI) is tried again (`retry_in`,
    tcg_cpu.R5), because translated code does not say when IF changes. HLT ends the wait at once.
"""

from __future__ import annotations

from functools import partial

from block.aio.world import World, the_world
from miniqemu.accel import libunicorn
from miniqemu.accel.alarm import Alarm
from miniqemu.accel.tcg_cpu import TcgVcpu
from miniqemu.hw.ioapic import IoApic
from miniqemu.hw.lapic import ApicBus
from miniqemu.hw.pit import GatePort, Pit
from miniqemu.machine import debug

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.notifier import EventNotifier
    from miniqemu.machine.biglock import BigLock
    from miniqemu.machine.memory import AddressSpace, GuestMemory

SLICE = 2_000_000  # ns
PIT_GSI = 0


class TcgAccel:
    """A virtual machine on libunicorn (QEMU's TCGState)."""

    name = "tcg"
    runs_in_parallel = False
    has_ioeventfd = False

    def __init__(self, vcpus: int = 1, cpu_model: str = "max", world: World | None = None) -> None:
        """Loads the library. AccelError: one line, with what to install."""
        libunicorn.load()
        self.cpu_model = cpu_model
        world = world or the_world()
        self.lock = world.new_lock()
        self.alarm = Alarm("tcg clock", world, self._ring)
        self.bus = ApicBus(self.lock, self.alarm.now)
        self.bus.wake = self._wake_locked
        self.bus.timer_changed = self._timer_changed
        self.ioapic = IoApic(self.bus)
        self.pit = Pit(self.lock, self.alarm.now, self._pit_rises, self._timer_changed)
        self.vcpus: list[TcgVcpu] = []
        self.ram: GuestMemory | None = None
        self.running: TcgVcpu | None = None
        self._turn_ends: int | None = None
        self._retry_at: int | None = None
        self._gate = world.new_gate()
        self._asleep = False

    def map_ram(self, ram: GuestMemory) -> None:
        """Remembers it: each vCPU's engine maps it by itself."""
        self.ram = ram

    def create_vcpu(self, index: int, space: AddressSpace, big_lock: BigLock) -> TcgVcpu:
        """Makes one processor; local APIC id = `index`. The first brings the chips."""
        if not self.vcpus:
            space.add_mmio(self.ioapic)
            space.add_pio(self.pit)
            space.add_pio(GatePort(self.pit))
        self.vcpus.append(TcgVcpu(index, self, space, big_lock))
        return self.vcpus[-1]

    # -- Interrupt lines -------------------------------------------------------------------

    def set_irq(self, gsi: int, level: bool) -> None:
        """Drives a pin of the IOAPIC."""
        if debug.enabled:
            debug.log("int", f"irq {gsi}: {'raised' if level else 'lowered'}")
        self.ioapic.set_level(gsi, level)

    def add_irqfd(self, gsi: int, notifier: EventNotifier) -> Callable[[], None]:
        """The way to the pin: no descriptor is needed where the IOAPIC is in this process."""
        return partial(self.ioapic.pulse, gsi)

    def del_irqfd(self, gsi: int, notifier: EventNotifier) -> None:
        """There is nothing to end."""

    def add_ioeventfd(
        self, addr: int, size: int, notifier: EventNotifier, datamatch: int | None, pio: bool
    ) -> bool:
        """The address space does it."""
        return False

    def del_ioeventfd(
        self, addr: int, size: int, notifier: EventNotifier, datamatch: int | None, pio: bool
    ) -> None:
        """The address space did it."""

    # -- Time ------------------------------------------------------------------------------

    def _timer_changed(self) -> None:
        """A timer interrupts sooner than it would have. The lock is held."""
        if (first := self._first_deadline()) is not None:
            self.alarm.set(first)

    def _first_deadline(self) -> int | None:
        times = [self.pit.deadline, self._turn_ends, self._retry_at]
        times += [apic.deadline for apic in self.bus.apics]
        return min((time for time in times if time is not None), default=None)

    def _ring(self, now: int) -> int | None:
        """It is time for something, in the alarm's thread."""
        with self.lock:
            self.pit.expire(now)
            for apic in self.bus.apics:
                apic.expire(now)
            if self._retry_at is not None and now >= self._retry_at:
                self._retry_at = None
                self._stop_running()
            if self._turn_ends is not None and now >= self._turn_ends:
                self._turn_ends = None
                self._end_turn()
            return self._first_deadline()

    def _pit_rises(self) -> None:
        self.ioapic.edge_locked(PIT_GSI)

    def _stop_running(self) -> None:
        if self.running is not None:
            self.running.engine_cell.flag = 1

    def _end_turn(self) -> None:
        if self.running is not None:
            self.running.turn_over = True
            self._stop_running()

    def retry_in(self, ns: int) -> bool:
        """Stops whoever runs then, so that it looks again (R3); False: it will sooner anyway."""
        with self.lock:
            at = self.alarm.now() + ns
            if self._retry_at is not None and self._retry_at <= at:
                return False
            self._retry_at = at
            self.alarm.set(at)
            return True

    # -- Turns, sleep and waking (R2) --------------------------------------------------------

    def begin(self, vcpu: TcgVcpu) -> None:
        """`vcpu` has the thread now; its turn ends if another waits for one."""
        with self.lock:
            self.running = vcpu
            if len(self.vcpus) > 1 and self._others_ready(vcpu):
                self._turn_ends = self.alarm.now() + SLICE
                self.alarm.set(self._turn_ends)

    def end(self) -> None:
        """Nobody has the thread."""
        with self.lock:
            self.running = self._turn_ends = None

    def _others_ready(self, vcpu: TcgVcpu) -> bool:
        return any(other.has_work() for other in self.vcpus if other is not vcpu)

    def rest(self, vcpu: TcgVcpu) -> bool:
        """`vcpu` has nothing to do: waits for somebody to have; False: another one has."""
        with self.lock:
            if vcpu.has_work():
                return True
            if self._others_ready(vcpu):
                return False
            self._asleep = True
        self._gate.wait()
        return True

    def wake(self, index: int) -> None:
        """Vcpu `index` has something to do: whoever runs or sleeps looks; any thread."""
        with self.lock:
            self._wake_locked(index)

    def _wake_locked(self, index: int) -> None:
        if self._asleep:
            self._asleep = False
            self._gate.open()
        elif self.running is not None:
            if self.running.index != index:
                self.running.turn_over = True
            self._stop_running()

    # -- The end -----------------------------------------------------------------------------

    def reset(self) -> None:
        """IOAPIC and PIT as at power-on; each vCPU resets its local APIC."""
        with self.lock:
            self.ioapic.reset()
            self.pit.reset()
            self._turn_ends = self._retry_at = None

    def close(self) -> None:
        """Ends the clock."""
        self.alarm.close()
        self._gate.close()
