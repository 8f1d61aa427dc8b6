# SPDX-License-Identifier: GPL-2.0-only
"""What CPUID tells the guest: the host's answers, made true for each vCPU and CPU model.

KVM says what it can virtualise; two things in it are the host's and must become the
vCPU's: its APIC id (leaves 1, 0xb, 0x1f, 0x8000001e) and how many there are. A model
(`-cpu`) then takes features away; it never adds one. Source: target/i386/cpu.c.
"""

from __future__ import annotations

from miniqemu.pykvm.structs import kvm_cpuid_entry2

HYPERVISOR = 1 << 31  # leaf 1, ECX: "you are a guest"
TSC_DEADLINE = 1 << 24  # leaf 1, ECX: the in-kernel local APIC has it

# Feature words, as (leaf, register): the bits that the model has. None: all that KVM has.
PPRO = 0x0387_FBFD | 0x0008_0000 | 0x0002_0000  # FPU..SSE2 of QEMU's PPRO, CLFLUSH, PSE36
QEMU64 = {
    (1, "edx"): PPRO,
    (1, "ecx"): 0x0000_2001 | HYPERVISOR | 1 << 21 | TSC_DEADLINE,  # SSE3, CX16, x2APIC
    (7, "ebx"): 0,
    (7, "ecx"): 0,
    (7, "edx"): 0,
    (0x8000_0001, "edx"): 0x2010_0800 | PPRO & 0x0183_F3FF,  # LM, NX, SYSCALL
    (0x8000_0001, "ecx"): 0x0000_0001,  # LAHF_LM
}
MODELS: dict[str, dict[tuple[int, str], int] | None] = {
    "host": None,
    "max": None,
    "qemu64": QEMU64,
    "kvm64": QEMU64,
}


def for_vcpu(
    supported: list[kvm_cpuid_entry2], index: int, count: int, model: str
) -> list[kvm_cpuid_entry2]:
    """The CPUID table of vCPU `index` of `count` (kvm_x86_vcpu_init's cpuid_data)."""
    entries = [kvm_cpuid_entry2.from_buffer_copy(entry) for entry in supported]
    mask = MODELS[model]
    for entry in entries:
        _set_identity(entry, index, count)
        for register in ("ebx", "ecx", "edx") if mask is not None else ():
            kept = mask.get((entry.function, register)) if mask is not None else None
            if kept is not None:
                setattr(entry, register, getattr(entry, register) & kept)
    return entries


def _set_identity(entry: kvm_cpuid_entry2, index: int, count: int) -> None:
    if entry.function == 1:
        entry.ebx = entry.ebx & 0x0000_FFFF | count << 16 | index << 24
        entry.ecx |= HYPERVISOR | TSC_DEADLINE
    elif entry.function in (0xB, 0x1F):
        entry.edx = index
    elif entry.function == 0x8000_001E:
        entry.eax = index
