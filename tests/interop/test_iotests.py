# SPDX-License-Identifier: GPL-2.0-only
"""What runs QEMU's own tests sees where the two tools differ, and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.interop import iotests

pytestmark = pytest.mark.full

SCRIPT = """#!/bin/sh
cd "$TEST_DIR"
"$QEMU_IMG_PROG" create -f "$IMGFMT" -o "$IMGOPTS" disk 1M
"$QEMU_IO_PROG" $QEMU_IO_OPTIONS -c 'write -q -P 5 0 64k' -c map disk
pwd
"""


def write(folder: Path, script: str, name: str = "001") -> None:
    test = folder / name
    test.write_text(script)
    test.chmod(0o700)


def differences(folder: Path, script: str) -> list[str]:
    write(folder, script)
    return iotests.compare(folder, "001", "qcow2", "cluster_size=4096")


def test_a_script_that_both_understand_shows_no_difference(tmp_path: Path) -> None:
    assert differences(tmp_path, SCRIPT) == []
    printed = iotests.run(tmp_path, "001", "qcow2", "cluster_size=4096", "ours")
    assert "cluster_size=4096" in printed
    assert "64 KiB (0x10000) bytes     allocated at offset 0 bytes (0x0)" in printed
    assert printed.endswith("FOLDER/work\n")


def test_what_only_one_of_them_says_is_shown(tmp_path: Path) -> None:
    lines = differences(tmp_path, SCRIPT + '"$QEMU_IMG_PROG" --version\n')
    assert any(line.startswith("+") and "miniqemu" in line for line in lines)
    assert not any(line.startswith("+") and "allocated" in line for line in lines)


def test_a_script_that_does_not_run_says_why(tmp_path: Path) -> None:
    script = '#!/bin/sh\necho "no such disk" > "$OUTPUT_DIR/001.notrun"\n'
    assert differences(tmp_path, script) == []
    assert iotests.run(tmp_path, "001", "raw", "", "ours") == "not run: no such disk\n"


def test_the_field_that_we_name_and_numbers_of_processes_are_left_out(tmp_path: Path) -> None:
    said = 'echo "too large (header.l1_size = 5)"\necho "001: line 7:  4711 Killed"\n'
    write(tmp_path, "#!/bin/sh\n" + said)
    printed = iotests.run(tmp_path, "001", "raw", "", "ours")
    assert printed == "too large\n001: line N: PID Killed\n"


def test_a_script_that_does_not_end_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iotests, "LIMIT", 0.5)
    write(tmp_path, "#!/bin/sh\nsleep 30 &\necho begun\nwait\n")
    start = time.monotonic()
    assert iotests.run(tmp_path, "001", "raw", "", "ours") == "begun\n\nout of time\n"
    assert time.monotonic() - start < 20, "what it started holds its output open"


def test_each_script_has_its_line_and_those_that_differ_are_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "#!/bin/sh\necho hello\n")
    write(tmp_path, '#!/bin/sh\n"$QEMU_IMG_PROG" --version\n', "002")
    assert iotests.main(str(tmp_path), "qcow2:compat=0.10", "001", "002") == 1
    first, second, *lines = capfd.readouterr().out.splitlines()
    assert first == "qcow2:compat=0.10 001 same"
    assert second == f"qcow2:compat=0.10 002 {len(lines)} lines differ"
    assert any(line.startswith("+") and "miniqemu" in line for line in lines)
