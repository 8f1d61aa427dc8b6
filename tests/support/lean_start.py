# SPDX-License-Identifier: GPL-2.0-only
"""What a program imports when it starts: scripts call the tools a thousand times.

start = lean_start("miniqemu.cli.img.main", ["info", "disk.img"], tmp_path)
assert start.imported & DEAR == set()
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
# What costs a start dearly; Python itself has none of it.
DEAR = {
    *("asyncio", "logging", "dataclasses", "construct", "importlib.metadata", "ssl", "subprocess"),
    *("pathlib", "argparse", "getopt", "enum", "re", "signal", "typing", "json", "collections"),
    "rich",
}


class Start(NamedTuple):
    """A run of a program: its exit status, what it printed, what it imported."""

    status: int
    output: str
    imported: set[str]


def lean_start(module: str, words: list[str], folder: Path) -> Start:
    """Runs a module's `main` in a new Python, with `folder` as its working directory."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules)\n"
        f"from {module} import main\n"
        f"status = main(['program', *{words!r}])\n"
        "print(status, *(set(sys.modules) - before), file=sys.stderr)"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, cwd=folder
    )
    status, *imported = done.stderr.split()
    return Start(int(status), done.stdout, set(imported))
