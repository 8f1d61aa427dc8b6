# SPDX-License-Identifier: GPL-2.0-only
"""`-accel tcg`: tiny guests of a few bytes on a whole machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from struct import pack

import pytest

from miniqemu.accel.tcg import TcgAccel
from miniqemu.accel.tcg_cpu import IF, RETRY, RETRY_MAX
from miniqemu.hw.lapic import ENABLED
from miniqemu.machine.biglock import BigLock
from miniqemu.machine.memory import AddressSpace, GuestMemory
from miniqemu.machine.runstate import RunState
from tests.miniqemu.machine.conftest import MIB, Guest, MakeGuest, guest_mappings, guests
from tests.support import needs, tiny_guest
from tests.support.boot import ROOT
from tests.support.tiny_guest import BASE, CLI, HLT, LOOP_FOR_EVER, out, power_off, say, store

IDT, HANDLER, STACK = 0x2_0000, 0x5000, 0x8000
LAPIC, IOAPIC = 0xFEE0_0000, 0xFEC0_0000
SVR, EOI, LVT_TIMER, DIVIDE, COUNT, ICR = (
    LAPIC + offset for offset in (0xF0, 0xB0, 0x320, 0x3E0, 0x380, 0x300)
)
STI = b"\xfb"
IRET = b"\xcf"
SET_STACK = b"\xbc" + pack("<I", STACK)  # mov esp, STACK
PERIODIC = 1 << 17
VECTOR, PIN = 0x40, 9
AP_PAGE = 0x9000


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[MakeGuest]:
    """As the fixture of the other tests, on tcg, and without booting again."""
    needs.module("unicorn", "tcg")
    with guests(tmp_path, TcgAccel, no_reboot=True) as make:
        yield make


def gate(vector: int, handler: int) -> bytes:
    """Code that makes a 32-bit interrupt gate."""
    low, high = handler & 0xFFFF | 8 << 16, handler & 0xFFFF_0000 | 0x8E00
    return store(IDT + 8 * vector, low) + store(IDT + 8 * vector + 4, high)


def with_handler(vector: int, handler: bytes) -> bytes:
    """Code that sets up a stack, the interrupt table, and `handler` for one vector."""
    table = IDT - 0x100
    code = SET_STACK + gate(vector, HANDLER)
    code += store(table, 0x7FF | (IDT & 0xFFFF) << 16) + store(table + 4, IDT >> 16)
    code += b"\x0f\x01\x1d" + pack("<I", table)  # lidt [table]
    padded = handler + bytes(-len(handler) % 4)
    for at in range(0, len(padded), 4):
        code += store(HANDLER + at, int.from_bytes(padded[at : at + 4], "little"))
    return code


SWITCH_ON = store(SVR, 0x1FF)


def route(pin: int, vector: int) -> bytes:
    return store(IOAPIC, 0x10 + 2 * pin) + store(IOAPIC + 0x10, vector)


def test_the_guest_speaks_and_ends_the_machine(guest: MakeGuest) -> None:
    one = guest(say("hello") + power_off(3))
    assert one.run() == 3
    assert one.line.said == b"hello"


WITHOUT_LINUX = """
import os, select, sys
for name in "memfd_create", "eventfd", "eventfd_read", "eventfd_write":
    delattr(os, name)
del select.epoll
from miniqemu.cli.miniqemu import main
words = ["-M", "accel=tcg", "-nodefaults", "-serial", "stdio"]
sys.exit(main(["prog", *words, "-kernel", sys.argv[1]]))
"""


def test_it_needs_nothing_that_only_linux_has(tmp_path: Path) -> None:
    needs.module("unicorn", "tcg")
    kernel = tiny_guest.write_elf(tmp_path / "guest.elf", say("portable") + power_off(3))
    words = [sys.executable, "-c", WITHOUT_LINUX, kernel]
    done = subprocess.run(
        words, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"portable", b"")


def test_a_triple_fault_without_power_off_is_reported_with_registers(guest: MakeGuest) -> None:
    one = guest(tiny_guest.TRIPLE_FAULT)
    assert one.run() == 1
    (report,) = one.reports
    assert report.startswith("tcg: triple fault\nCPU 0:\n")
    assert f"EIP={BASE:08x}" in report
    assert "<0f> 0b" in report
    assert one.machine.run_state is RunState.SHUTDOWN or "panicked" in str(one.machine.run_state)


def test_a_jump_to_nowhere_is_an_internal_error(guest: MakeGuest) -> None:
    one = guest(bytes.fromhex("b8 00 00 00 40 ffe0"))  # mov eax, 0x40000000; jmp eax
    assert one.run() == 1
    assert one.reports[0].startswith("tcg: libunicorn: the guest runs where there is no memory")


def test_memory_that_nobody_answers_reads_as_ones(guest: MakeGuest) -> None:
    ends_with_al = bytes.fromhex("66ba f400 ee") + tiny_guest.TRIPLE_FAULT
    one = guest(tiny_guest.load(0xF000_0000) + store(0xF000_0000, 1) + ends_with_al)
    assert one.run() == 0xFF


def test_an_exception_goes_to_its_handler_and_back(guest: MakeGuest) -> None:
    divide = bytes.fromhex("31c9 31d2 f7f1")  # xor ecx, ecx; xor edx, edx; div ecx
    handler = say("0") + bytes.fromhex("31d2 b1 01") + IRET  # xor edx, edx; mov cl, 1
    one = guest(with_handler(0, handler) + divide * 2 + say("!") + power_off(0))
    assert one.run() == 0
    assert one.line.said == b"00!"


def test_a_fault_with_an_error_code_pushes_it(guest: MakeGuest) -> None:
    bad_selector = bytes.fromhex("66b8 3812 8ed8")  # mov ax, 0x1238; mov ds, ax
    handler = bytes.fromhex("58 c1e8 04 66ba f400 ee")  # pop eax; shr eax, 4; out 0xf4
    one = guest(with_handler(13, handler + tiny_guest.TRIPLE_FAULT) + bad_selector)
    assert one.run() == 0x1238 >> 4 & 0xFF


def test_a_software_interrupt_comes_back_behind_itself(guest: MakeGuest) -> None:
    one = guest(with_handler(0x30, say("i") + IRET) + b"\xcd\x30" * 3 + power_off(0))
    assert one.run() == 0
    assert one.line.said == b"iii"


def test_a_halted_processor_is_woken_by_its_timer(guest: MakeGuest) -> None:
    handler = say("t") + store(EOI, 0) + IRET
    timer = store(DIVIDE, 0xB) + store(LVT_TIMER, PERIODIC | VECTOR) + store(COUNT, 1_000_000)
    code = with_handler(VECTOR, handler) + SWITCH_ON + timer + (STI + HLT + CLI) * 3
    one = guest(code + power_off(0))
    assert one.run() == 0
    assert one.line.said.startswith(b"ttt")  # a slow machine may tick twice before CLI
    assert set(one.line.said) == set(b"t")


def test_a_busy_processor_is_interrupted_too(guest: MakeGuest) -> None:
    handler = power_off(7)
    timer = store(DIVIDE, 0xB) + store(LVT_TIMER, VECTOR) + store(COUNT, 1_000_000)
    one = guest(with_handler(VECTOR, handler) + SWITCH_ON + timer + STI + LOOP_FOR_EVER)
    assert one.run() == 7


def test_an_edge_from_another_thread_wakes_a_halted_processor(guest: MakeGuest) -> None:
    handler = say("e") + store(EOI, 0) + IRET
    code = with_handler(VECTOR, handler) + SWITCH_ON + route(PIN, VECTOR)
    one = guest(code + say("?") + STI + HLT + CLI + power_off(0))
    line = one.machine.irq(PIN)
    line.irqfd()
    world = one.machine.world
    one.line.heard = lambda data: world.start_thread("device", line.pulse) if data == b"?" else None
    assert one.run() == 0
    assert one.line.said == b"?e"
    line.release_irqfd()
    with pytest.raises(AssertionError, match="R2"):
        line.pulse()


def test_an_interrupt_between_sti_and_halt_waits_for_the_halt(guest: MakeGuest) -> None:
    """The store that raises the line is the last thing before STI: HLT must not sleep through."""

    class Doorbell:
        base, size, name = 0xFEB0_0000, 0x200, "doorbell"

        def read(self, offset: int, size: int) -> int:
            return 0

        def write(self, offset: int, size: int, value: int) -> None:
            line.set_level(False)
            line.set_level(True)

    handler = say("e") + store(EOI, 0) + IRET
    code = with_handler(VECTOR, handler) + SWITCH_ON + route(PIN, VECTOR)
    one = guest(code + (CLI + store(Doorbell.base, 1) + STI + HLT) * 20 + power_off(0))
    line = one.machine.irq(PIN)
    one.machine.space.add_mmio(Doorbell())
    assert one.run() == 0
    assert one.line.said == b"e" * 20


class Stopwatch:
    """An alarm that nobody waits for."""

    def __init__(self) -> None:
        self.time = 0
        self.tries: list[int] = []

    def now(self) -> int:
        return self.time

    def set(self, at: int) -> None:
        self.tries.append(at)

    def close(self) -> None:
        pass


@pytest.fixture
def deaf() -> Iterator[tuple[TcgAccel, Stopwatch]]:
    """Two processors with interrupts off, and an interrupt for each."""
    needs.module("unicorn", "tcg")
    accel = TcgAccel(2)
    accel.alarm.close()
    watch = accel.alarm = Stopwatch()  # type: ignore[assignment]  # as far as it is used here
    space, lock = AddressSpace(GuestMemory([(0, MIB)])), BigLock()
    for index in range(2):
        apic = accel.create_vcpu(index, space, lock).lapic
        apic.registers[SVR - LAPIC] = ENABLED
        apic.request(VECTOR)
    yield accel, watch
    accel.close()


def test_a_guest_that_keeps_an_interrupt_waiting_is_asked_ever_less_often(
    deaf: tuple[TcgAccel, Stopwatch],
) -> None:
    accel, watch = deaf
    for _ in range(9):
        assert not accel.vcpus[0]._interrupt()
        watch.time = watch.tries[-1]
        accel._ring(watch.time)
    waits = [after - before for before, after in pairwise([0, *watch.tries])]
    assert waits == [RETRY << n for n in range(6)] + [RETRY_MAX] * 3
    for wait, before in zip(waits, [0, *watch.tries], strict=False):
        assert wait <= before + RETRY  # late by no more than it has waited


def test_an_interrupt_that_was_taken_makes_the_next_one_as_prompt_as_the_first(
    deaf: tuple[TcgAccel, Stopwatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    accel, watch = deaf
    one = accel.vcpus[0]
    for _ in range(4):
        one._interrupt()
        watch.time = watch.tries[-1]
        accel._ring(watch.time)
    taken: list[int] = []
    monkeypatch.setattr(one, "_deliver", lambda vector, external: taken.append(vector))
    one._halted, one._flags.value = True, IF
    assert one._interrupt()
    assert taken == [VECTOR]
    one._flags.value = 0
    one.lapic.request(VECTOR + 16)
    assert not one._interrupt()
    assert watch.tries[-1] == watch.time + RETRY


def test_a_try_that_is_planned_is_not_put_off_by_another(
    deaf: tuple[TcgAccel, Stopwatch],
) -> None:
    accel, watch = deaf
    assert not accel.vcpus[0]._interrupt()
    watch.time = RETRY // 2
    assert not accel.vcpus[0]._interrupt()  # it was stopped for something else meanwhile
    assert watch.tries == [RETRY]
    watch.time = RETRY
    accel._ring(watch.time)
    assert not accel.vcpus[0]._interrupt()
    assert not accel.vcpus[1]._interrupt()  # its first try comes sooner than the other's second
    assert watch.tries == [RETRY, 3 * RETRY, 2 * RETRY]


def test_a_second_processor_starts_in_real_mode_and_both_take_turns(guest: MakeGuest) -> None:
    at = AP_PAGE + 0x100
    real_mode = bytes.fromhex("8cc8 8ed8 c606 0001 01 f4 ebfd")  # mov [0x100], 1 by CS; hlt
    padded = real_mode + bytes(-len(real_mode) % 4)
    copy = b"".join(
        store(AP_PAGE + i, int.from_bytes(padded[i : i + 4], "little"))
        for i in range(0, len(padded), 4)
    )
    init, startup = 3 << 18 | 0x4500, 3 << 18 | 0x4600 | AP_PAGE >> 12
    wait = b"\x80\x3d" + pack("<I", at) + b"\x01" + bytes.fromhex("75f7")  # cmp [at], 1; jne
    code = SWITCH_ON + copy + store(at, 0) + store(ICR, init) + store(ICR, startup)
    one = guest(code + wait + power_off(5), vcpus=2)
    assert one.run() == 5


def test_stopping_a_loop_leaves_registers_that_can_be_read_and_it_goes_on(
    guest: MakeGuest,
) -> None:
    one = guest(say(".") + LOOP_FOR_EVER)
    machine = one.machine
    one.line.heard = lambda data: machine.main_context.notify()
    machine.start()
    machine.loop.wait_for(lambda: one.line.said == b".")
    for _ in range(3):
        machine.stop()
        assert machine.run_state is RunState.PAUSED
        assert machine.vcpus[0].registers().cs.selector == 8
        machine.cont()
    machine.stop()
    assert machine.vcpus[0].registers().rip == BASE + len(say("."))


def test_a_reset_boots_again_with_chips_as_new(guest: MakeGuest) -> None:
    code = SWITCH_ON + route(PIN, VECTOR) + say("b") + CLI + HLT
    one = guest(code, no_reboot=False)
    machine = one.machine
    one.line.heard = lambda data: machine.main_context.notify()
    machine.start()
    machine.loop.wait_for(lambda: one.line.said == b"b")
    machine.stop()
    machine.reset()
    assert isinstance(one.accel, TcgAccel)
    assert one.accel.ioapic.entries[PIN] != VECTOR
    assert machine.vcpus[0].registers().rip == BASE
    machine.cont()
    machine.loop.wait_for(lambda: one.line.said == b"bb")
    machine.stop()


def test_a_device_that_raises_in_a_callback_ends_the_machine_with_its_error(
    guest: MakeGuest,
) -> None:
    class Broken:
        base, size, name = 0x99, 1, "broken"

        def read(self, offset: int, size: int) -> int:
            return 0

        def write(self, offset: int, size: int, value: int) -> None:
            raise RuntimeError("broken device")

    one = guest(out(0x99, 1) + LOOP_FOR_EVER)
    one.machine.space.add_pio(Broken())
    with pytest.raises(RuntimeError, match="broken device"):
        one.run()


def test_ten_machines_leave_no_descriptor_thread_or_memory(
    tmp_path: Path, leaves_nothing: None
) -> None:
    needs.module("unicorn", "tcg")
    kernel = tiny_guest.write_elf(tmp_path / "guest.elf", power_off(3))
    before = guest_mappings()
    for _ in range(10):
        one = Guest(TcgAccel(2), kernel, "", 2, True)
        assert one.run() == 3
        one.machine.close()
    assert guest_mappings() == before
