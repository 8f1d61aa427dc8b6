# SPDX-License-Identifier: GPL-2.0-only
"""The machine on /dev/kvm: how it ends, stops, goes on, is reset, and leaves nothing behind."""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path

import pytest

from miniqemu.accel import cpuid
from miniqemu.accel.kvm import KvmAccel
from miniqemu.machine import debug, microvm
from miniqemu.machine.machine import Machine
from miniqemu.machine.runstate import RunState
from miniqemu.pykvm import Kvm
from tests.miniqemu.machine.conftest import MIB, MakeGuest, guest_mappings
from tests.support import needs, threads, tiny_guest
from tests.support.tiny_guest import CLI, HLT, LOOP_FOR_EVER, TRIPLE_FAULT, out, power_off, say

COUNT_FOR_EVER = bytes.fromhex(
    "b9 00 00 20 00"  # mov ecx, 0x200000
    "ff 01"  # again: inc dword [ecx]
    "66 ba f8 03"  # mov dx, 0x3f8
    "b0 2e"  # mov al, '.'
    "ee"  # out dx, al
    "eb f5"  # jmp again
)
COUNTER = 0x20_0000
COUNT_WITHOUT_EXITS = bytes.fromhex("b9 00 00 20 00  ff 01  eb fc")


def test_the_guests_verdict_is_the_exit_status(guest: MakeGuest) -> None:
    one = guest(say("hi\n") + power_off(42))
    assert one.run() == 42
    assert one.line.said == b"hi\n"
    assert one.machine.outcome == (42, "guest-shutdown")
    assert one.reports == []


@pytest.mark.parametrize(("value", "status"), [(0, 1), (1, 3), (42, 85), (200, 145)])
def test_isa_debug_exit_ends_with_twice_the_value_and_one(
    guest: MakeGuest, value: int, status: int
) -> None:
    one = guest(out(0xF4, value) + say("still here") + LOOP_FOR_EVER)
    one.board.add_debug_exit(0xF4, 4)
    assert one.run() == status
    assert one.line.said == b"", "no further instruction was executed"


def test_after_asking_for_the_end_the_vcpu_executes_nothing_more(guest: MakeGuest) -> None:
    one = guest(out(0xF4, 0) + COUNT_WITHOUT_EXITS)
    one.board.add_debug_exit(0xF4, 4)
    assert one.run() == 1
    assert one.machine.ram.read(COUNTER, 4) == bytes(4)


class Sensor:
    """A device that stops the machine while it is read."""

    base, size, name = 0x99, 1, "sensor"

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def read(self, offset: int, size: int) -> int:
        self._machine.stop()
        return 0x5A

    def write(self, offset: int, size: int, value: int) -> None:
        raise AssertionError("nobody writes to it")


def test_a_read_in_which_the_machine_was_stopped_is_complete(guest: MakeGuest) -> None:
    one = guest(bytes.fromhex("e4 99  eb fe"))  # in al, 0x99; jmp to itself
    machine = one.machine
    machine.space.add_pio(Sensor(machine))
    machine.on_state_change(
        lambda running, state: None if running else machine.request_shutdown(0, "stopped")
    )
    one.run()
    registers = machine.vcpus[0].registers()
    assert (registers.rax & 0xFF, registers.rip) == (0x5A, tiny_guest.BASE + 2)


def test_a_triple_fault_prints_registers_and_code_and_stops(guest: MakeGuest) -> None:
    one = guest(b"\xb8\x78\x56\x34\x12" + TRIPLE_FAULT)
    assert one.run() == 1
    assert one.machine.outcome == (1, "guest-panic")
    (report,) = one.reports
    assert report.startswith("kvm: triple fault\nCPU 0:\nEAX=12345678 EBX=00006000")
    assert "EIP=00100005" in report
    assert "b8 78 56 34 12 <0f> 0b" in report


def test_a_verdict_counts_only_until_the_next_reset(guest: MakeGuest) -> None:
    one = guest(out(0xF4, 7) + say(".") + LOOP_FOR_EVER)
    one.line.heard = lambda data: one.machine.request_shutdown(0, "heard")
    one.run()
    assert one.machine.power_off == 7
    one.machine.reset()
    assert one.machine.power_off is None


def test_an_instruction_that_kvm_cannot_run_is_told_with_its_bytes(guest: MakeGuest) -> None:
    one = guest(bytes.fromhex("cc") + LOOP_FOR_EVER)  # int3
    status = one.run()
    (report,) = one.reports
    assert status == 1
    assert "EIP=0010000" in report
    assert "Code=" in report


def test_the_command_line_reaches_the_guest(guest: MakeGuest) -> None:
    one = guest(tiny_guest.PRINT_COMMAND_LINE + power_off(0), append="hello world")
    assert one.run() == 0
    assert one.line.said == b"hello world"


def test_a_halted_guest_waits_until_somebody_ends_it(guest: MakeGuest) -> None:
    one = guest(say("x") + CLI + HLT)
    one.line.heard = lambda data: one.machine.main_context.bh_schedule_oneshot(
        lambda: one.machine.request_shutdown(5, "test")
    )
    assert one.run() == 5


def test_a_stopped_guest_stands_still_and_goes_on_where_it_was(guest: MakeGuest) -> None:
    one = guest(COUNT_FOR_EVER)
    machine, told = one.machine, list[tuple[bool, RunState]]()
    machine.on_state_change(lambda running, state: told.append((running, state)))
    one.line.heard = lambda data: machine.main_context.notify()
    machine.start()
    machine.loop.wait_for(lambda: len(one.line.said) > 20)
    machine.stop()
    before, said = machine.ram.read(COUNTER, 4), len(one.line.said)
    for _ in range(50):
        machine.main_context.notify()
        machine.iterate()
    assert (machine.ram.read(COUNTER, 4), len(one.line.said)) == (before, said)
    assert machine.run_state is RunState.PAUSED
    machine.cont()
    machine.loop.wait_for(lambda: len(one.line.said) > said + 20)
    machine.stop(RunState.DEBUG)
    count = int.from_bytes(machine.ram.read(COUNTER, 4), "little")
    assert 0 <= count - len(one.line.said) <= 1, "no step was lost or done twice"
    assert told == [
        (True, RunState.RUNNING),
        (False, RunState.PAUSED),
        (True, RunState.RUNNING),
        (False, RunState.DEBUG),
    ]


def test_stopping_and_going_on_many_times_loses_nothing(guest: MakeGuest) -> None:
    one = guest(COUNT_FOR_EVER)
    machine = one.machine
    machine.start()
    for _ in range(100):
        machine.stop()
        machine.cont()
    machine.stop()
    count = int.from_bytes(machine.ram.read(COUNTER, 4), "little")
    assert 0 <= count - len(one.line.said) <= 1


def test_minus_capital_s_waits_for_cont(guest: MakeGuest) -> None:
    one = guest(say("go") + power_off(3))
    one.machine.start(paused=True)
    assert one.machine.run_state is RunState.PRELAUNCH
    one.board.finish()
    one.machine.main_context.bh_schedule_oneshot(one.machine.cont)
    assert one.machine.run() == 3
    assert one.line.said == b"go"


@pytest.mark.parametrize("who", ["the main thread", "another thread", "the vCPU's thread"])
def test_anybody_may_reset_the_machine(guest: MakeGuest, who: str) -> None:
    one = guest(say("a") + LOOP_FOR_EVER)
    machine, resets = one.machine, list[bytes]()
    machine.on_reset(lambda: resets.append(one.line.said))

    def heard(data: bytes) -> None:
        if len(one.line.said) == 4:
            machine.request_shutdown(0, "enough")
        elif who == "the main thread":
            machine.main_context.bh_schedule_oneshot(machine.reset)
        elif who == "another thread":
            threading.Thread(target=machine.reset).start()
        else:
            machine.reset()

    one.line.heard = heard
    assert one.run() == 0
    assert resets == [b"", b"a", b"aa", b"aaa"]


def test_a_reset_gives_the_guest_its_kernel_and_registers_again(guest: MakeGuest) -> None:
    spoil = bytes.fromhex("c6 05 00 00 10 00 f4")  # mov byte [0x100000], hlt: over the entry
    code = b"\x90" + say("b") + spoil + CLI + HLT
    one = guest(code)

    def heard(data: bytes) -> None:
        if one.line.said == b"bb":
            one.machine.request_shutdown(0, "twice")
        else:
            one.machine.reset()

    one.line.heard = heard
    assert one.run() == 0
    assert one.line.said == b"bb"
    assert one.reports == []


def test_a_stop_asked_for_by_the_vcpu_itself_ends_its_instruction_there(guest: MakeGuest) -> None:
    one = guest(say("12") + power_off(0))
    machine = one.machine
    one.line.heard = lambda data: machine.stop() if data == b"1" else None
    machine.on_state_change(
        lambda running, state: None if running else machine.request_shutdown(9, one.line.said.hex())
    )
    assert one.run() == 9
    assert machine.outcome == (9, b"1".hex())


def test_what_is_asked_while_the_machine_changes_is_done_afterwards(guest: MakeGuest) -> None:
    one = guest(LOOP_FOR_EVER)
    machine, states = one.machine, list[RunState]()

    def told(running: bool, state: RunState) -> None:
        states.append(state)
        if len(states) == 2:
            machine.cont()
            assert machine.run_state is RunState.PAUSED, "not now"
        if len(states) == 3:
            machine.request_shutdown(0, "done")

    machine.on_state_change(told)
    machine.start()
    machine.stop()
    assert machine.run() == 0
    assert states == [RunState.RUNNING, RunState.PAUSED, RunState.RUNNING, RunState.SHUTDOWN]


class Broken:
    """A device with a bug."""

    base, size, name = 0x99, 1, "broken"

    def read(self, offset: int, size: int) -> int:
        raise ZeroDivisionError("a bug in a device")

    def write(self, offset: int, size: int, value: int) -> None:
        raise ZeroDivisionError("a bug in a device")


def test_a_devices_exception_leaves_the_main_loop(guest: MakeGuest) -> None:
    one = guest(out(0x99, 1) + LOOP_FOR_EVER)
    one.machine.space.add_pio(Broken())
    with pytest.raises(ZeroDivisionError, match="a bug in a device"):
        one.run()
    assert not one.machine.big_lock.counts.get(0)


def test_exits_and_interrupts_are_logged_when_asked_for(
    guest: MakeGuest, capfd: pytest.CaptureFixture[str]
) -> None:
    enable_thri = out(0x3F9, 2)
    one = guest(enable_thri + tiny_guest.store(0xD000_0000, 1) + power_off(0))
    debug.enable("exits,int,guest_errors")
    try:
        one.run()
    finally:
        debug.disable()
    lines = capfd.readouterr().err.splitlines()
    assert "irq 4: raised" in lines
    assert "cpu 0: out 0x3f9 1 bytes x 1" in lines
    assert "cpu 0: mmio write 0xd0000000 4 bytes" in lines
    assert "memory: unassigned write of 0x1 at 0xd0000000, 4 bytes" in lines


def open_files() -> set[str]:
    """What this process has open, but for the directory that is read here."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:
            continue
    return found


def boot_once(kernel: str) -> None:
    board = microvm.build(KvmAccel(2), 16 * MIB, vcpus=2)
    board.load(kernel)
    board.finish()
    assert board.machine.run() == 3
    board.machine.close()
    board.machine.close()


def test_twenty_machines_leave_no_descriptor_thread_or_memory(tmp_path: Path) -> None:
    needs.kvm()
    kernel = tiny_guest.write_elf(tmp_path / "guest.elf", power_off(3))
    running, interval = threads.count_without_idle(), sys.getswitchinterval()
    boot_once(kernel)
    gc.collect()
    before = (open_files(), running, guest_mappings(), interval)
    for _ in range(20):
        boot_once(kernel)
    gc.collect()
    n_threads = threads.count_after_ends(before[1])
    after = (open_files(), n_threads, guest_mappings(), sys.getswitchinterval())
    assert after == before


def test_a_second_vcpu_starts_by_init_and_sipi(guest: MakeGuest) -> None:
    second = 0x8000
    real_mode = bytes.fromhex("ba f8 03 b0 32 ee f4")  # mov dx, 0x3f8; mov al, '2'; out; hlt
    copy = b"".join(
        tiny_guest.store(second + at, int.from_bytes(real_mode[at : at + 4], "little"))
        for at in range(0, len(real_mode), 4)
    )
    icr_high, icr_low = 0xFEE0_0310, 0xFEE0_0300
    wake = tiny_guest.store(icr_high, 1 << 24)
    wake += tiny_guest.store(icr_low, 0x4500)  # INIT
    wake += tiny_guest.store(icr_low, 0x4600 | second >> 12)  # SIPI
    one = guest(say("1") + copy + wake + CLI + HLT, vcpus=2)
    one.line.heard = lambda data: one.machine.request_shutdown(0, "both") if data == b"2" else None
    assert one.run() == 0
    assert one.line.said == b"12"


def test_each_vcpu_has_its_own_apic_id() -> None:
    needs.kvm()
    kvm = Kvm()
    supported = kvm.supported_cpuid()
    kvm.close()
    ids = []
    for vcpu in range(3):
        table = cpuid.for_vcpu(supported, vcpu, 3, "host")
        leaf1 = next(entry for entry in table if entry.function == 1)
        ids.append((leaf1.ebx >> 24, leaf1.ebx >> 16 & 0xFF))
    assert ids == [(0, 3), (1, 3), (2, 3)]
