# SPDX-License-Identifier: GPL-2.0-only
"""What the pages show of a terminal comes out so, when a reader types it: each command of a page,
one after the other, in an empty folder. Times, dates and sizes on the disk are blanked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("bitmaps", "command-line", "img", "io", "qcow2-changes", "snapshots")
BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
# What needs root or a folder of the reader's, takes seconds, or depends on the machine.
LEFT_OUT = ("# losetup", "~/bin", "-f luks", "doctor")
PROMPT = "miniqemu-io> "
MOVES = re.compile(
    r"[\d:.]+ sec \(.* ops/sec\)|(?<=in )[\d.]+ seconds|(?<=size: )[\d.]+ [KM]iB$"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|[^\n]*\r(?!\n)|\r(?=\n)",
    re.MULTILINE,
)


class Shown:
    """A command of a page: what is typed, at the shell and to the program, and what comes."""

    def __init__(self, command: str, output: str) -> None:
        self.command = command
        self.typed = "".join(re.findall(f"^{PROMPT}(.*\n)", output, re.MULTILINE))
        self.output = re.sub(f"^({PROMPT}).*\n", r"\1", output, flags=re.MULTILINE)

    def script(self) -> str:
        """The command for the shell, and a mark behind what it says that keeps its status."""
        typed = f" <<'END'\n{self.typed}END" if self.typed else ""
        return f"{self.command}{typed}\nstatus=$?; printf '\\0'; (exit $status)\n"


def shown_in(block: str) -> Iterator[Shown]:
    """The commands of a block; a backslash at the end of a line goes on in the next."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert not parts[0], "begins with a command"
    for part in parts[1:]:
        command = re.match(r"(.*\\\n)*.*\n", part)
        assert command is not None
        yield Shown(command[0].rstrip("\n"), part[command.end() :])


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_of_a_terminal_comes_out_so(tmp_path: Path, page: str) -> None:
    blocks = BLOCK.findall((DOCS / f"{page}.md").read_text())
    shown = [
        each
        for block in blocks
        if not any(word in block for word in LEFT_OUT)
        for each in shown_in(block)
    ]
    assert shown
    bin_first = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", "".join(each.script() for each in shown)], cwd=tmp_path,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        check=False, env={**os.environ, "PATH": bin_first},
    )  # fmt: skip
    *answers, rest = done.stdout.decode().split("\0")
    assert (len(answers), rest) == (len(shown), "")
    for each, answer in zip(shown, answers, strict=True):
        expected, dots, _ = MOVES.sub("", each.output).partition("...\n")
        came = MOVES.sub("", answer)
        assert (came[: len(expected)] if dots else came) == expected, each.command
