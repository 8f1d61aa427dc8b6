# SPDX-License-Identifier: GPL-2.0-only
"""What tests beside the real tools share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.both_tools import WRITES, Tools
from tests.support.qemu_tools import qemu_img, qemu_io


@pytest.fixture
def tools(capfdbinary: pytest.CaptureFixture[bytes]) -> Tools:
    """Both tools, for one line."""
    return Tools(capfdbinary)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own, with two images that hold the same."""
    monkeypatch.chdir(tmp_path)
    for fmt in ("raw", "qcow2"):
        qemu_img("create", "-f", fmt, f"disk.{fmt}", "7M")
        qemu_io(fmt, f"disk.{fmt}", *WRITES)
    return tmp_path
