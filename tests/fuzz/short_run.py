# SPDX-License-Identifier: GPL-2.0-only
"""A fuzzer for some seconds, as its test runs it: a process of its own (see run.py)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support import needs

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 20
"""A run that takes so many times longer than it should is stuck: the machine may be busy."""


def short_run(target: str, corpus: Path, seconds: int) -> list[int]:
    """Runs a fuzzer; returns how many branches it had reached, from time to time.

    Skips the test where atheris is not there; fails it where the fuzzer finds something.
    """
    needs.module("atheris", "fuzz")
    run = [sys.executable, "-m", "tests.fuzz.run", target, str(corpus)]
    outcome = subprocess.run(
        [*run, f"-max_total_time={seconds}", "-seed=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE * seconds,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr[-4000:]  # says where the input was saved
    return [int(branches) for branches in re.findall(r"cov: (\d+)", outcome.stderr)]
