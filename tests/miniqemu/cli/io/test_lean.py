# SPDX-License-Identifier: GPL-2.0-only
"""What scripts call a thousand times imports nothing dear."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
DEAR = {
    *("asyncio", "logging", "dataclasses", "construct", "importlib.metadata", "ssl", "subprocess"),
    *("pathlib", "argparse", "getopt", "enum", "re", "signal", "typing", "json", "collections"),
}


@pytest.mark.parametrize(
    "words", [["--version"], ["-c", "help"], ["-f", "raw", "-c", "read 0 512", "disk.img"]]
)
def test_a_start_imports_nothing_dear(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules)\n"
        "from miniqemu.cli.io.main import main\n"
        f"status = main(['miniqemu-io', *{words!r}])\n"
        "print(status, *(set(sys.modules) - before), file=sys.stderr)"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
    )
    status, *imported = done.stderr.split()
    assert status == "0"
    assert done.stdout
    assert "miniqemu.cli.io.main" in imported
    assert set(imported) & DEAR == set()
    if "disk.img" not in words:
        assert not any(name.startswith("block.protocols") for name in imported)
