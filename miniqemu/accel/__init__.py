# SPDX-License-Identifier: GPL-2.0-only
"""What runs the guest's instructions.

    base                    the interface
    kvm                     the processor itself (pykvm makes the system calls)
    tcg, tcg_cpu            translated: the accelerator, and one of its processors
    libunicorn              the library that translates
    fault_state, x86_events, x86_rom    what it leaves to us: error codes, interrupts and
                            exceptions, real mode
    alarm, cpuid            the clock of the interrupt controllers; what CPUID says
"""
