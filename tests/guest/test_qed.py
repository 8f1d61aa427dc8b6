# SPDX-License-Identifier: GPL-2.0-only
"""The guest's self-test on a qed disk: it passes, and the image is clean and equal afterwards. The
disk moves into the IOThread and back, and the timer of the format with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import block
from tests.support.boot import GOOD, MINIQEMU_KVM, QEMU_KVM, Disk, Vmm, boot, parse_tap
from tests.support.qed_disk import field
from tests.support.qemu_tools import holds, is_clean


def qed_of(image: Path, overlay: bool = False) -> Path:
    """A qed image with the same content as a raw one, or over it."""
    path = image.with_suffix(".qed")
    data = image.read_bytes()
    below = {"backing_file": os.fspath(image), "backing_fmt": "raw"} if overlay else {}
    block.create(os.fspath(path), "qed", len(data), **below)
    if not overlay:
        with block.open(os.fspath(path), format="qed") as disk:
            disk.pwrite(0, data)
    return path


@pytest.mark.parametrize("iothread", [False, True], ids=["main loop", "iothread"])
@pytest.mark.parametrize("overlay", [False, True], ids=["full", "overlay"])
def test_it_passes_and_the_image_is_clean_and_equal(
    image: Path, overlay: bool, iothread: bool
) -> None:
    path = qed_of(image, overlay)
    before = image.read_bytes()

    outcome = boot(MINIQEMU_KVM, [Disk(path, iothread=iothread, format="qed")], "selftest")

    tap = parse_tap(outcome.serial)
    assert outcome.status == GOOD, outcome.serial + outcome.errors
    assert tap.complete
    assert not tap.failed
    assert field(path.read_bytes(), "features") & 2 == 0, "NEED_CHECK is still set"
    is_clean(path, "qed")
    holds(path, before, "qed")
    assert image.read_bytes() == before, "the backing file is only read"


@pytest.mark.full
@pytest.mark.parametrize("vmm", [QEMU_KVM, MINIQEMU_KVM], ids=str)
def test_what_the_guest_wrote_is_there_for_the_other_program(vmm: Vmm, image: Path) -> None:
    path = image.with_suffix(".qed")
    block.create(os.fspath(path), "qed", 4 << 20)
    other = MINIQEMU_KVM if vmm is QEMU_KVM else QEMU_KVM
    boot(vmm, [Disk(path, format="qed")], "write 1000 hello; poweroff")
    is_clean(path, "qed")

    outcome = boot(other, [Disk(path, format="qed", iothread=True)], "read 1000; poweroff")

    assert "hello" in outcome.serial
    is_clean(path, "qed")
