# SPDX-License-Identifier: GPL-2.0-only
"""The disk is full in the middle of a command: one clear error, the sources as they were, and no
image, or one in which `qemu-img check` finds leaks at most.

Full it is by RLIMIT_FSIZE: no file can become longer than that, wherever the tests run.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.support.img_commands import CHANGE, MAKE, Line, contents, is_sound, make_corpus

pytestmark = pytest.mark.full
PROGRAM = Path(__file__).parents[2] / "bin" / "miniqemu-img"
LIMITS = (0, 65536, 200_000, 1 << 20, 2_000_000)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder


def no_longer_than(limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def run(line: Line, folder: Path, limit: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, os.fspath(PROGRAM), *line.words.split()],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=partial(no_longer_than, limit),
    )  # fmt: skip


@pytest.mark.parametrize("line", [*MAKE, *CHANGE], ids=lambda line: line.words)
def test_a_full_disk_is_an_error_that_leaves_all_else_as_it_was(
    corpus: Path, tmp_path: Path, line: Line
) -> None:
    failures = 0
    for limit in LIMITS:
        folder = tmp_path / str(limit)
        shutil.copytree(corpus, folder)
        others = contents(folder, line.target)
        done = run(line, folder, limit)
        assert "Traceback" not in done.stderr
        assert contents(folder, line.target) == others
        target = folder / line.target
        if target.exists():
            is_sound(target, line.fmt)
        if done.returncode:
            failures += 1
            assert done.returncode == 1
            assert ": " in done.stderr.splitlines()[-1].removeprefix("miniqemu-img: ")
            assert "too large" in done.stderr
        else:
            assert (done.stderr, target.exists()) == ("", True)
        shutil.rmtree(folder)
    assert failures > 1


@pytest.mark.parametrize(
    "line", [line for line in MAKE if line.fmt != "raw"], ids=lambda x: x.words
)
def test_half_an_image_is_taken_away(corpus: Path, tmp_path: Path, line: Line) -> None:
    shutil.copytree(corpus, tmp_path, dirs_exist_ok=True)
    done = run(line, tmp_path, 1000)
    assert done.returncode == 1
    assert not (tmp_path / line.target).exists()
