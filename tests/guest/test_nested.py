# SPDX-License-Identifier: GPL-2.0-only
"""Ours on a KVM with hardware-style virtualization: inside `nested-kvm`, an emulated machine.

A KVM that emulates the guest's ring 0 hides races that one at native speed shows, and the other
way round; the self-test has to pass on both. The nested machine boots for half a minute, and the
first run downloads it (tests/tools/nested-kvm says what it needs). tests/matrix boots another
one, for the other kinds of disk.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.guest.conftest import SECTOR, SECTORS
from tests.support import needs
from tests.support.boot import GOOD, MINIQEMU_KVM, Disk, arguments, parse_tap
from tests.support.nested_machine import boot_nested, fill


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the nested machine gets: the two packages, the guest, a disk."""
    folder = tmp_path / "tree"
    fill(folder)
    (folder / "disk.img").write_bytes(random.Random(1).randbytes(SECTORS * SECTOR))
    return folder


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_self_test_passes_on_hardware_style_kvm(tree: Path) -> None:
    needs.program("qemu-system-x86_64")
    disk = Disk(Path("disk.img"), iothread=True)
    words = arguments(MINIQEMU_KVM, [disk], "cpus;selftest", "guest.elf", smp=2)

    done = boot_nested(tree, ["python3", "-m", "miniqemu", *words], seconds=250)

    tap = parse_tap(done.stdout.replace("\r\n", "\n"))
    assert done.returncode == GOOD, done.stdout + done.stderr
    assert "Traceback" not in done.stdout
    assert tap.complete, done.stdout
    assert tap.failed == []
    assert "; 1 more came up, and halted" in done.stdout


@pytest.mark.parametrize(("statuses", "expected"), [("0", 0), ("124 3", 3), ("124 124 0", 124)])
def test_a_machine_that_got_stuck_is_made_once_more(
    tmp_path: Path, statuses: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "statuses").write_text(statuses)
    tool = tmp_path / "tool"
    tool.write_text(
        f"#!/bin/sh\ncd {tmp_path}\nread first rest < statuses\n"
        'echo "$rest" > statuses\necho "$@"\nexit "$first"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setattr("tests.support.nested_machine.TOOL", tool)
    done = boot_nested(tmp_path, ["true"], seconds=7, options=["--add", "x=y"])
    assert done.returncode == expected
    assert done.stdout == f"--timeout 7 --add x=y {tmp_path} true\n"
