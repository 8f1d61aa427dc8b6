# SPDX-License-Identifier: GPL-2.0-only
"""`-accel kvm`: the guest's instructions run on the processor, through /dev/kvm.

Interrupt controllers (two PICs, IOAPIC, local APICs) and the i8254 are the kernel's; HLT
waits in the kernel. An exit that comes here is a port or MMIO access that hit no RAM, a kick,
or the end. Power-on state is what KVM gave the new machine: it is saved once and put back by
`reset`, so that nothing is forgotten.

Rules: those of accel/base.py. The big lock is held around each device access, and only then.

What once went wrong here: reading exit_reason after EINTR acts on the exit before; setting
registers while a port read was half done let KVM overwrite RAX.
"""

from __future__ import annotations

import errno

from miniqemu.accel import cpuid
from miniqemu.accel.base import GENERAL, SEGMENTS, AccelError, Registers, Segment, Stop
from miniqemu.machine import debug
from miniqemu.pykvm import Kvm, KvmError, ioctls
from miniqemu.pykvm import Vcpu as RawVcpu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.notifier import EventNotifier
    from miniqemu.machine.biglock import BigLock
    from miniqemu.machine.memory import AddressSpace, GuestMemory
    from miniqemu.pykvm.structs import kvm_irqchip, kvm_pit_state2, kvm_segment, kvm_sregs

IDENTITY_MAP = 0xFEFF_C000  # a page, then three for the TSS: where QEMU puts them
TSS = IDENTITY_MAP + 0x1000
NEEDED = {
    "KVM_CAP_USER_MEMORY": ioctls.KVM_CAP_USER_MEMORY,
    "KVM_CAP_IRQCHIP": ioctls.KVM_CAP_IRQCHIP,
    "KVM_CAP_PIT2": ioctls.KVM_CAP_PIT2,
    "KVM_CAP_IRQFD": ioctls.KVM_CAP_IRQFD,
    "KVM_CAP_IOEVENTFD": ioctls.KVM_CAP_IOEVENTFD,
    "KVM_CAP_IMMEDIATE_EXIT": ioctls.KVM_CAP_IMMEDIATE_EXIT,
}
REMEDIES = {
    errno.ENOENT: "load it with `sudo modprobe kvm_intel` or `sudo modprobe kvm_amd`"
    " (in a container: `docker run --device /dev/kvm`)",
    errno.EACCES: "join its group with `sudo usermod -aG kvm $USER`, then log in again",
    errno.EPERM: "join its group with `sudo usermod -aG kvm $USER`, then log in again",
    errno.ENODEV: "turn virtualisation on in the firmware, then `sudo modprobe kvm_intel`",
    errno.ENXIO: "turn virtualisation on in the firmware, then `sudo modprobe kvm_intel`",
    errno.EBUSY: "end the other hypervisor that has it, e.g. `sudo rmmod vboxdrv`",
}
SAVED_MSRS = (
    *(0x10, 0x174, 0x175, 0x176, 0x1A0, 0x277, 0x2FF, 0x6E0),  # TSC, SYSENTER, MISC, PAT, MTRR
    *(0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0102, 0xC000_0103),
)
SUBERRORS = {
    ioctls.KVM_INTERNAL_ERROR_EMULATION: "KVM cannot emulate this instruction",
    ioctls.KVM_INTERNAL_ERROR_SIMUL_EX: "two exceptions at once",
    ioctls.KVM_INTERNAL_ERROR_DELIVERY_EV: "an exit while an event was being delivered",
    ioctls.KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: "an exit that KVM does not know",
}


def open_error(path: str, error: OSError) -> AccelError:
    """Why /dev/kvm cannot be used, in one line with the command that mends it."""
    cause = error.strerror or str(error)
    remedy = REMEDIES.get(error.errno or 0)
    place = "" if isinstance(error, KvmError) or not path else f"{path}: "
    return AccelError(f"-accel kvm: {place}{cause}" + (f": {remedy}" if remedy else ""))


class KvmAccel:
    """A virtual machine on /dev/kvm (QEMU's KVMState)."""

    name = "kvm"
    runs_in_parallel = True
    has_ioeventfd = True

    def __init__(self, vcpus: int = 1, cpu_model: str = "host", path: str = "/dev/kvm") -> None:
        """Opens KVM and makes an empty machine. AccelError: one line, see `open_error`."""
        self.vcpus, self.cpu_model = vcpus, cpu_model
        self._made: list[RawVcpu] = []
        self._chips: list[kvm_irqchip] = []
        self._pit: kvm_pit_state2 | None = None
        try:
            self._kvm = Kvm(path)
        except OSError as error:
            raise open_error(path, error) from None
        try:
            self._check()
            self._vm = self._kvm.create_vm()
        except OSError as error:
            self._kvm.close()
            raise open_error(path, error) from None
        except AccelError:
            self._kvm.close()
            raise
        self._cpuid = self._kvm.supported_cpuid()

    def _check(self) -> None:
        for name, capability in NEEDED.items():
            if not self._kvm.check_extension(capability):
                raise AccelError(f"-accel kvm: this kernel's KVM has no {name}: Linux 4.13 has it")
        most = self._kvm.check_extension(ioctls.KVM_CAP_MAX_VCPUS)
        if self.vcpus > most:
            raise AccelError(f"-smp {self.vcpus}: KVM on this machine has at most {most} vCPUs")

    def map_ram(self, ram: GuestMemory) -> None:
        """Gives each region of RAM a memory slot, then makes the chips (kvm_set_phys_mem)."""
        try:
            for slot, region in enumerate(ram.regions):
                self._vm.set_memory(slot, region.base, region.view)
            self._make_chips()
        except KvmError as error:
            raise open_error("", error) from None

    def _make_chips(self) -> None:
        """Discussion: after the memory slots, because each chip puts its registers on KVM's
        buses, and a change of the slots then waits for that to settle: 6 ms, of the 45 ms in
        which QEMU has its first byte on the serial line.
        """
        vm = self._vm
        vm.set_identity_map_addr(IDENTITY_MAP)
        vm.set_tss_addr(TSS)
        vm.create_irqchip()
        vm.create_pit()
        self._chips = [vm.irqchip(chip) for chip in range(3)]
        self._pit = vm.pit()

    def create_vcpu(self, index: int, space: AddressSpace, big_lock: BigLock) -> KvmVcpu:
        """Makes one processor (kvm_init_vcpu); local APIC id = `index`."""
        try:
            raw = self._vm.create_vcpu(index)
            self._made.append(raw)
            raw.set_cpuid(cpuid.for_vcpu(self._cpuid, index, self.vcpus, self.cpu_model))
            return KvmVcpu(raw, space, big_lock)
        except OSError as error:
            raise open_error("", error) from None

    def set_irq(self, gsi: int, level: bool) -> None:
        """Drives a pin of PIC and IOAPIC (kvm_set_irq)."""
        if debug.enabled:
            debug.log("int", f"irq {gsi}: {'raised' if level else 'lowered'}")
        self._vm.irq_line(gsi, level)

    def add_irqfd(self, gsi: int, notifier: EventNotifier) -> None:
        """From now on the kernel turns a write to `notifier` into an edge."""
        self._vm.irqfd(notifier.fileno(), gsi)

    def del_irqfd(self, gsi: int, notifier: EventNotifier) -> None:
        """Ends what add_irqfd began."""
        self._vm.irqfd(notifier.fileno(), gsi, assign=False)

    def add_ioeventfd(
        self, addr: int, size: int, notifier: EventNotifier, datamatch: int | None, pio: bool
    ) -> bool:
        """A matching store sets `notifier` in the kernel, without an exit to us."""
        self._vm.ioeventfd(notifier.fileno(), addr, size, datamatch=datamatch, pio=pio)
        return True

    def del_ioeventfd(
        self, addr: int, size: int, notifier: EventNotifier, datamatch: int | None, pio: bool
    ) -> None:
        """Ends what add_ioeventfd began."""
        fd = notifier.fileno()
        self._vm.ioeventfd(fd, addr, size, datamatch=datamatch, pio=pio, assign=False)

    def reset(self) -> None:
        """PICs, IOAPIC and PIT as at power-on."""
        for chip in self._chips:
            self._vm.set_irqchip(chip)
        assert self._pit is not None
        self._vm.set_pit(self._pit)

    def close(self) -> None:
        """Closes processors, machine and device. Twice is harmless."""
        for raw in self._made:
            raw.close()
        self._vm.close()
        self._kvm.close()


class KvmVcpu:
    """One processor on KVM (CPUState with its kvm_run)."""

    def __init__(self, raw: RawVcpu, space: AddressSpace, big_lock: BigLock) -> None:
        self.index, self.detail = raw.index, ""
        self._raw, self._space, self._lock = raw, space, big_lock
        self._power_on = PowerOnState(raw)

    def prepare_thread(self) -> None:
        """Binds the vCPU to the running thread (KVM_SET_SIGNAL_MASK)."""
        self._raw.adopt_thread()

    def leave_thread(self) -> None:
        """The thread is about to end."""
        self._raw.leave_thread()

    def kick(self) -> None:
        """Ends the running or the next `run`; any thread."""
        self._raw.kick()

    def run(self) -> Stop:
        """Runs the guest; device accesses are served in between (kvm_cpu_exec).

        R3 holds because the loop is left only by a KVM_RUN that brought no access: it has
        completed the read before, if there was one, even when a kick ended it at once.
        """
        run, serve_mmio, serve_pio = self._raw.run, self._serve_mmio, self._serve_pio
        while True:
            reason = run()
            if reason == ioctls.KVM_EXIT_MMIO:
                serve_mmio()
            elif reason == ioctls.KVM_EXIT_IO:
                serve_pio()
            elif reason is None:
                self._raw.accept_kick()
                return Stop.KICKED
            elif reason != ioctls.KVM_EXIT_INTR:
                return self._end(reason)

    def _serve_mmio(self) -> None:
        addr, data, size, is_write = self._raw.exit_mmio()
        with self._lock:
            if is_write:
                self._space.mmio_write(addr, size, data & (1 << size * 8) - 1)
            else:
                self._raw.answer_mmio(self._space.mmio_read(addr, size))
        if debug.enabled:
            what = "write" if is_write else "read"
            debug.log("exits", f"cpu {self.index}: mmio {what} 0x{addr:x} {size} bytes")

    def _serve_pio(self) -> None:
        is_out, size, port, count, start = self._raw.exit_io()
        memory = self._raw.bytes
        with self._lock:
            for at in range(start, start + size * count, size):
                if is_out:
                    value = int.from_bytes(memory[at : at + size], "little")
                    self._space.pio_write(port, size, value)
                else:
                    value = self._space.pio_read(port, size)
                    memory[at : at + size] = value.to_bytes(size, "little")
        if debug.enabled:
            what = "out" if is_out else "in"
            debug.log("exits", f"cpu {self.index}: {what} 0x{port:x} {size} bytes x {count}")

    def _end(self, reason: int) -> Stop:
        if reason == ioctls.KVM_EXIT_SHUTDOWN:
            return Stop.SHUTDOWN
        if reason == ioctls.KVM_EXIT_DEBUG:
            return Stop.DEBUG
        if reason == ioctls.KVM_EXIT_SYSTEM_EVENT:
            reset = self._raw.shared.system_event.type == ioctls.KVM_SYSTEM_EVENT_RESET
            return Stop.RESET if reset else Stop.SHUTDOWN
        self.detail = self._describe(reason)
        return Stop.INTERNAL_ERROR

    def _describe(self, reason: int) -> str:
        shared = self._raw.shared
        name = ioctls.EXIT_NAMES.get(reason, f"KVM exit {reason}")
        if reason == ioctls.KVM_EXIT_FAIL_ENTRY:
            why = shared.fail_entry.hardware_entry_failure_reason
            return f"{name}: hardware entry failure reason 0x{why:x}"
        if reason != ioctls.KVM_EXIT_INTERNAL_ERROR:
            return name
        suberror = shared.internal.suberror
        text = f"{name}: suberror {suberror} ({SUBERRORS.get(suberror, 'unknown')})"
        failure = shared.emulation_failure
        flag = ioctls.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
        is_emulation = suberror == ioctls.KVM_INTERNAL_ERROR_EMULATION
        if is_emulation and failure.ndata and failure.flags & flag:
            text += f"; instruction {bytes(failure.insn_bytes[: failure.insn_size]).hex(' ')}"
        return text

    def registers(self) -> Registers:
        """A copy of the registers."""
        out, regs, sregs = Registers(), self._raw.regs(), self._raw.sregs()
        for name in GENERAL:
            setattr(out, name, getattr(regs, name))
        for name in SEGMENTS:
            setattr(out, name, from_kvm_segment(getattr(sregs, name)))
        for name in ("cr0", "cr2", "cr3", "cr4", "efer"):
            setattr(out, name, getattr(sregs, name))
        out.gdt_base, out.gdt_limit = sregs.gdt.base, sregs.gdt.limit
        out.idt_base, out.idt_limit = sregs.idt.base, sregs.idt.limit
        out.halted = self._raw.mp_state() == ioctls.KVM_MP_STATE_HALTED
        return out

    def translate(self, linear: int) -> int | None:
        """The physical address of a linear one, by the guest's page tables."""
        return self._raw.translate(linear)

    def load(self, registers: Registers) -> None:
        """Sets all registers (kvm_arch_put_registers)."""
        regs, sregs = self._raw.regs(), self._raw.sregs()
        for name in GENERAL:
            setattr(regs, name, getattr(registers, name))
        put_sregs(sregs, registers)
        self._raw.set_sregs(sregs)
        self._raw.set_regs(regs)

    def reset(self) -> None:
        """Power-on state again; others than vCPU 0 then wait for INIT and SIPI."""
        self._power_on.restore(self._raw)

    def close(self) -> None:
        """Closes the processor."""
        self._raw.close()


class PowerOnState:
    """Everything that KVM keeps of a vCPU, as it was when the vCPU was new."""

    def __init__(self, raw: RawVcpu) -> None:
        self.regs, self.sregs, self.fpu = raw.regs(), raw.sregs(), raw.fpu()
        self.msrs, self.lapic = raw.msrs(SAVED_MSRS), raw.lapic()
        self.events, self.debugregs = raw.events(), raw.debugregs()
        self.mp_state = raw.mp_state()

    def restore(self, raw: RawVcpu) -> None:
        """Puts it back. The APIC's base is in sregs, so it goes before the APIC."""
        raw.set_sregs(self.sregs)
        raw.set_lapic(self.lapic)
        raw.set_regs(self.regs)
        raw.set_fpu(self.fpu)
        raw.set_msrs(self.msrs)
        raw.set_debugregs(self.debugregs)
        raw.set_events(self.events)
        raw.set_mp_state(self.mp_state)


def from_kvm_segment(segment: kvm_segment) -> Segment:
    """KVM's form of a segment to ours (get_seg)."""
    flags = segment.type << 8 | segment.s << 12 | segment.dpl << 13 | segment.present << 15
    flags |= segment.avl << 20 | segment.l << 21 | segment.db << 22 | segment.g << 23
    return Segment(segment.selector, segment.base, segment.limit, flags)


def put_segment(out: kvm_segment, segment: Segment) -> None:
    """Our form of a segment to KVM's (set_seg)."""
    flags = segment.flags
    out.selector, out.base, out.limit = segment.selector, segment.base, segment.limit
    out.type, out.s, out.dpl = flags >> 8 & 15, flags >> 12 & 1, flags >> 13 & 3
    out.present, out.avl, out.l = flags >> 15 & 1, flags >> 20 & 1, flags >> 21 & 1
    out.db, out.g, out.unusable = flags >> 22 & 1, flags >> 23 & 1, not flags >> 15 & 1


def put_sregs(out: kvm_sregs, registers: Registers) -> None:
    """Segments, tables and control registers to KVM's form (kvm_put_sregs)."""
    for name in SEGMENTS:
        put_segment(getattr(out, name), getattr(registers, name))
    for name in ("cr0", "cr2", "cr3", "cr4", "efer"):
        setattr(out, name, getattr(registers, name))
    out.gdt.base, out.gdt.limit = registers.gdt_base, registers.gdt_limit
    out.idt.base, out.idt.limit = registers.idt_base, registers.idt_limit
