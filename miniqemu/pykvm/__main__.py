# SPDX-License-Identifier: GPL-2.0-only
"""`python -m miniqemu.pykvm`: the famous smallest guest adds 2 and 2 and says so.

Twelve bytes of real-mode code add BL to AL, make it a digit, write it and a newline to the
serial port, and halt. Every exit is printed with what it asks for. Without an irqchip HLT is
an exit too, so the program ends by itself.
"""

from __future__ import annotations

import mmap
import sys

from miniqemu.pykvm import Kvm, ioctls

CODE = bytes.fromhex(
    "ba f8 03"  # mov dx, 0x3f8
    "00 d8"  # add al, bl
    "04 30"  # add al, '0'
    "ee"  # out dx, al
    "b0 0a"  # mov al, '\n'
    "ee"  # out dx, al
    "f4"  # hlt
)


def main() -> int:
    """Runs the guest on /dev/kvm; 0 when it said 4."""
    with mmap.mmap(-1, 0x1000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[: len(CODE)] = CODE
        kvm = Kvm()
        vm = kvm.create_vm()
        vm.set_memory(0, 0x1000, memoryview(memory))
        vcpu = vm.create_vcpu(0)
        sregs = vcpu.sregs()
        sregs.cs.base = sregs.cs.selector = 0
        vcpu.set_sregs(sregs)
        regs = vcpu.regs()
        regs.rip, regs.rax, regs.rbx, regs.rflags = 0x1000, 2, 2, 2
        vcpu.set_regs(regs)
        said = b""
        while (reason := vcpu.run()) == ioctls.KVM_EXIT_IO:
            _, size, port, count, at = vcpu.exit_io()
            data = bytes(vcpu.bytes[at : at + size * count])
            print(f"KVM_EXIT_IO   out to port 0x{port:x}: {data!r}")
            said += data
        print(ioctls.EXIT_NAMES[reason or 0])
        for part in (vcpu, vm, kvm):
            part.close()
    return 0 if said == b"4\n" else 1


if __name__ == "__main__":
    sys.exit(main())
