# SPDX-License-Identifier: GPL-2.0-only
"""The end of a tool: all that was said arrives, and nothing else happens."""

from __future__ import annotations

import subprocess
import sys
from typing import IO

from tests.support import needs

ENDING = """
import atexit
from miniqemu.cli.output import leave
atexit.register(print, "Python takes itself apart")
print("all that was said")
leave(3)
"""


def end(stdout: int | IO[str]) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-E", "-c", ENDING]  # -E: output may wait in a buffer
    return subprocess.run(program, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


def test_what_was_said_arrives_and_the_status_is_told() -> None:
    done = end(subprocess.PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (3, "all that was said\n", "")


@needs.linux()
def test_a_full_disk_is_no_success() -> None:
    with open("/dev/full", "w") as file:
        done = end(file)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
