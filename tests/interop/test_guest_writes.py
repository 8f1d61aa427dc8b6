# SPDX-License-Identifier: GPL-2.0-only
"""What a guest writes, under tcg here and under QEMU, leaves the same image."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matrix.run import make_images, qemu_img
from tests.support import needs
from tests.support.boot import GOOD, MINIQEMU_TCG, QEMU_TCG, Disk, Vmm, boot

# QEMU ends at once when the guest says so: what was not flushed may be lost then.
COMMANDS = (
    "write 9 miniqemu;iwrite 2000 0x5a;discard 64 64;zero 512 300;write 640 last;flush;poweroff"
)


def written_by(vmm: Vmm, folder: Path, format: str) -> Path:
    """The image after a guest on `vmm` has run the commands."""
    folder.mkdir()
    image, _ = make_images(folder, format)
    outcome = boot(vmm, [Disk(image, format=format)], COMMANDS)
    assert outcome.status == GOOD, outcome.serial + outcome.errors
    assert outcome.serial.count(": ok") == COMMANDS.count(";")
    return image


@pytest.mark.full
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_guest_leaves_the_same_image_under_our_tcg_and_qemus(tmp_path: Path, format: str) -> None:
    needs.program("qemu-img")
    ours, theirs = (
        written_by(vmm, tmp_path / vmm.name, format) for vmm in (MINIQEMU_TCG, QEMU_TCG)
    )
    qemu_img("compare", "-f", format, "-F", format, str(ours), str(theirs))
    if format == "qcow2":
        qemu_img("check", str(ours))
