# SPDX-License-Identifier: GPL-2.0-only
"""A virtual processor: run it, look at it, change it.

Rules:
R1  One thread runs it: KVM binds a vCPU to the thread of its first KVM_RUN and is slow after
    a change. `kick` is for any other thread.
R2  After `run` has returned None (interrupted) nothing in `kvm_run` may be read: exit_reason
    and the rest are those of the exit before.
R3  An exit for a port or MMIO read is finished by the next KVM_RUN, which takes the value from
    `kvm_run`: set registers only after `finish_io`.

The kick: `immediate_exit` is set, and a signal is sent to the thread. KVM_RUN looks at the
flag when it enters, and a signal makes it leave; so a kick is lost neither before nor inside
it. The signal is blocked in the thread except in KVM_RUN (KVM_SET_SIGNAL_MASK): no handler is
needed, and no other system call of the thread is ever interrupted.
"""

from __future__ import annotations

import mmap
import os
from _thread import get_ident
from fcntl import ioctl

from block.lean import Struct, signal
from miniqemu.pykvm import ioctls
from miniqemu.pykvm.cdata import sizeof
from miniqemu.pykvm.error import KvmError, kvm_ioctl
from miniqemu.pykvm.structs import (
    kvm_cpuid2,
    kvm_cpuid_entry2,
    kvm_debugregs,
    kvm_fpu,
    kvm_lapic_state,
    kvm_mp_state,
    kvm_msr_entry,
    kvm_msrs,
    kvm_regs,
    kvm_sregs,
    kvm_translation,
    kvm_vcpu_events,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import Structure
    from typing import TypeVar

    from miniqemu.pykvm.exits import kvm_run

    State = TypeVar("State", bound=Structure)

KICK_SIGNAL = signal.SIGUSR1
KERNEL_SIGSET_BYTES = 8
_RUN = ioctls.KVM_RUN
# Offsets in kvm_run (a test compares them with exits.py), and two of its structures.
IMMEDIATE_EXIT, EXIT_REASON, EXIT = 1, 8, 32
_IO = Struct("<BBHIQ")  # kvm_run_io
_MMIO = Struct("<QQIB")  # kvm_run_mmio
_MMIO_DATA = EXIT // 8 + 1
_EXIT_REASON = EXIT_REASON // 4


class Vcpu:
    """A virtual processor (the file descriptor that KVM_CREATE_VCPU returns)."""

    def __init__(self, fd: int, index: int, mmap_size: int) -> None:
        self.fd, self.index = fd, index
        self.page = mmap.mmap(fd, mmap_size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.bytes = memoryview(self.page)  # kvm_run
        self._words, self._quads = self.bytes.cast("I"), self.bytes.cast("Q")
        self._thread: int | None = None

    def run(self) -> int | None:
        """KVM_RUN: runs the guest until it needs us; KVM_EXIT_..., or None when interrupted.

        EINTR (a kick) and EAGAIN (INIT or SIPI has woken it) are None: look around, run again.
        EFAULT: the guest ran into memory that cannot be mapped; EINVAL: invalid state.
        The GIL is released meanwhile.
        """
        try:
            ioctl(self.fd, _RUN, 0)
        except (InterruptedError, BlockingIOError):
            return None
        except OSError as error:
            raise KvmError("KVM_RUN", error.errno or 0) from None
        return self._words[_EXIT_REASON]

    @property
    def shared(self) -> kvm_run:
        """kvm_run with its fields' names, for the exits that are rare; not to be kept."""
        from miniqemu.pykvm.exits import kvm_run

        return kvm_run.from_buffer(self.page)

    def exit_io(self) -> tuple[int, int, int, int, int]:
        """After KVM_EXIT_IO: direction, bytes an item, port, items, where they are in `bytes`."""
        return _IO.unpack_from(self.bytes, EXIT)

    def exit_mmio(self) -> tuple[int, int, int, int]:
        """After KVM_EXIT_MMIO: address, the 8 data bytes as a number, bytes, is it a write."""
        return _MMIO.unpack_from(self.bytes, EXIT)

    def answer_mmio(self, value: int) -> None:
        """Supplies what an MMIO read reads; the next KVM_RUN takes it (R3)."""
        self._quads[_MMIO_DATA] = value

    def adopt_thread(self) -> None:
        """Makes the running thread the one that runs it (R1), and lets kicks reach it.

        KVM_SET_SIGNAL_MASK: the thread's mask, without the kick signal, while in KVM_RUN.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {KICK_SIGNAL})
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set()) - {KICK_SIGNAL}
        mask = sum(1 << (number - 1) for number in blocked)
        argument = bytearray(KERNEL_SIGSET_BYTES.to_bytes(4, "little") + mask.to_bytes(8, "little"))
        kvm_ioctl(self.fd, "KVM_SET_SIGNAL_MASK", argument)
        self._thread = get_ident()

    def leave_thread(self) -> None:
        """The thread is about to end: no kick may be sent to it any more."""
        self._thread = None

    def kick(self) -> None:
        """Makes the running `run`, or the next, return None (R2); from any thread."""
        self.bytes[IMMEDIATE_EXIT] = 1
        thread = self._thread
        if thread is not None:
            signal.pthread_kill(thread, KICK_SIGNAL)

    def accept_kick(self) -> None:
        """Called by its thread after `run` returned None: the kick has been seen."""
        self.bytes[IMMEDIATE_EXIT] = 0
        signal.sigtimedwait({KICK_SIGNAL}, 0)

    def finish_io(self) -> None:
        """Lets KVM take the value of a port or MMIO read, without running the guest (R3)."""
        self.bytes[IMMEDIATE_EXIT] = 1
        self.run()
        self.bytes[IMMEDIATE_EXIT] = 0

    def regs(self) -> kvm_regs:
        """KVM_GET_REGS: the general registers, RIP and RFLAGS."""
        return self._get("KVM_GET_REGS", kvm_regs())

    def set_regs(self, regs: kvm_regs) -> None:
        """KVM_SET_REGS."""
        kvm_ioctl(self.fd, "KVM_SET_REGS", regs)

    def sregs(self) -> kvm_sregs:
        """KVM_GET_SREGS: segments, descriptor tables, control registers, EFER, APIC base."""
        return self._get("KVM_GET_SREGS", kvm_sregs())

    def set_sregs(self, sregs: kvm_sregs) -> None:
        """KVM_SET_SREGS. EINVAL: no processor can be in that state."""
        kvm_ioctl(self.fd, "KVM_SET_SREGS", sregs)

    def fpu(self) -> kvm_fpu:
        """KVM_GET_FPU: x87 and SSE registers."""
        return self._get("KVM_GET_FPU", kvm_fpu())

    def set_fpu(self, fpu: kvm_fpu) -> None:
        """KVM_SET_FPU."""
        kvm_ioctl(self.fd, "KVM_SET_FPU", fpu)

    def lapic(self) -> kvm_lapic_state:
        """KVM_GET_LAPIC: the local APIC's registers. EINVAL: there is no irqchip."""
        return self._get("KVM_GET_LAPIC", kvm_lapic_state())

    def set_lapic(self, lapic: kvm_lapic_state) -> None:
        """KVM_SET_LAPIC."""
        kvm_ioctl(self.fd, "KVM_SET_LAPIC", lapic)

    def mp_state(self) -> int:
        """KVM_GET_MP_STATE: KVM_MP_STATE_...: runnable, halted, waiting for INIT or SIPI."""
        return int(self._get("KVM_GET_MP_STATE", kvm_mp_state()).mp_state)

    def set_mp_state(self, state: int) -> None:
        """KVM_SET_MP_STATE."""
        kvm_ioctl(self.fd, "KVM_SET_MP_STATE", kvm_mp_state(state))

    def events(self) -> kvm_vcpu_events:
        """KVM_GET_VCPU_EVENTS: exceptions, interrupts and NMIs that wait to be delivered."""
        return self._get("KVM_GET_VCPU_EVENTS", kvm_vcpu_events())

    def set_events(self, events: kvm_vcpu_events) -> None:
        """KVM_SET_VCPU_EVENTS."""
        kvm_ioctl(self.fd, "KVM_SET_VCPU_EVENTS", events)

    def debugregs(self) -> kvm_debugregs:
        """KVM_GET_DEBUGREGS: DR0-DR3, DR6, DR7 of the guest."""
        return self._get("KVM_GET_DEBUGREGS", kvm_debugregs())

    def set_debugregs(self, debugregs: kvm_debugregs) -> None:
        """KVM_SET_DEBUGREGS."""
        kvm_ioctl(self.fd, "KVM_SET_DEBUGREGS", debugregs)

    def translate(self, linear: int) -> int | None:
        """KVM_TRANSLATE: the physical address of a linear one, by the guest's page tables."""
        answer = kvm_translation(linear)
        kvm_ioctl(self.fd, "KVM_TRANSLATE", answer)
        return int(answer.physical_address) if answer.valid else None

    def msrs(self, indices: tuple[int, ...]) -> dict[int, int]:
        """KVM_GET_MSRS: model-specific registers; those that KVM does not know are left out."""
        found: dict[int, int] = {}
        rest = indices
        while rest:
            buffer = bytearray(kvm_msrs(len(rest)))
            buffer += b"".join(bytes(kvm_msr_entry(index)) for index in rest)
            n = kvm_ioctl(self.fd, "KVM_GET_MSRS", buffer)
            entries = (kvm_msr_entry * n).from_buffer(buffer, sizeof(kvm_msrs))
            found |= {entry.index: entry.data for entry in entries}
            rest = rest[n + 1 :]  # KVM ended before the first that it does not know
        return found

    def set_msrs(self, values: dict[int, int]) -> int:
        """KVM_SET_MSRS: returns how many were accepted, in order."""
        entries = b"".join(bytes(kvm_msr_entry(i, 0, value)) for i, value in values.items())
        buffer = bytearray(kvm_msrs(len(values))) + bytearray(entries)
        return kvm_ioctl(self.fd, "KVM_SET_MSRS", buffer)

    def set_cpuid(self, entries: list[kvm_cpuid_entry2]) -> None:
        """KVM_SET_CPUID2: what CPUID answers. E2BIG; EINVAL: after the first KVM_RUN."""
        body = b"".join(bytes(entry) for entry in entries)
        kvm_ioctl(self.fd, "KVM_SET_CPUID2", bytearray(kvm_cpuid2(len(entries))) + bytearray(body))

    def close(self) -> None:
        """Unmaps the shared page and closes the processor."""
        if self.fd >= 0:
            self._words.release()
            self._quads.release()
            self.bytes.release()
            self.page.close()
            os.close(self.fd)
            self.fd = -1

    def _get(self, name: str, structure: State) -> State:
        kvm_ioctl(self.fd, name, structure)
        return structure
