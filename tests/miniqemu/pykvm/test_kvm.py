# SPDX-License-Identifier: GPL-2.0-only
"""pykvm on the real /dev/kvm: run, kick, and the errors with their names."""

from __future__ import annotations

import errno
import mmap
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from miniqemu.pykvm import Kvm, KvmError, Vcpu, Vm, ioctls
from tests.support import needs

PAGE = 4096


class Tiny:
    """A machine of one page at 0x1000 in real mode."""

    def __init__(self, code: bytes) -> None:
        self.kvm = Kvm()
        self.vm = self.kvm.create_vm()
        self.memory = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory[: len(code)] = code
        self.view = memoryview(self.memory)
        self.vm.set_memory(0, 0x1000, self.view)
        self.vcpu = self.vm.create_vcpu(0)
        sregs, regs = self.vcpu.sregs(), self.vcpu.regs()
        sregs.cs.base = sregs.cs.selector = 0
        regs.rip, regs.rflags = 0x1000, 2
        self.vcpu.set_sregs(sregs)
        self.vcpu.set_regs(regs)

    def close(self) -> None:
        for part in (self.vcpu, self.vm, self.kvm):
            part.close()
        self.view.release()
        self.memory.close()


@pytest.fixture
def boot() -> Iterator[type[Tiny]]:
    needs.kvm()
    made: list[Tiny] = []

    class Kept(Tiny):
        def __init__(self, code: bytes) -> None:
            super().__init__(code)
            made.append(self)

    yield Kept
    for machine in made:
        machine.close()


def test_the_demonstration_adds_two_and_two() -> None:
    needs.kvm()
    done = subprocess.run(
        [sys.executable, "-m", "miniqemu.pykvm"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "KVM_EXIT_IO   out to port 0x3f8: b'4'",
        "KVM_EXIT_IO   out to port 0x3f8: b'\\n'",
        "KVM_EXIT_HLT",
    ]


def test_a_port_read_takes_the_value_that_was_put_into_the_shared_page(boot: type[Tiny]) -> None:
    vcpu = boot(bytes.fromhex("e4 10  f4")).vcpu  # in al, 0x10; hlt
    assert vcpu.run() == ioctls.KVM_EXIT_IO
    direction, size, port, count, at = vcpu.exit_io()
    assert (direction, size, port, count) == (ioctls.KVM_EXIT_IO_IN, 1, 0x10, 1)
    vcpu.bytes[at] = 0x5A
    assert vcpu.run() == ioctls.KVM_EXIT_HLT
    assert vcpu.regs().rax & 0xFF == 0x5A


def test_finish_io_completes_a_port_read_and_runs_nothing_more(boot: type[Tiny]) -> None:
    vcpu = boot(bytes.fromhex("e4 10  40 f4")).vcpu  # in al, 0x10; inc ax; hlt
    vcpu.run()
    vcpu.bytes[vcpu.exit_io()[4]] = 7
    vcpu.finish_io()
    regs = vcpu.regs()
    assert (regs.rax & 0xFF, regs.rip) == (7, 0x1002)
    assert vcpu.run() == ioctls.KVM_EXIT_HLT
    assert vcpu.regs().rax & 0xFF == 8


def test_an_mmio_write_and_read_arrive_with_address_and_size(boot: type[Tiny]) -> None:
    code = bytes.fromhex("c6 06 00 30 77  a1 02 30  f4")  # mov byte [0x3000], 0x77; mov ax, ...
    vcpu = boot(code).vcpu
    assert vcpu.run() == ioctls.KVM_EXIT_MMIO
    addr, data, size, is_write = vcpu.exit_mmio()
    assert (addr, data & 0xFF, size, is_write) == (0x3000, 0x77, 1, 1)
    assert vcpu.run() == ioctls.KVM_EXIT_MMIO
    addr, _, size, is_write = vcpu.exit_mmio()
    assert (addr, size, is_write) == (0x3002, 2, 0)
    vcpu.answer_mmio(0xBEEF)
    assert vcpu.run() == ioctls.KVM_EXIT_HLT
    assert vcpu.regs().rax & 0xFFFF == 0xBEEF


def run_in_thread(vcpu: Vcpu, ready: threading.Event, results: list[int | None]) -> None:
    vcpu.adopt_thread()
    ready.set()
    results.append(vcpu.run())
    vcpu.accept_kick()
    vcpu.leave_thread()


@pytest.mark.parametrize("when", ["before it runs", "around its start"])
def test_a_kick_is_not_lost(boot: type[Tiny], when: str) -> None:
    vcpu = boot(bytes.fromhex("eb fe")).vcpu  # jmp to itself
    ready, results = threading.Event(), list[int | None]()
    thread = threading.Thread(target=run_in_thread, args=(vcpu, ready, results))
    if when == "before it runs":
        vcpu.kick()
        thread.start()
    else:
        thread.start()
        assert ready.wait(10)
        vcpu.kick()
    thread.join(10)
    assert results == [None]


def test_many_kicks_end_many_runs_and_none_comes_too_much(boot: type[Tiny]) -> None:
    vcpu = boot(bytes.fromhex("eb fe")).vcpu
    turns = 200
    go, done = threading.Semaphore(0), threading.Semaphore(0)
    seen: list[int | None] = []

    def loop() -> None:
        vcpu.adopt_thread()
        for _ in range(turns):
            go.release()
            seen.append(vcpu.run())
            vcpu.accept_kick()
            done.release()
        vcpu.leave_thread()

    thread = threading.Thread(target=loop)
    thread.start()
    for _ in range(turns):
        assert go.acquire(timeout=10)
        vcpu.kick()
        assert done.acquire(timeout=10)
    thread.join(10)
    assert seen == [None] * turns


def test_a_failed_ioctl_is_named_in_the_error(boot: type[Tiny]) -> None:
    machine = boot(b"\xf4")
    with pytest.raises(KvmError, match=r"^KVM_CREATE_VCPU: File exists$") as caught:
        machine.vm.create_vcpu(0)
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(KvmError, match=r"^KVM_IRQ_LINE: "):
        machine.vm.irq_line(4, True)


def test_overlapping_memory_slots_are_refused(boot: type[Tiny]) -> None:
    machine = boot(b"\xf4")
    with pytest.raises(KvmError, match=r"^KVM_SET_USER_MEMORY_REGION: "):
        machine.vm.set_memory(1, 0x1000, machine.view)


def test_a_memory_slot_can_be_deleted(boot: type[Tiny]) -> None:
    machine = boot(b"\xf4")
    machine.vm.set_memory(0, 0x1000, None)
    machine.vm.set_memory(1, 0x1000, machine.view)
    assert machine.vcpu.run() == ioctls.KVM_EXIT_HLT


def test_a_file_that_is_not_kvm_is_refused_by_its_api_version() -> None:
    with pytest.raises(OSError, match="KVM_GET_API_VERSION"):
        Kvm("/dev/null")


def full_vm(kvm: Kvm) -> Vm:
    vm = kvm.create_vm()
    vm.set_identity_map_addr(0xFEFF_C000)
    vm.set_tss_addr(0xFFFB_D000)  # does not fit a C int
    vm.create_irqchip()
    vm.create_pit()
    return vm


def test_every_state_that_can_be_read_can_be_written_back() -> None:
    needs.kvm()
    kvm = Kvm()
    vm = full_vm(kvm)
    vcpu = vm.create_vcpu(0)
    vcpu.set_cpuid(kvm.supported_cpuid())
    for chip in range(3):
        vm.set_irqchip(vm.irqchip(chip))
    vm.set_pit(vm.pit())
    vcpu.set_fpu(vcpu.fpu())
    vcpu.set_lapic(vcpu.lapic())
    vcpu.set_events(vcpu.events())
    vcpu.set_debugregs(vcpu.debugregs())
    vcpu.set_mp_state(vcpu.mp_state())
    msrs = vcpu.msrs((0x174, 0x4000_FFFF, 0xC000_0081, 0x4000_FFFE))
    assert set(msrs) == {0x174, 0xC000_0081}, "a register that KVM does not know is left out"
    assert vcpu.set_msrs(msrs) == 2
    for part in (vcpu, vm, kvm):
        part.close()


def test_without_paging_an_address_translates_to_itself(boot: type[Tiny]) -> None:
    assert boot(b"\xf4").vcpu.translate(0x1004) == 0x1004
