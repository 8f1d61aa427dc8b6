# SPDX-License-Identifier: GPL-2.0-only
"""The demo disk: readable in the guest, and made only once."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest.demo_disk import SECTOR, SIZE, contents, main
from tests.support.boot import GOOD, MINIQEMU_KVM, QEMU_TCG, Disk, Vmm, boot


def test_it_has_text_in_whole_sectors_and_is_a_hole_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "demo.img"

    assert main(["demo_disk", str(path)]) == 0

    image = path.read_bytes()
    assert len(image) == SIZE
    assert all(len(data) % SECTOR == 0 for data in contents().values())
    assert image[10 * SECTOR :].startswith(b"sector 10,   0  sector 10,  16  ")
    assert image[16 * SECTOR :] == bytes(SIZE - 16 * SECTOR)


def test_one_that_is_there_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "demo.img"
    path.write_text("mine")

    assert main(["demo_disk", str(path)]) == 0

    assert path.read_text() == "mine"
    assert "stays as it is" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "no" / "such" / "folder.img")

    assert main(["demo_disk", path]) == 1

    assert capsys.readouterr().err == f"demo_disk: {path}: No such file or directory\n"


def test_called_without_a_name_it_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo_disk"]) == 2
    assert capsys.readouterr().err.startswith("usage: ")


@pytest.mark.parametrize("vmm", [QEMU_TCG, MINIQEMU_KVM], ids=str)
def test_the_guest_shows_its_text(vmm: Vmm, tmp_path: Path) -> None:
    path = tmp_path / "demo.img"
    main(["demo_disk", str(path)])

    outcome = boot(vmm, [Disk(path)], "read 0;selftest")

    assert outcome.status == GOOD
    assert "  became a request\n" in outcome.serial
