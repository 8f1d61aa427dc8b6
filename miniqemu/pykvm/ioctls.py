# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of KVM's ioctls, computed as <asm-generic/ioctl.h> does, and its constants.

A number is: direction (2 bits), size of the argument (14), type (8), sequence (8). So a
structure of the wrong size is another ioctl, and the kernel answers ENOTTY.
"""

from __future__ import annotations

from miniqemu.pykvm import structs
from miniqemu.pykvm.cdata import Structure, sizeof

KVMIO = 0xAE
_NONE, _WRITE, _READ = 0, 1, 2


def _ioc(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | KVMIO << 8 | number


def _IO(number: int) -> int:
    return _ioc(_NONE, number, 0)


def _IOW(number: int, argument: type[Structure] | int) -> int:
    return _ioc(_WRITE, number, argument if isinstance(argument, int) else sizeof(argument))


def _IOR(number: int, argument: type[Structure]) -> int:
    return _ioc(_READ, number, sizeof(argument))


def _IOWR(number: int, argument: type[Structure]) -> int:
    return _ioc(_READ | _WRITE, number, sizeof(argument))


# /dev/kvm
KVM_GET_API_VERSION = _IO(0x00)
KVM_CREATE_VM = _IO(0x01)
KVM_CHECK_EXTENSION = _IO(0x03)
KVM_GET_VCPU_MMAP_SIZE = _IO(0x04)
KVM_GET_SUPPORTED_CPUID = _IOWR(0x05, structs.kvm_cpuid2)

# a virtual machine
KVM_CREATE_VCPU = _IO(0x41)
KVM_SET_USER_MEMORY_REGION = _IOW(0x46, structs.kvm_userspace_memory_region)
KVM_SET_TSS_ADDR = _IO(0x47)
KVM_SET_IDENTITY_MAP_ADDR = _IOW(0x48, 8)
KVM_CREATE_IRQCHIP = _IO(0x60)
KVM_IRQ_LINE = _IOW(0x61, structs.kvm_irq_level)
KVM_GET_IRQCHIP = _IOWR(0x62, structs.kvm_irqchip)
KVM_SET_IRQCHIP = _IOR(0x63, structs.kvm_irqchip)
KVM_IRQFD = _IOW(0x76, structs.kvm_irqfd)
KVM_CREATE_PIT2 = _IOW(0x77, structs.kvm_pit_config)
KVM_IOEVENTFD = _IOW(0x79, structs.kvm_ioeventfd)
KVM_GET_PIT2 = _IOR(0x9F, structs.kvm_pit_state2)
KVM_SET_PIT2 = _IOW(0xA0, structs.kvm_pit_state2)

# a virtual processor
KVM_RUN = _IO(0x80)
KVM_GET_REGS = _IOR(0x81, structs.kvm_regs)
KVM_SET_REGS = _IOW(0x82, structs.kvm_regs)
KVM_GET_SREGS = _IOR(0x83, structs.kvm_sregs)
KVM_SET_SREGS = _IOW(0x84, structs.kvm_sregs)
KVM_TRANSLATE = _IOWR(0x85, structs.kvm_translation)
KVM_GET_MSRS = _IOWR(0x88, structs.kvm_msrs)
KVM_SET_MSRS = _IOW(0x89, structs.kvm_msrs)
KVM_SET_SIGNAL_MASK = _IOW(0x8B, structs.kvm_signal_mask)
KVM_GET_FPU = _IOR(0x8C, structs.kvm_fpu)
KVM_SET_FPU = _IOW(0x8D, structs.kvm_fpu)
KVM_GET_LAPIC = _IOR(0x8E, structs.kvm_lapic_state)
KVM_SET_LAPIC = _IOW(0x8F, structs.kvm_lapic_state)
KVM_SET_CPUID2 = _IOW(0x90, structs.kvm_cpuid2)
KVM_GET_MP_STATE = _IOR(0x98, structs.kvm_mp_state)
KVM_SET_MP_STATE = _IOW(0x99, structs.kvm_mp_state)
KVM_GET_VCPU_EVENTS = _IOR(0x9F, structs.kvm_vcpu_events)
KVM_SET_VCPU_EVENTS = _IOW(0xA0, structs.kvm_vcpu_events)
KVM_GET_DEBUGREGS = _IOR(0xA1, structs.kvm_debugregs)
KVM_SET_DEBUGREGS = _IOW(0xA2, structs.kvm_debugregs)

IOCTL_NAMES = {
    name: number
    for name, number in globals().items()
    if name.startswith("KVM_") and isinstance(number, int)
}

# KVM_CHECK_EXTENSION
KVM_CAP_IRQCHIP = 0
KVM_CAP_USER_MEMORY = 3
KVM_CAP_EXT_CPUID = 7
KVM_CAP_NR_VCPUS = 9
KVM_CAP_MP_STATE = 14
KVM_CAP_IRQFD = 32
KVM_CAP_PIT2 = 33
KVM_CAP_IOEVENTFD = 36
KVM_CAP_VCPU_EVENTS = 41
KVM_CAP_MAX_VCPUS = 66
KVM_CAP_IMMEDIATE_EXIT = 136

# kvm_run.exit_reason
KVM_EXIT_UNKNOWN = 0
KVM_EXIT_EXCEPTION = 1
KVM_EXIT_IO = 2
KVM_EXIT_HYPERCALL = 3
KVM_EXIT_DEBUG = 4
KVM_EXIT_HLT = 5
KVM_EXIT_MMIO = 6
KVM_EXIT_IRQ_WINDOW_OPEN = 7
KVM_EXIT_SHUTDOWN = 8
KVM_EXIT_FAIL_ENTRY = 9
KVM_EXIT_INTR = 10
KVM_EXIT_INTERNAL_ERROR = 17
KVM_EXIT_SYSTEM_EVENT = 24

EXIT_NAMES = {
    number: name
    for name, number in globals().items()
    if name.startswith("KVM_EXIT_") and isinstance(number, int)
}

KVM_EXIT_IO_IN = 0
KVM_EXIT_IO_OUT = 1

# kvm_run.internal.suberror
KVM_INTERNAL_ERROR_EMULATION = 1
KVM_INTERNAL_ERROR_SIMUL_EX = 2
KVM_INTERNAL_ERROR_DELIVERY_EV = 3
KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON = 4
KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES = 1

# kvm_run.system_event.type
KVM_SYSTEM_EVENT_SHUTDOWN = 1
KVM_SYSTEM_EVENT_RESET = 2
KVM_SYSTEM_EVENT_CRASH = 3

# kvm_irqfd.flags, kvm_ioeventfd.flags
KVM_IRQFD_FLAG_DEASSIGN = 1
KVM_IOEVENTFD_FLAG_DATAMATCH = 1
KVM_IOEVENTFD_FLAG_PIO = 2
KVM_IOEVENTFD_FLAG_DEASSIGN = 4

KVM_PIT_SPEAKER_DUMMY = 1
KVM_IRQCHIP_PIC_MASTER = 0
KVM_IRQCHIP_PIC_SLAVE = 1
KVM_IRQCHIP_IOAPIC = 2

# kvm_mp_state.mp_state
KVM_MP_STATE_RUNNABLE = 0
KVM_MP_STATE_UNINITIALIZED = 1
KVM_MP_STATE_INIT_RECEIVED = 2
KVM_MP_STATE_HALTED = 3
KVM_MP_STATE_SIPI_RECEIVED = 4
