# SPDX-License-Identifier: GPL-2.0-only
"""The guest's self-test on a qcow2 disk: it passes, and the image is clean and equal afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import block
from tests.support.boot import GOOD, MINIQEMU_KVM, QEMU_KVM, Disk, Vmm, boot, parse_tap
from tests.support.qemu_tools import holds, is_clean


def qcow2_of(image: Path, **options: object) -> Path:
    """A qcow2 image with the same content as a raw one."""
    path = image.with_suffix(".qcow2")
    data = image.read_bytes()
    block.create(os.fspath(path), "qcow2", len(data), **options)
    if "backing_file" not in options:
        with block.open(os.fspath(path), format="qcow2") as disk:
            disk.pwrite(0, data)
    return path


@pytest.mark.parametrize("iothread", [False, True], ids=["main loop", "iothread"])
@pytest.mark.parametrize("kind", ["full", "overlay", "small clusters"])
def test_it_passes_and_the_image_is_clean_and_equal(image: Path, kind: str, iothread: bool) -> None:
    options: dict[str, object] = {"cluster_size": 512} if kind == "small clusters" else {}
    if kind == "overlay":
        options = {"backing_file": os.fspath(image), "backing_fmt": "raw"}
    path = qcow2_of(image, **options)
    before = image.read_bytes()
    disk = Disk(path, iothread=iothread, format="qcow2", drive=",discard=unmap")

    outcome = boot(MINIQEMU_KVM, [disk], "selftest")

    tap = parse_tap(outcome.serial)
    assert outcome.status == GOOD, outcome.serial + outcome.errors
    assert tap.complete
    assert not tap.failed
    is_clean(path, "qcow2")
    holds(path, before, "qcow2")
    assert image.read_bytes() == before, "the backing file is only read"


@pytest.mark.full
@pytest.mark.parametrize("vmm", [QEMU_KVM, MINIQEMU_KVM], ids=str)
def test_what_the_guest_wrote_is_there_for_the_other_program(vmm: Vmm, image: Path) -> None:
    path = qcow2_of(image)
    other = MINIQEMU_KVM if vmm is QEMU_KVM else QEMU_KVM
    boot(vmm, [Disk(path, format="qcow2")], "write 1000 hello; poweroff")
    is_clean(path, "qcow2")

    outcome = boot(other, [Disk(path, format="qcow2", iothread=True)], "read 1000; poweroff")

    assert "hello" in outcome.serial
    is_clean(path, "qcow2")


@pytest.mark.full
@pytest.mark.parametrize("vmm", [QEMU_KVM, MINIQEMU_KVM], ids=str)
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_with_snapshot_on_what_the_guest_wrote_is_gone(
    vmm: Vmm, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    path = image if format == "raw" else qcow2_of(image)
    overlays = tmp_path / "overlays"
    overlays.mkdir()
    monkeypatch.setenv("TMPDIR", str(overlays))
    before = path.read_bytes()

    disk = Disk(path, format=format, iothread=True, drive=",snapshot=on")
    outcome = boot(vmm, [disk], "write 1000 hello; read 1000; poweroff")

    assert "hello" in outcome.serial
    assert path.read_bytes() == before
    assert not list(overlays.iterdir())
