# SPDX-License-Identifier: GPL-2.0-only
"""The library's engine: what it can do, and that it stops between two instructions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from block.aio.world import the_world
from miniqemu.accel import fault_state, libunicorn, x86_events
from miniqemu.accel.base import AccelError
from miniqemu.accel.libunicorn import REGISTERS, Engine
from tests.support import needs

RIP, RCX, RDX = (REGISTERS[name] for name in ("rip", "rcx", "rdx"))
DATA, CODE, REGISTER = 0x5000, 0x1000, 0x10_0000
HLT = b"\xf4"
INC_LOOP = bytes.fromhex("ff02 49 75fb f4")  # inc dword [edx]; dec ecx; jnz; hlt
STORE_LOOP = bytes.fromhex("8902 49 75fb f4")  # mov [edx], eax; the same


class Bench:
    """An engine in protected mode with 64 KiB of memory, and registers at REGISTER."""

    def __init__(self) -> None:
        self.memory = bytearray(0x1_0000)
        self.stores: list[int] = []
        self.stop_at_store = False
        self.engine = Engine()
        self.engine.map_ram(0, memoryview(self.memory))
        self.engine.map_mmio(REGISTER, 0x1000, lambda *_: 0x1234, self._store)
        x86_events.leave_long_mode(self.engine)

    def _store(self, handle: int, offset: int, size: int, value: int, data: int) -> None:
        self.stores.append(offset)
        if self.stop_at_store:
            self.engine.cell.flag = 1

    def run(self, code: bytes, **registers: int) -> int:
        self.memory[CODE : CODE + len(code)] = code
        for name, value in registers.items():
            self.engine.write(REGISTERS[name], value)
        return self.engine.start(CODE)

    def go_on(self) -> int:
        cell = self.engine.cell
        cell.flag = cell.stopped = 0
        return self.engine.start(self.engine.read(RIP))

    def counted(self) -> int:
        return int.from_bytes(self.memory[DATA : DATA + 4], "little")


@pytest.fixture(params=["machine code", "Python"])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Both ways to look at the cell."""
    needs.module("unicorn", "tcg")
    if request.param == "Python":
        monkeypatch.setattr(libunicorn.load(), "stub", None)
    made = Bench()
    yield made
    made.engine.close()


def test_halt_ends_a_run_behind_the_instruction(bench: Bench) -> None:
    assert bench.run(b"\x90" + HLT) == 0
    assert bench.engine.read(RIP) == CODE + 2
    assert not bench.engine.cell.stopped


def test_a_flag_that_was_set_before_the_start_is_not_lost(bench: Bench) -> None:
    bench.engine.cell.flag = 1
    assert bench.run(INC_LOOP, rcx=10, rdx=DATA) == 0
    assert bench.engine.cell.stopped
    assert bench.engine.read(RIP) == CODE
    assert bench.counted() == 0


def test_a_flag_set_inside_a_store_does_not_repeat_the_store(bench: Bench) -> None:
    bench.stop_at_store = True
    bench.run(STORE_LOOP, rcx=5, rdx=REGISTER + 8)
    stops = 1
    while bench.engine.read(RIP) != CODE + len(STORE_LOOP):
        bench.go_on()
        stops += 1
    assert bench.stores == [8] * 5
    assert stops == 6, "one in front of each block, and the halt"


def test_flags_from_another_thread_stop_between_two_instructions(bench: Bench) -> None:
    count, done, world = 0x7FFF_FFFF, [], the_world()

    def flags() -> None:
        while not done:
            bench.engine.cell.flag = 1

    world.shorten_switch_interval()
    thread = world.start_thread("flags", flags)
    bench.run(INC_LOOP, rcx=count, rdx=DATA)
    for _ in range(50):
        assert bench.engine.read(RIP) == CODE
        assert bench.counted() == count - bench.engine.read(RCX)
        bench.go_on()
    done.append(True)
    thread.join()
    world.restore_switch_interval()


def test_memory_is_shared_with_the_guest_without_a_copy(bench: Bench) -> None:
    bench.run(bytes.fromhex("8b02 8942 04 f4"), rdx=DATA)  # mov eax, [edx]; mov [edx+4], eax
    bench.memory[DATA] = 0x77
    bench.run(bytes.fromhex("8b02 8942 04 f4"), rdx=DATA)
    assert bench.memory[DATA + 4] == 0x77


def test_what_is_no_memory_reads_from_the_callback(bench: Bench) -> None:
    bench.run(bytes.fromhex("8b02 f4"), rdx=REGISTER)
    assert bench.engine.read(REGISTERS["rax"]) == 0x1234


def test_an_instruction_that_does_not_exist_is_an_error(bench: Bench) -> None:
    assert bench.run(bytes.fromhex("0f0b")) == libunicorn.INSN_INVALID
    assert bench.engine.read(RIP) == CODE


def test_error_codes_are_found_in_the_saved_context(bench: Bench) -> None:
    assert fault_state.offsets() is not None


def test_a_library_of_unknown_layout_has_no_error_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    needs.module("unicorn", "tcg")
    monkeypatch.setattr(fault_state, "_context_after", lambda code: bytes(64))
    assert fault_state._measure() is None


def test_a_missing_package_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(AccelError) as caught:
        libunicorn.find([str(tmp_path)])
    assert str(caught.value) == (
        "-accel tcg: the package unicorn is missing: install it with `pip install 'unicorn>=2.1'`"
    )


def test_a_broken_library_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "unicorn" / "lib" / libunicorn.NAMES[0]
    library.parent.mkdir(parents=True)
    library.write_bytes(b"no library")
    monkeypatch.setattr(libunicorn, "_library", None)
    monkeypatch.setattr(libunicorn, "find", lambda: str(library))
    with pytest.raises(AccelError, match=r"^-accel tcg: .*libunicorn\.so\.2: "):
        libunicorn.load()
