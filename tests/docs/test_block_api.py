# SPDX-License-Identifier: GPL-2.0-only
"""The programs that the page on the Python interface shows are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "block-api.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def run(program: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_shows_two_programs() -> None:
    assert len(PROGRAMS) == 2


@pytest.mark.parametrize("number", [0, 1], ids=["plain", "asyncio"])
def test_a_program_of_the_page_prints_what_it_wrote(number: int, tmp_path: Path) -> None:
    assert run(PROGRAMS[0], tmp_path) == "b'hello'\n"
    if number:
        assert run(PROGRAMS[number], tmp_path) == "b'hello'\n"


def test_the_table_of_trees_opens_one_and_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import block

    monkeypatch.chdir(tmp_path)
    block.create("a.img", "raw", 512)
    ways = re.findall(r"^\| .*? \| `(block\.open\(.*\))` \|$", PAGE, re.MULTILINE)
    assert len(ways) == 5
    with block.open("a.img", options={"driver": "file", "node-name": "node0"}, share=True):
        for way in ways:
            with eval(f"{way[:-1]}, share=True)") as disk:
                assert disk.bs.drv.format_name == "raw"
                assert disk.bs.file.bs.filename == "a.img"
