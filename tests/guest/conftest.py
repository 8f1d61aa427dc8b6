# SPDX-License-Identifier: GPL-2.0-only
"""The machines that the guest is tested on, and disks for them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support import boot

SECTOR = 512
SECTORS = 2048


MACHINES = [
    boot.QEMU_KVM, boot.QEMU_TCG, boot.QEMU_PLAIN, boot.MINIQEMU_KVM, boot.MINIQEMU_TCG,
]  # fmt: skip


@pytest.fixture(params=MACHINES, ids=str)
def vmm(request: pytest.FixtureRequest) -> boot.Vmm:
    """Each machine that has to run the guest in the same way."""
    machine: boot.Vmm = request.param
    return machine


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of 1 MiB with contents that look random, so that no change goes unseen."""
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(SECTORS * SECTOR))
    return path
