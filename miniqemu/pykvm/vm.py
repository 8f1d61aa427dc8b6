# SPDX-License-Identifier: GPL-2.0-only
"""A virtual machine: its memory slots, interrupt controllers, timers, doorbells and vCPUs.

Who may call it: any thread; KVM itself serialises what changes the machine. `irq_line` and
the binding of irqfds and ioeventfds work while vCPUs run.

What once went wrong here: `fcntl.ioctl` takes its integer argument as a C int, so that
KVM_SET_TSS_ADDR with 0xfffbd000 overflows. It goes through libc's ioctl instead.
"""

from __future__ import annotations

import os

from miniqemu.pykvm import ioctls
from miniqemu.pykvm.cdata import addressof, c_char, ioctl_unsigned
from miniqemu.pykvm.error import KvmError, kvm_ioctl
from miniqemu.pykvm.structs import (
    kvm_ioeventfd,
    kvm_irq_level,
    kvm_irqchip,
    kvm_irqfd,
    kvm_pit_config,
    kvm_pit_state2,
    kvm_userspace_memory_region,
)
from miniqemu.pykvm.vcpu import Vcpu


class Vm:
    """A virtual machine (the file descriptor that KVM_CREATE_VM returns)."""

    def __init__(self, fd: int, vcpu_mmap_size: int) -> None:
        self.fd = fd
        self._mmap_size = vcpu_mmap_size

    def check_extension(self, capability: int) -> int:
        """KVM_CHECK_EXTENSION on the machine: limits may differ from the device's."""
        return kvm_ioctl(self.fd, "KVM_CHECK_EXTENSION", capability)

    def set_memory(self, slot: int, gpa: int, memory: memoryview | None, flags: int = 0) -> None:
        """KVM_SET_USER_MEMORY_REGION: the guest sees `memory` at `gpa`; None deletes the slot.

        `memory` is writable and page-aligned (a view of an mmap), and must outlive the slot.
        EINVAL: not aligned; EEXIST: overlaps another slot; EFAULT: not this process's memory.
        """
        size = len(memory) if memory is not None else 0
        address = addressof(c_char.from_buffer(memory)) if memory is not None else 0
        region = kvm_userspace_memory_region(slot, flags, gpa, size, address)
        kvm_ioctl(self.fd, "KVM_SET_USER_MEMORY_REGION", region)

    def create_vcpu(self, index: int) -> Vcpu:
        """KVM_CREATE_VCPU: `index` is its local APIC's id. EEXIST, EINVAL (over the limit)."""
        return Vcpu(kvm_ioctl(self.fd, "KVM_CREATE_VCPU", index), index, self._mmap_size)

    def set_tss_addr(self, gpa: int) -> None:
        """KVM_SET_TSS_ADDR: three pages below 4 GiB that Intel's KVM keeps for real mode."""
        error = ioctl_unsigned(self.fd, ioctls.KVM_SET_TSS_ADDR, gpa)
        if error:
            raise KvmError("KVM_SET_TSS_ADDR", error)

    def set_identity_map_addr(self, gpa: int) -> None:
        """KVM_SET_IDENTITY_MAP_ADDR: the page before the TSS, before any vCPU (EINVAL after)."""
        kvm_ioctl(self.fd, "KVM_SET_IDENTITY_MAP_ADDR", bytearray(gpa.to_bytes(8, "little")))

    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP: two PICs, an IOAPIC, and a local APIC for each vCPU to come.
        EEXIST: there is one; EINVAL: a vCPU exists already.
        """
        kvm_ioctl(self.fd, "KVM_CREATE_IRQCHIP")

    def create_pit(self, flags: int = ioctls.KVM_PIT_SPEAKER_DUMMY) -> None:
        """KVM_CREATE_PIT2: the i8254 at ports 0x40-0x43 (and 0x61). EEXIST: there is one."""
        kvm_ioctl(self.fd, "KVM_CREATE_PIT2", kvm_pit_config(flags))

    def irq_line(self, gsi: int, level: bool) -> None:
        """KVM_IRQ_LINE: drives a pin of PIC and IOAPIC. ENXIO: there is no irqchip."""
        kvm_ioctl(self.fd, "KVM_IRQ_LINE", kvm_irq_level(gsi, int(level)))

    def irqfd(self, eventfd: int, gsi: int, *, assign: bool = True) -> None:
        """KVM_IRQFD: a write to the eventfd is an edge on the pin. EBUSY: bound already."""
        flags = 0 if assign else ioctls.KVM_IRQFD_FLAG_DEASSIGN
        kvm_ioctl(self.fd, "KVM_IRQFD", kvm_irqfd(eventfd, gsi, flags))

    def ioeventfd(
        self,
        eventfd: int,
        addr: int,
        size: int,
        *,
        datamatch: int | None = None,
        pio: bool = False,
        assign: bool = True,
    ) -> None:
        """KVM_IOEVENTFD: a store of `size` bytes (0: any) at `addr` writes to the eventfd and
        causes no exit. EEXIST: taken; ENOENT: nothing to deassign; ENOSPC: too many.
        """
        flags = 0 if datamatch is None else ioctls.KVM_IOEVENTFD_FLAG_DATAMATCH
        flags |= ioctls.KVM_IOEVENTFD_FLAG_PIO if pio else 0
        flags |= 0 if assign else ioctls.KVM_IOEVENTFD_FLAG_DEASSIGN
        binding = kvm_ioeventfd(datamatch or 0, addr, size, eventfd, flags)
        kvm_ioctl(self.fd, "KVM_IOEVENTFD", binding)

    def irqchip(self, chip: int) -> kvm_irqchip:
        """KVM_GET_IRQCHIP: the state of a PIC (0, 1) or the IOAPIC (2)."""
        state = kvm_irqchip(chip)
        kvm_ioctl(self.fd, "KVM_GET_IRQCHIP", state)
        return state

    def set_irqchip(self, state: kvm_irqchip) -> None:
        """KVM_SET_IRQCHIP: puts a state of `irqchip()` back."""
        kvm_ioctl(self.fd, "KVM_SET_IRQCHIP", state)

    def pit(self) -> kvm_pit_state2:
        """KVM_GET_PIT2: the timer's three channels."""
        state = kvm_pit_state2()
        kvm_ioctl(self.fd, "KVM_GET_PIT2", state)
        return state

    def set_pit(self, state: kvm_pit_state2) -> None:
        """KVM_SET_PIT2: puts a state of `pit()` back, and starts it anew."""
        kvm_ioctl(self.fd, "KVM_SET_PIT2", state)

    def close(self) -> None:
        """Closes the machine; the kernel keeps it until the vCPUs are closed too."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
