# SPDX-License-Identifier: GPL-2.0-only
"""What scripts call a thousand times imports nothing dear."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.lean_start import DEAR, lean_start

PROGRAM = "miniqemu.cli.img.main"


@pytest.mark.parametrize("line", ["--version", "info disk.img", "info --output=json disk.img"])
def test_a_start_imports_nothing_dear(tmp_path: Path, line: str) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    start = lean_start(PROGRAM, line.split(), tmp_path)
    assert start.status == 0
    assert start.output
    assert PROGRAM in start.imported
    assert start.imported & DEAR == set()
    if line == "--version":
        assert not any(name.startswith("block.protocols") for name in start.imported)


@pytest.mark.parametrize("fmt", ["qcow2", "qed", "vmdk"])
@pytest.mark.parametrize("line", ["info {0}", "convert -O qcow2 {0} copy.qcow2"])
def test_a_start_reads_a_header_without_construct(tmp_path: Path, line: str, fmt: str) -> None:
    disk = f"disk.{fmt}"
    made = lean_start(PROGRAM, ["create", "-f", fmt, disk, "1M"], tmp_path)
    start = lean_start(PROGRAM, line.format(disk).split(), tmp_path)
    assert (made.status, start.status) == (0, 0)
    assert f"block.formats.{fmt}.layout" in start.imported & made.imported
    assert "construct" not in start.imported | made.imported
