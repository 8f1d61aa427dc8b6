# SPDX-License-Identifier: GPL-2.0-only
"""What runs QEMU's own tests sees where the two tools differ, and nothing else."""

from __future__ import annotations

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


def differences(folder: Path, script: str) -> list[str]:
    test = folder / "001"
    test.write_text(script)
    test.chmod(0o700)
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
