# SPDX-License-Identifier: GPL-2.0-only
"""The same command line for our tools and for QEMU's, each in a folder of its own.

Both must give the same status and say the same; times, rates and names of nodes are blanked.
`swap` lets each go on with what the other has left.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from miniqemu.cli.img import main as img
from miniqemu.cli.io import main as io
from tests.support import needs

OURS = {"qemu-img": img.main, "qemu-io": io.main}
# How long it took, and how a node is called that nobody has given a name.
FIGURES = re.compile(r"[\d:.]+( sec)? \(.* ops/sec\)|#block\d+|[\d.]+ seconds")


def _plain(text: str) -> str:
    return FIGURES.sub("X", text)


class Capture(Protocol):
    """pytest's capfd, as far as it is needed."""

    def readouterr(self) -> Any:
        """What was written since the last call."""


class Answer(NamedTuple):
    """What a tool has said."""

    status: int
    out: str
    err: str


class SideBySide:
    """Two folders, `mine` for our tools and `theirs` for QEMU's, until they are swapped."""

    def __init__(self, root: Path, capture: Capture) -> None:
        self.mine, self.theirs = root / "a", root / "b"
        self.capture = capture
        for folder in self.folders:
            folder.mkdir()

    @property
    def folders(self) -> tuple[Path, Path]:
        """Both of them, ours first."""
        return self.mine, self.theirs

    def swap(self) -> None:
        """From now on we work where QEMU has worked, and the other way round."""
        self.mine, self.theirs = self.theirs, self.mine

    def ask_us(self, program: str, *words: str) -> Answer:
        """Our tool, in our folder."""
        run: Callable[[list[str]], int] = OURS[program]
        self.capture.readouterr()
        with contextlib.chdir(self.mine):
            status = run([program, *words])
        out, err = self.capture.readouterr()
        return Answer(status, _plain(out), _plain(err))

    def ask_qemu(self, program: str, *words: str) -> Answer:
        """QEMU's tool, in the other folder."""
        needs.program(program)
        done = subprocess.run(
            [program, *words], cwd=self.theirs, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return Answer(done.returncode, _plain(done.stdout), _plain(done.stderr))

    def both(self, program: str, *words: str) -> Answer:
        """Both do the same and say the same; what they say."""
        theirs = self.ask_qemu(program, *words)
        mine = self.ask_us(program, *words)
        assert mine == theirs, (program, *words)
        return theirs

    def both_json(self, change: Callable[[Any], Any], *words: str) -> Any:
        """As `both`, of qemu-img's JSON, after `change` has dropped what may differ."""
        theirs, mine = self.ask_qemu("qemu-img", *words), self.ask_us("qemu-img", *words)
        assert (mine.status, mine.err) == (theirs.status, theirs.err) == (0, ""), words
        said: Any = change(json.loads(theirs.out))
        own: Any = change(json.loads(mine.out))
        assert own == said, words
        return said
