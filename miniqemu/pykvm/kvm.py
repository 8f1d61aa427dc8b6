# SPDX-License-Identifier: GPL-2.0-only
"""The device itself: what this kernel's KVM can do, and new virtual machines.

Who may call it: any thread.
"""

from __future__ import annotations

import errno
import os

from miniqemu.pykvm.cdata import sizeof
from miniqemu.pykvm.error import KvmError, kvm_ioctl
from miniqemu.pykvm.structs import kvm_cpuid2, kvm_cpuid_entry2
from miniqemu.pykvm.vm import Vm

API_VERSION = 12
MAX_CPUID_ENTRIES = 256


class Kvm:
    """/dev/kvm, opened."""

    def __init__(self, path: str = "/dev/kvm") -> None:
        """Opens the device. OSError: ENOENT no such device, EACCES no permission,
        ENODEV/ENXIO there is no virtualisation below it.
        """
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            version = self.api_version()
            if version != API_VERSION:
                raise KvmError("KVM_GET_API_VERSION", errno.ENOSYS, f"{version}, not 12")
            self.mmap_size = kvm_ioctl(self.fd, "KVM_GET_VCPU_MMAP_SIZE")
        except BaseException:
            self.close()
            raise

    def api_version(self) -> int:
        """KVM_GET_API_VERSION: 12 since 2007. ENOTTY: this is not /dev/kvm."""
        return kvm_ioctl(self.fd, "KVM_GET_API_VERSION")

    def check_extension(self, capability: int) -> int:
        """KVM_CHECK_EXTENSION: 0 when the capability is missing, else 1 or a limit."""
        return kvm_ioctl(self.fd, "KVM_CHECK_EXTENSION", capability)

    def supported_cpuid(self) -> list[kvm_cpuid_entry2]:
        """KVM_GET_SUPPORTED_CPUID: what CPUID may tell a guest. E2BIG: more than 256 entries."""
        head, entry = sizeof(kvm_cpuid2), sizeof(kvm_cpuid_entry2)
        buffer = bytearray(head + MAX_CPUID_ENTRIES * entry)
        kvm_cpuid2.from_buffer(buffer).nent = MAX_CPUID_ENTRIES
        kvm_ioctl(self.fd, "KVM_GET_SUPPORTED_CPUID", buffer)
        count = kvm_cpuid2.from_buffer(buffer).nent
        return [kvm_cpuid_entry2.from_buffer_copy(buffer, head + i * entry) for i in range(count)]

    def create_vm(self) -> Vm:
        """KVM_CREATE_VM: a machine without memory and processors. ENOMEM, EBUSY (another
        hypervisor has the processor's extension), EINTR (retried).
        """
        while True:
            try:
                return Vm(kvm_ioctl(self.fd, "KVM_CREATE_VM", 0), self.mmap_size)
            except InterruptedError:
                continue

    def close(self) -> None:
        """Closes the device; machines made from it live on."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
