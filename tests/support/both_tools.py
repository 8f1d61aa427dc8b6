# SPDX-License-Identifier: GPL-2.0-only
"""miniqemu-img and qemu-img, given the same line in the same folder.

side_by_side.py gives each a folder of its own; here both look at the same images, or make `mine`
and `theirs` beside each other. `work` and `tools` of tests/interop/conftest.py are these.
"""

from __future__ import annotations

import subprocess
from typing import Any, Protocol

from miniqemu.cli.img import main as img
from tests.support import needs

# Zeroes of all kinds: short, long, at the edges of blocks, in files and in clusters.
WRITES = (
    *("write -P 1 0 4M", "write -z 1M 1M", "write -P 0 3M 12k", "write -P 0 3200k 4k"),
    *("write -P 0 3500001 5000", "write -P 7 5M 512", "write -P 8 6291457 70000"),
)


class Capture(Protocol):
    """pytest's capfdbinary, as far as it is needed."""

    def readouterr(self) -> Any:
        """What was written since the last call."""


class Tools:
    """Runs a line with both tools, in the current folder."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture

    def theirs(self, words: list[str]) -> tuple[int, bytes, bytes]:
        """What QEMU's says: status, standard output, standard error."""
        command = [needs.program("qemu-img"), *words]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    def mine(self, words: list[str]) -> tuple[int, bytes, bytes]:
        """What ours says."""
        status = img.main(["qemu-img", *words])
        out, err = self.capture.readouterr()
        return status, out, err

    def agree(self, *words: str) -> tuple[int, bytes, bytes]:
        """Both say the same; what they say."""
        theirs = self.theirs(list(words))
        assert self.mine(list(words)) == theirs
        return theirs


def lines_of(text: str) -> list[str]:
    """The command lines of a text in which they stand between bars."""
    return [line.strip() for line in text.strip().replace("\n", "|").split("|")]
