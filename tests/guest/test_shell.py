# SPDX-License-Identifier: GPL-2.0-only
"""The guest's shell, as a person at the serial line meets it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.boot import (
    BAD,
    GOOD,
    MINIQEMU_KVM,
    MINIQEMU_TCG,
    QEMU_PLAIN,
    QEMU_TCG,
    Disk,
    Outcome,
    Vmm,
    arguments,
    boot,
    built_elf,
    parse_tap,
    run,
)

COMMANDS = (
    "read write iread iwrite flush discard zero id info bench selftest disk cpus crash poweroff "
    "help"
)


@pytest.fixture(params=[QEMU_TCG, MINIQEMU_KVM, MINIQEMU_TCG], ids=str)
def vmm(request: pytest.FixtureRequest) -> Vmm:
    """One machine of QEMU's is enough here: the shell knows nothing of accelerators."""
    machine: Vmm = request.param
    return machine


def session(vmm: Vmm, image: Path, *lines: str, device: str = "", smp: int = 1) -> Outcome:
    """Types lines at the shell, then poweroff."""
    typed = "".join(line + "\r" for line in (*lines, "poweroff"))
    return boot(vmm, [Disk(image, device=device)], "", typed=typed, smp=smp)


@pytest.mark.parametrize("line", ["help", "frobnicate 1 2", "rea 0", "readx 0"])
def test_help_and_what_is_no_command_list_every_command(vmm: Vmm, image: Path, line: str) -> None:
    text = session(vmm, image, line).after(line)

    assert [line.split()[0] for line in text.splitlines()] == COMMANDS.split()


def test_read_prints_the_sector_in_hex(vmm: Vmm, image: Path) -> None:
    dump = session(vmm, image, "read 5").after("read 5")

    rows = [line[5:53].split() for line in dump.splitlines()]
    assert bytes(int(byte, 16) for row in rows for byte in row) == image.read_bytes()[2560:3072]


def test_what_is_written_is_read_directly_and_indirectly(vmm: Vmm, image: Path) -> None:
    outcome = session(vmm, image, "write 9 direct", "iread 9", "iwrite 9 indirect", "read 9")

    assert "direct.direct.di" in outcome.after("iread 9")
    assert "indirect.indirec" in outcome.after("read 9")


def test_backspace_takes_back_a_key(vmm: Vmm, image: Path) -> None:
    session(vmm, image, "writx\x7fe 1 0x41", "\b\bwritxy\b\be 2 0x42")

    assert image.read_bytes()[512:1536] == b"A" * 512 + b"B" * 512


def test_id_is_the_serial_of_the_command_line(vmm: Vmm, image: Path) -> None:
    outcome = session(vmm, image, "id", device=",serial=twenty-letters-long!")

    assert outcome.after("id") == "id: 'twenty-letters-long!'"


def test_info_tells_capacity_and_features(vmm: Vmm, image: Path) -> None:
    text = session(vmm, image, "info").after("info")

    assert "2048 sectors, blocks of 512 bytes" in text
    for feature in ("FLUSH", "DISCARD", "WRITE_ZEROES", "INDIRECT_DESC", "EVENT_IDX"):
        assert feature in text


@pytest.mark.parametrize("how", ["irq", "poll"])
def test_bench_reports_reads_per_second_on_one_line(vmm: Vmm, image: Path, how: str) -> None:
    text = session(vmm, image, f"bench 64 8 {how}").after(f"bench 64 8 {how}")

    found = re.fullmatch(
        r"bench: 64 reads of 4096 bytes, depth 8, (irq|poll): (\d+) reads/s "
        r"\((\d+) us, (\d+) doorbells, (\d+) interrupts, 0 failed\)",
        text,
    )
    assert found, text
    assert found[1] == how
    assert int(found[2]) > 0
    assert how == "irq" or int(found[5]) <= 1  # QEMU announces a ring's first buffer regardless


def test_a_polling_bench_is_interrupted_again_afterwards(vmm: Vmm, image: Path) -> None:
    assert "flush: ok" in session(vmm, image, "bench 9 2 poll", "flush").serial


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("read", "read: expected a number, found ''; try help"),
        ("read 0x", "read: expected a number, found '0x'; try help"),
        ("discard 5 all", "discard: expected a number, found 'all'; try help"),
        ("disk", "disk: expected a number, found ''; try help"),
        ("read 2048", "read: I/O error"),
        ("write 2048 0", "write: I/O error"),
        ("disk 1", "disk: there is no disk 1"),
        ("bench 10 33 irq", "bench N QD irq|poll: QD is 1 to 32, N is at least QD"),
    ],
)
def test_mistakes_get_an_answer(vmm: Vmm, image: Path, typed: str, answer: str) -> None:
    assert session(vmm, image, typed).after(typed).splitlines()[0] == answer


def test_disk_chooses_among_several(vmm: Vmm, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(bytes(65536))
    untouched = image.read_bytes()

    outcome = boot(vmm, [Disk(image), Disk(other)], "disk 1;write 2 0x42;poweroff")

    assert outcome.status == GOOD
    assert image.read_bytes() == untouched
    assert other.read_bytes()[1024:1536] == b"B" * 512


def test_without_commands_the_shell_comes_at_once(vmm: Vmm, image: Path) -> None:
    text = boot(vmm, [Disk(image)], "", typed="poweroff\r").serial

    assert text.splitlines() == [
        "miniqemu guest. Type help for the commands.",
        "disk 0: 2048 sectors, registers feb00e00, pin 12",
        "disk0> poweroff",
    ]


def test_disks_beyond_the_eighth_are_left_alone(tmp_path: Path) -> None:
    disks = []
    for number in range(10):
        disks.append(Disk(tmp_path / f"{number}.img"))
        disks[-1].path.write_bytes(bytes(1 << 20))

    text = boot(QEMU_PLAIN, disks, "disk 7; selftest").serial

    assert text.count("sectors, registers") == 8
    assert parse_tap(text).failed == []
    assert parse_tap(text).complete


def test_cpus_brings_up_the_second_processor(vmm: Vmm, image: Path) -> None:
    outcome = session(vmm, image, "cpus", "cpus", smp=2)

    assert outcome.serial.count("; 1 more came up, and halted") == 2


def test_a_disk_works_beside_a_second_processor(vmm: Vmm, image: Path) -> None:
    assert "write: ok" in session(vmm, image, "cpus", "write 1 1", smp=2).serial


def test_commands_of_the_command_line_run_in_order_and_the_shell_stays(
    vmm: Vmm, image: Path
) -> None:
    outcome = boot(vmm, [Disk(image)], "write 1 0x43; flush", typed="poweroff\r")

    assert outcome.serial.index("write: ok") < outcome.serial.index("flush: ok")
    assert "disk0> poweroff" in outcome.serial


@pytest.mark.parametrize(("verdict", "status"), [(0, GOOD), (1, BAD), (3, 7)])
def test_poweroff_hands_over_its_verdict(vmm: Vmm, image: Path, verdict: int, status: int) -> None:
    assert boot(vmm, [Disk(image)], f"poweroff {verdict}").status == status


def test_poweroff_needs_no_serial_line(vmm: Vmm) -> None:
    words = arguments(vmm, [], "poweroff 3", built_elf())
    words[words.index("stdio")] = "none"

    outcome = run([*vmm.program(), *words])

    assert (outcome.serial, outcome.status) == ("", 7)


def test_a_crash_dumps_the_registers_and_ends_the_machine(vmm: Vmm, image: Path) -> None:
    outcome = boot(vmm, [Disk(image)], "crash")

    assert outcome.status == BAD
    assert "trap 14, error code 2" in outcome.serial
    assert re.search(r"^rip 0000000000[0-9a-f]{6}  rsp .* cr2 80000000$", outcome.serial, re.M)


def test_without_a_disk_there_is_a_shell_all_the_same(vmm: Vmm) -> None:
    outcome = boot(vmm, [], "read 0", typed="poweroff\r")

    assert "read: there is no disk" in outcome.serial
    assert "no disk> poweroff" in outcome.serial


def test_a_legacy_device_is_named_with_the_remedy(image: Path) -> None:
    words = arguments(QEMU_TCG, [Disk(image)], "poweroff", built_elf())
    words = [word.replace("force-legacy=false", "force-legacy=true") for word in words]

    outcome = run([*QEMU_TCG.program(), *words])

    assert "QEMU needs -global virtio-mmio.force-legacy=false" in outcome.serial
    assert outcome.status == BAD
