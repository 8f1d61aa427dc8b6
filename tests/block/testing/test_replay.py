# SPDX-License-Identifier: GPL-2.0-only
"""Mistakes in the block layer: the suite's own tests find them, and each replay fails as it did."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from block.testing.pytest_plugin import file_name
from tests.support.breaking import MISTAKES

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[3]


def run(folder: Path, *args: str) -> str:
    """Runs tests of this project with their mistakes; returns what pytest prints."""
    environment = {**os.environ, "PYTHONHASHSEED": "random", "COLUMNS": "200"}
    environment.pop("CI", None)  # there pytest prints whole disks, and hypothesis tries less
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.breaking", "-p",
               "no:cacheprovider", "--basetemp", str(folder / "tmp"), *args]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip
    return done.stdout + done.stderr


def what_failed(text: str) -> list[str]:
    """The lines that say how a test has failed."""
    return [re.sub(r"0x[0-9a-f]{6,}", "0x...", line) for line in text.splitlines()
            if line.startswith("E  ")]  # fmt: skip


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what the first run records."""
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, recordings: Path) -> str:
    """What pytest prints of all the tests, with one seed."""
    folder = tmp_path_factory.mktemp("first")
    return run(folder, "--recordings", str(recordings), "--seed", "1", *MISTAKES)


def test_each_mistake_is_found_and_its_recording_is_told(first: str, recordings: Path) -> None:
    assert f"{len(MISTAKES)} failed" in first
    for test in MISTAKES:
        assert f"again: pytest --replay {recordings}/{file_name(test)}" in first


SOME_OR_ALL = [pytest.param(test, marks=[] if number % 4 == 0 else [pytest.mark.full])
               for number, test in enumerate(MISTAKES)]  # fmt: skip


@pytest.mark.parametrize("test", SOME_OR_ALL)
def test_its_replay_fails_in_the_same_way(
    first: str, recordings: Path, tmp_path: Path, test: str
) -> None:
    path = recordings / file_name(test)
    recording = json.loads(path.read_text())
    again = run(tmp_path, f"--replay={path}")  # a path of its own would move the root
    assert "1 failed" in again
    choices = len(recording["choices"])
    assert f"replay: the same failure, after the same {choices} choices" in again
    assert what_failed(again)
    assert set(what_failed(again)) <= set(what_failed(first))
