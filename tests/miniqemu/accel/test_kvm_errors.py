# SPDX-License-Identifier: GPL-2.0-only
"""What a person reads when KVM cannot be used: one line, the option, the cause, the remedy."""

from __future__ import annotations

import errno
import os

import pytest

from miniqemu.accel import cpuid
from miniqemu.accel.base import AccelError
from miniqemu.accel.kvm import REMEDIES, KvmAccel, open_error
from miniqemu.pykvm import KvmError
from miniqemu.pykvm.structs import kvm_cpuid_entry2
from tests.support import needs


def test_a_missing_device_is_told_with_the_command_that_mends_it() -> None:
    with pytest.raises(AccelError) as caught:
        KvmAccel(path="/dev/no-such-kvm")
    assert str(caught.value) == (
        "-accel kvm: /dev/no-such-kvm: No such file or directory: load it with "
        "`sudo modprobe kvm_intel` or `sudo modprobe kvm_amd` "
        "(in a container: `docker run --device /dev/kvm`)"
    )


def test_no_permission_is_told_with_the_command_that_mends_it() -> None:
    error = open_error("/dev/kvm", PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    assert str(error) == (
        "-accel kvm: /dev/kvm: Permission denied: join its group with "
        "`sudo usermod -aG kvm $USER`, then log in again"
    )


def test_a_device_that_may_not_be_opened_is_refused_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr("miniqemu.pykvm.kvm.os.open", refuse)
    with pytest.raises(AccelError, match=r"Permission denied: .*usermod -aG kvm"):
        KvmAccel()


@pytest.mark.parametrize("number", sorted(REMEDIES))
def test_each_known_cause_has_one_line_with_a_command(number: int) -> None:
    text = str(open_error("/dev/kvm", OSError(number, os.strerror(number))))
    assert text.startswith("-accel kvm: /dev/kvm: ")
    assert "\n" not in text
    assert text.count("`") >= 2


def test_a_failing_ioctl_is_named() -> None:
    text = str(open_error("/dev/kvm", KvmError("KVM_CREATE_VM", errno.ENOMEM)))
    assert text == "-accel kvm: KVM_CREATE_VM: Cannot allocate memory"
    with pytest.raises(AccelError, match=r"^-accel kvm: KVM_GET_API_VERSION: "):
        KvmAccel(path="/dev/null")


def test_more_processors_than_kvm_has_is_told_with_the_limit() -> None:
    needs.kvm()
    with pytest.raises(AccelError, match=r"^-smp 100000: KVM on this machine has at most \d+ vCPU"):
        KvmAccel(100_000)


def entry(function: int, **registers: int) -> kvm_cpuid_entry2:
    return kvm_cpuid_entry2(function=function, **registers)


def test_a_model_takes_features_away_and_never_adds_one() -> None:
    host = [entry(1, ecx=0x0000_0001, edx=1), entry(7, ebx=0xFFFF_FFFF)]
    one, seven = cpuid.for_vcpu(host, 0, 1, "qemu64")
    assert one.ecx & 0xFFFF == 1, "SSE3, but not CX16, which the host has not"
    assert one.edx == 1
    assert seven.ebx == 0
    assert host[1].ebx == 0xFFFF_FFFF, "the host's own table is not touched"


def test_the_topology_leaves_have_the_vcpus_own_id() -> None:
    host = [entry(0xB, edx=77), entry(0x8000_001E, eax=77), entry(0x1F, edx=77)]
    b, e, f = cpuid.for_vcpu(host, 5, 8, "host")
    assert (b.edx, e.eax, f.edx) == (5, 5, 5)
