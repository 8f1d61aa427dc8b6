# SPDX-License-Identifier: GPL-2.0-only
"""What the README shows works, and what it names exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TOOL_LINES = re.findall(r"^\.venv/(bin/miniqemu-.*)$", README, re.MULTILINE)


def test_there_is_one_example_with_asyncio_and_one_without() -> None:
    assert len(EXAMPLES) == 2
    assert ["asyncio" in code for code in EXAMPLES] == [False, True]


def test_the_examples_print_what_they_wrote(tmp_path: Path) -> None:
    for code in EXAMPLES:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "b'hello'\n", "")


def test_the_lines_with_the_tools_make_a_packed_image(tmp_path: Path) -> None:
    said = ""
    for line in TOOL_LINES:
        program, *words = shlex.split(line)
        done = subprocess.run(
            [sys.executable, str(ROOT / program), *words], cwd=tmp_path, timeout=60,
            capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), line
        said = done.stdout
    assert said.startswith("image: packed.qcow2\nfile format: qcow2\n")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


@pytest.mark.parametrize("place", re.findall(r"`([a-z_/]+/)`", README))
def test_every_folder_of_the_map_is_there(place: str) -> None:
    assert (ROOT / place).is_dir()


@pytest.mark.parametrize("target", re.findall(r"\bmake ([a-z-]+)", README))
def test_every_target_of_make_is_there(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
