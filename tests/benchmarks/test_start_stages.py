# SPDX-License-Identifier: GPL-2.0-only
"""The stages of a start: what is added up, and that the watch sees a whole start."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from benchmarks import start_stages
from benchmarks.start_stages import Stage, joined, medians
from tests.support import boot, needs

ROOT = Path(__file__).parents[2]


def stage(name: str, ms: float, modules: float) -> Stage:
    return Stage(name=name, ms=ms, modules=modules)


def test_stages_with_the_same_name_are_one() -> None:
    stages = [stage("plug", 1, 0.5), stage("load", 4, 0), stage("plug", 2, 0.25)]
    assert joined(stages) == [stage("plug", 3, 0.75), stage("load", 4, 0)]


def test_each_stage_has_the_medians_of_all_starts() -> None:
    starts = [[stage("a", ms, 9 - ms), stage("b", 1, 0)] for ms in (3, 1, 8)]
    assert medians(starts) == [stage("a", 3, 6), stage("b", 1, 0)]


def test_the_watch_sees_a_start_from_the_interpreter_to_the_first_byte(tmp_path: Path) -> None:
    needs.kvm()
    command = tmp_path / "bin" / "miniqemu"
    for folder in (command.parent, tmp_path / "lib"):
        folder.mkdir()
    command.write_text((ROOT / "bin" / "miniqemu").read_text())
    make_image = [sys.executable, "-m", "miniqemu.cli.start_image", str(command)]
    subprocess.run(make_image, check=True, cwd=ROOT)
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    stages = start_stages.one_start(
        *(str(command), "-nodefaults", "-serial", "stdio", "-kernel", str(boot.built_elf())),
        *("-object", "iothread,id=io0", "-drive", f"file={disk},format=raw,if=none,id=d0"),
        *("-device", "virtio-blk-device,drive=d0,iothread=io0", "-append", "poweroff"),
    )
    names = [stage["name"] for stage in stages]
    assert names[0] == "the Python interpreter starts"
    assert names[1] == "the start image is read"
    assert names[2] == "the command line is read"
    assert set(names[3:-1]) == set(start_watch_steps())
    assert names[-1] == "the guest's first byte"
    assert all(stage["ms"] >= stage["modules"] >= 0 for stage in stages)


def start_watch_steps() -> list[str]:
    """The names of the steps in between, from the watch's own table."""
    tree = ast.parse(start_stages.WATCH.read_text())
    tables = [node for node in tree.body if isinstance(node, ast.Assign)]
    steps: dict[str, str] = ast.literal_eval(tables[0].value)
    return list(steps.values())
