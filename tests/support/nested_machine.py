# SPDX-License-Identifier: GPL-2.0-only
"""A machine with hardware-style virtualization, in QEMU's emulator (tests/tools/nested-kvm)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.boot import ROOT, built_elf

TOOL = ROOT / "tests" / "tools" / "nested-kvm"
TIMED_OUT = 124


def fill(tree: Path) -> None:
    """Makes the folder that such a machine gets: the two packages and the guest."""
    skip = shutil.ignore_patterns("__pycache__")
    for package in ("block", "miniqemu"):
        shutil.copytree(ROOT / package, tree / package, ignore=skip)
    shutil.copy(built_elf(), tree / "guest.elf")


def boot_nested(
    tree: Path, command: Sequence[str], seconds: int, options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Boots it with a folder, runs a command there, and tells what came of it.

    Rarely, once in some hundred runs, a machine did not come to its end: both emulated processors
    met an INT3 in Linux's scheduler again and again that was no longer there. QEMU's emulator had
    kept its translation. The tool now sees to it that Linux does not patch that place (HOLD_A_VM).
    A machine that has used up its time is made once more all the same, since there are other such
    places; what hangs more often than that is still found.
    """
    line = [str(TOOL), "--timeout", str(seconds), *options, str(tree), *command]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode == TIMED_OUT:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
    return done
