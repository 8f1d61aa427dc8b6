# SPDX-License-Identifier: GPL-2.0-only
"""The cases about tools measure what they say, and leave out what the machine lacks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import convert_cases, tool_cases, tools
from benchmarks.harness import Missing

MIB = 1 << 20


def test_each_case_has_a_name_of_its_own_and_a_goal() -> None:
    cases = [*convert_cases.cases(True), *tool_cases.cases(True)]
    assert len({case.name for case in cases}) == len(cases) > 20
    without = [case.name for case in cases if not (case.others or case.goal)]
    assert without == []


def test_a_disk_is_half_data_and_half_holes(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    convert_cases.write_disk(str(path), 64 * MIB)
    data = path.read_bytes()
    assert len(data) == 64 * MIB
    kinds = [any(data[at : at + 16 * MIB]) for at in range(0, 64 * MIB, 16 * MIB)]
    assert kinds == [True, False, True, False]


def test_the_memory_is_that_of_the_tool_and_not_of_who_measures_it() -> None:
    ballast = bytearray(300 * MIB)
    ballast[::4096] = bytes(len(ballast) // 4096)
    assert 5 < tools.resident(tools.OURS, "--version") < 200


def test_without_isal_is_without_isal(tmp_path: Path) -> None:
    disk, packed = tmp_path / "disk.raw", [tmp_path / "isal.qcow2", tmp_path / "zlib.qcow2"]
    disk.write_bytes(convert_cases.content(MIB))
    for program, path in zip((tools.OURS, convert_cases.WITHOUT_ISAL), packed, strict=True):
        tools.run(program, "convert", "-c", "-O", "qcow2", str(disk), str(path))
    quick, thorough = (path.stat().st_size for path in packed)
    assert thorough < quick < 1.15 * thorough


def test_a_missing_qemu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Missing, match="qemu-utils"):
        tools.seconds(tools.THEIRS, "--version")
