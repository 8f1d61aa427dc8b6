# SPDX-License-Identifier: GPL-2.0-only
"""A disk that fails under a running guest: it sees the error, or the machine waits for mending."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from miniqemu.machine.runstate import RunState
from tests.miniqemu.hw.test_disk_errors import file_size_limit
from tests.support import boot, needs
from tests.support.kvm_machine import WAYS, run

LIMIT = 1 << 20  # the disk has 4 MiB; the self-test writes to its end
LEAST = 3  # stops: one for each part of the self-test that writes there
MOST = 10  # with those in the middle of a part, which need time
FULL = "write: I/O error"


@pytest.mark.parametrize("way", WAYS)
def test_a_guest_sees_the_error_and_goes_on(tmp_path: Path, way: str) -> None:
    with run(tmp_path, way, "write 4000 no; write 1 yes; poweroff") as guest:
        guest.image.on_write_error = "report"
        with file_size_limit(LIMIT):
            assert guest.machine.run() == 0
        assert guest.line.said.count(FULL.encode()) == 1
        assert guest.line.said.count(b"write: ok") == 1
    assert (tmp_path / "disk.img").read_bytes()[512:516] == b"yes\n"


@pytest.mark.parametrize("way", WAYS)
def test_a_guest_does_not_notice_that_the_machine_stopped_for_mending(
    tmp_path: Path, way: str
) -> None:
    stops: list[RunState] = []
    reports: list[str] = []
    with file_size_limit(None) as limit, run(tmp_path, way, "selftest") as guest:
        guest.image.on_write_error = "stop"
        guest.machine.report = reports.append

        def mend(running: bool, state: RunState) -> None:
            if state is RunState.IO_ERROR:
                stops.append(state)
                limit(None)
                guest.machine.cont()

        guest.machine.on_state_change(mend)

        def fail_again() -> None:
            if guest.line.said.endswith(b"\n"):
                limit(LIMIT)

        guest.line.heard = fail_again
        guest.every(2, lambda: limit(LIMIT if len(stops) < MOST else None))
        assert guest.machine.run() == 0, guest.line.said.decode(errors="replace")
    assert len(stops) >= LEAST
    assert "io-error" in reports[0]
    assert b"not ok" not in guest.line.said


@pytest.mark.full
@pytest.mark.parametrize("werror", ["report", "enospc"])
def test_a_full_file_system(tmp_path: Path, werror: str) -> None:
    needs.kvm()
    needs.mounts()
    disk = boot.Disk(tmp_path / "small" / "disk.img", drive=f",werror={werror}")
    words = boot.arguments(boot.MINIQEMU_KVM, [disk], "write 4000 no; write 1 no; poweroff")
    program = [sys.executable, "-m", "miniqemu", *words]
    small = tmp_path / "small"
    script = (
        f"mkdir {small} && mount -t tmpfs -o size=1m none {small} && truncate -s 4M {disk.path} && "
        f'{{ cat /dev/zero 2>/dev/null >{small}/rest || true; }} && exec "$@"'
    )
    boot.built_elf()
    with subprocess.Popen(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *program],
        cwd=boot.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if werror == "enospc":
            assert "io-error" in process.stderr.readline()
            os.kill(process.pid, signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == (boot.GOOD if werror == "report" else 0)
    assert said.count(FULL) == (2 if werror == "report" else 0)
