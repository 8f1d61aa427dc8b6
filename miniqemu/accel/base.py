# SPDX-License-Identifier: GPL-2.0-only
"""What runs the guest's instructions: the interface that every accelerator has (AccelClass).

    Accelerator   maps RAM, drives interrupt pins, binds doorbells, makes vCPUs
    Vcpu          runs the guest until something needs the machine, and can be kicked out

The machine owns threads, run states and devices; an accelerator owns instructions. While a
vCPU runs it calls the `AddressSpace` it was given for accesses that hit no RAM, holding the
big lock around each of them. Everything else ends `run()` with a `Stop`.

Rules:
R1  `run`, `registers`, `load` and `reset` belong to the vCPU's thread, or to the thread
    that has seen it parked. `kick` may be called from anywhere.
R2  A kick is never lost: given while the vCPU is not in `run`, it ends the next `run` at once.
R3  When `run` has returned, no port or MMIO access is half done: registers may be read and set.
"""

from __future__ import annotations

from block.lean import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from block.aio.notifier import EventNotifier
    from miniqemu.machine.biglock import BigLock
    from miniqemu.machine.memory import AddressSpace, GuestMemory
else:
    Protocol = object


class AccelError(Exception):
    """The accelerator cannot be used: one line with the option, the cause and the remedy."""


class Stop(IntEnum):
    """Why `Vcpu.run` came back."""

    KICKED = 0  # somebody wants the vCPU's thread
    SHUTDOWN = 1  # triple fault: the processor gave up
    INTERNAL_ERROR = 2  # the accelerator cannot go on; `Vcpu.detail` says why
    HALTED = 3  # waits for an interrupt, and the accelerator does not wait by itself
    RESET = 4  # the guest asked for a reset through the accelerator
    DEBUG = 5  # single step or breakpoint


SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr")
GENERAL = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags",
)  # fmt: skip


class Segment:
    """A segment register with its hidden part (SegmentCache)."""

    __slots__ = ("base", "flags", "limit", "selector")

    def __init__(self, selector: int = 0, base: int = 0, limit: int = 0, flags: int = 0) -> None:
        self.selector, self.base, self.limit = selector, base, limit
        self.flags = flags  # as in a descriptor's second word, bits 8..23 (QEMU's form)


class Registers:
    """The registers of one vCPU, free of any accelerator's structures (CPUX86State)."""

    __slots__ = (
        *GENERAL, *SEGMENTS,
        "cr0", "cr2", "cr3", "cr4", "efer", "gdt_base", "gdt_limit", "idt_base", "idt_limit",
        "halted",
    )  # fmt: skip

    rax: int
    rbx: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    rbp: int
    rsp: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int
    rip: int
    rflags: int
    es: Segment
    cs: Segment
    ss: Segment
    ds: Segment
    fs: Segment
    gs: Segment
    ldt: Segment
    tr: Segment

    def __init__(self) -> None:
        for name in GENERAL:
            setattr(self, name, 0)
        for name in SEGMENTS:
            setattr(self, name, Segment())
        self.cr0 = self.cr2 = self.cr3 = self.cr4 = self.efer = 0
        self.gdt_base = self.gdt_limit = self.idt_base = self.idt_limit = 0
        self.halted = False


class Vcpu(Protocol):
    """One virtual processor (CPUState)."""

    index: int
    detail: str  # what to print after Stop.INTERNAL_ERROR

    def prepare_thread(self) -> None:
        """Called once in the thread that will run it."""

    def run(self) -> Stop:
        """Runs the guest until something needs the machine (kvm_cpu_exec)."""

    def kick(self) -> None:
        """Ends the running or the next `run` soon, from any thread (qemu_cpu_kick)."""

    def leave_thread(self) -> None:
        """Called in that thread before it ends: later kicks reach nobody."""

    def registers(self) -> Registers:
        """A copy of its registers, for dumps and debuggers."""

    def translate(self, linear: int) -> int | None:
        """The physical address of a linear one, by the guest's page tables."""

    def reset(self) -> None:
        """Power-on state; every vCPU but the first then waits for INIT and SIPI."""

    def load(self, registers: Registers) -> None:
        """Sets the registers that differ from power-on, e.g. for a kernel's entry."""

    def close(self) -> None:
        """Gives back what it holds; it never runs again."""


class Accelerator(Protocol):
    """Runs a virtual machine's processors (AccelState). Also an IrqController and an
    IoeventfdBinder: see machine/irq.py and machine/memory.py.
    """

    name: str
    runs_in_parallel: bool  # True: a thread for each vCPU; False: they take turns in one
    has_ioeventfd: bool  # True: the kernel rings doorbells; False: the vCPU's thread does

    def map_ram(self, ram: GuestMemory) -> None:
        """Lets the guest see all regions of `ram`."""

    def create_vcpu(self, index: int, space: AddressSpace, big_lock: BigLock) -> Vcpu:
        """Makes one processor (qemu_init_vcpu)."""

    def set_irq(self, gsi: int, level: bool) -> None:
        """Drives one pin of the interrupt controllers."""

    def add_irqfd(self, gsi: int, notifier: EventNotifier) -> Callable[[], None] | None:
        """A write to `notifier` is an edge on the pin; or what is returned makes one."""

    def del_irqfd(self, gsi: int, notifier: EventNotifier) -> None:
        """Ends what add_irqfd began."""

    def add_ioeventfd(
        self, addr: int, size: int, notifier: EventNotifier, datamatch: int | None, pio: bool
    ) -> bool:
        """A matching store sets `notifier`; False where the accelerator cannot do it."""

    def del_ioeventfd(
        self, addr: int, size: int, notifier: EventNotifier, datamatch: int | None, pio: bool
    ) -> None:
        """Ends what add_ioeventfd began."""

    def reset(self) -> None:
        """Interrupt controllers and timers to their power-on state."""

    def close(self) -> None:
        """Gives everything back, after the vCPUs have been closed."""
