# SPDX-License-Identifier: GPL-2.0-only
"""/dev/kvm in Python: ioctl numbers, structures, and Kvm -> Vm -> Vcpu.

    kvm = Kvm()                      # opens /dev/kvm
    vm = kvm.create_vm()             # an empty machine
    vm.set_memory(0, 0x1000, memory) # RAM: a writable buffer of this process
    vcpu = vm.create_vcpu(0)         # a processor in its power-on state
    vcpu.run()                       # until it needs us: returns KVM_EXIT_...

Nothing else in the project calls an ioctl on KVM. Each file descriptor has its class, each
ioctl its method, whose docstring names it and the errors that it is known to return.
`python -m miniqemu.pykvm` is the ten-line demonstration.

    kvm, vm, vcpu           the three classes
    ioctls, structs, exits  numbers, structures, and the page that tells of an exit
    cdata, error            ctypes at a fifth of its price; how an ioctl fails

Source: <linux/kvm.h>, <asm/kvm.h>, Documentation/virt/kvm/api.rst of Linux.
"""

from miniqemu.pykvm.error import KvmError
from miniqemu.pykvm.kvm import Kvm
from miniqemu.pykvm.vcpu import Vcpu
from miniqemu.pykvm.vm import Vm

__all__ = ["Kvm", "KvmError", "Vcpu", "Vm"]
