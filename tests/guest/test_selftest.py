# SPDX-License-Identifier: GPL-2.0-only
"""The guest's self-test, unchanged, on every machine and with every kind of disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import needs
from tests.support.boot import (
    BAD,
    GOOD,
    MINIQEMU_KVM,
    MINIQEMU_TCG,
    QEMU_KVM,
    QEMU_TCG,
    Disk,
    Tap,
    Vmm,
    boot,
    parse_tap,
)

READ_ONLY = "writing to a read-only disk fails"
NO_READ_ONLY = {READ_ONLY: "not offered"}


def selftest(vmm: Vmm, disks: list[Disk], *, smp: int = 1, status: int = GOOD) -> Tap:
    """Runs the self-test, expects the exit status, and returns the report."""
    outcome = boot(vmm, disks, "selftest", smp=smp)
    tap = parse_tap(outcome.serial)
    assert outcome.status == status, outcome.serial + outcome.errors
    assert tap.complete, outcome.serial
    assert bool(tap.failed) == (status != GOOD), outcome.serial
    return tap


def test_every_test_passes(vmm: Vmm, image: Path) -> None:
    assert selftest(vmm, [Disk(image)]).skipped == NO_READ_ONLY


def test_a_read_only_disk_passes_what_does_not_write(vmm: Vmm, image: Path) -> None:
    tap = selftest(vmm, [Disk(image, drive=",readonly=on")])

    assert READ_ONLY in tap.passed
    assert "OUT writes" in tap.skipped
    assert set(tap.skipped.values()) == {"not offered"}


@pytest.mark.parametrize("vmm", [QEMU_KVM, MINIQEMU_KVM, MINIQEMU_TCG], ids=str)
@pytest.mark.parametrize("queues", [1, 4])
def test_it_passes_in_an_iothread(vmm: Vmm, image: Path, queues: int) -> None:
    disk = Disk(image, device=f",num-queues={queues}", iothread=True)

    assert selftest(vmm, [disk], smp=2).skipped == NO_READ_ONLY


@pytest.mark.parametrize("vmm", [MINIQEMU_KVM], ids=str)
@pytest.mark.parametrize(
    ("engine", "iothread"),
    [
        ("cache=none,aio=native", True),
        ("cache=none,aio=io_uring", False),
        ("cache=writeback,aio=io_uring", True),
    ],
)
def test_it_passes_with_every_engine(vmm: Vmm, image: Path, engine: str, iothread: bool) -> None:
    needs.engine("native" if "native" in engine else "io_uring")
    disk = Disk(image, drive=f",{engine}", iothread=iothread)

    assert selftest(vmm, [disk]).skipped == NO_READ_ONLY


@pytest.mark.parametrize("vmm", [QEMU_KVM, MINIQEMU_KVM], ids=str)
@pytest.mark.parametrize("iothread", [False, True])
def test_it_passes_on_a_disk_with_limits(vmm: Vmm, image: Path, iothread: bool) -> None:
    limits = ",throttling.iops-total=500,throttling.iops-size=4096,bps_wr=50000000"
    disk = Disk(image, drive=limits, iothread=iothread)

    assert selftest(vmm, [disk]).skipped == NO_READ_ONLY


def test_it_passes_with_several_queues(vmm: Vmm, image: Path) -> None:
    assert selftest(vmm, [Disk(image, device=",num-queues=4")]).skipped == NO_READ_ONLY


def test_it_passes_with_blocks_of_4_kib(vmm: Vmm, image: Path) -> None:
    blocks = ",logical_block_size=4096,physical_block_size=4096"

    assert selftest(vmm, [Disk(image, device=blocks)]).skipped == NO_READ_ONLY


def test_what_is_not_offered_is_skipped(vmm: Vmm, image: Path) -> None:
    disk = Disk(image, device=",event_idx=off,indirect_desc=off,discard=off,write-zeroes=off")
    skipped = selftest(vmm, [disk]).skipped

    assert sorted(skipped) == [
        "DISCARD",
        "IN reads zeroes there",
        "IN, indirect",
        "OUT, indirect",
        "WRITE_ZEROES",
        READ_ONLY,
        "zeroing past the end fails",
    ]


def test_it_leaves_the_disk_as_it_was(vmm: Vmm, image: Path) -> None:
    before = image.read_bytes()

    selftest(vmm, [Disk(image)])

    assert image.read_bytes() == before


def test_it_passes_twice_from_the_shell_which_stays(vmm: Vmm, image: Path) -> None:
    outcome = boot(vmm, [Disk(image)], "", typed="selftest\rselftest\rpoweroff\r")

    assert outcome.status == GOOD
    assert outcome.serial.count("\nok ") == 2 * parse_tap(outcome.serial).plan


@pytest.mark.parametrize("vmm", [QEMU_TCG, MINIQEMU_KVM, MINIQEMU_TCG], ids=str)
def test_a_disk_that_is_too_small_is_refused(vmm: Vmm, tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.img"
    tiny.write_bytes(bytes(8192))
    outcome = boot(vmm, [Disk(tiny)], "selftest")

    assert outcome.status == BAD
    assert "Bail out!" in outcome.serial


def test_a_disk_that_loses_flushes_gets_a_bad_verdict(tmp_path: Path, image: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text('[inject-error]\nevent = "flush_to_disk"\nerrno = "5"\n')
    disk = Disk(Path(f"blkdebug:{rules}:{image}"))

    assert "FLUSH" in selftest(QEMU_TCG, [disk], status=BAD).failed
