# SPDX-License-Identifier: GPL-2.0-only
"""Runs the tools for images, ours and QEMU's, and takes what a run cost: time or memory.

R1  Both get the same words. What is measured is a whole process, from its start to its end.
R2  Ours is the installed command, with the compiled modules that an installation has.
R3  What a process has been before it became another program counts, for the kernel, as its memory.
    So it is started by a small one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import Missing
from benchmarks.machine import environment

OURS, THEIRS = "miniqemu-img", "qemu-img"
LARGEST = (
    "import resource as r, subprocess as s, sys; "
    "s.run(sys.argv[1:], check=True, stdout=s.DEVNULL); "
    "print(r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss)"
)
COMPLETED = re.compile(r"Run completed in ([0-9.]+) seconds")
WITHOUT_ISAL = (
    "import sys; sys.modules['isal'] = None; from miniqemu.cli.img.main import main; "
    "sys.exit(main(['miniqemu-img', *sys.argv[1:]]))"
)


def command(program: str) -> list[str]:
    """Returns how a program is called; `program` may be OURS without isal."""
    if program == THEIRS:
        path = shutil.which(THEIRS)
        if path is None:
            raise Missing("qemu-img: apt-get install qemu-utils")
        return [path]
    if program == OURS:
        return [str(Path(sys.executable).with_name(OURS))]
    return [sys.executable, "-c", WITHOUT_ISAL]


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a tool to its end, which must be a good one."""
    line = [*command(program), *words]
    return subprocess.run(line, env=environment(), capture_output=True, text=True, check=True)


def seconds(program: str, *words: str) -> float:
    """Returns how long a tool runs (R1)."""
    line = [*command(program), *words]
    start = time.perf_counter()
    subprocess.run(line, env=environment(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def requests(program: str, count: int, *words: str) -> float:
    """Returns the thousand requests a second that `bench` tells."""
    done = run(program, "bench", "-c", str(count), *words)
    return count / parse_seconds(done.stdout) / 1000


def parse_seconds(text: str) -> float:
    """Finds the seconds in what `bench` prints."""
    found = COMPLETED.search(text)
    if found is None:
        raise ValueError(f"bench printed no time: {text!r}")
    return float(found.group(1))


def resident(program: str, *words: str) -> float:
    """Returns the largest resident memory of a run in MB, as the kernel kept it (R3)."""
    line = [sys.executable, "-c", LARGEST, *command(program), *words]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024 / 1e6
