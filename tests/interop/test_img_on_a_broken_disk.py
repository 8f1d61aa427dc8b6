# SPDX-License-Identifier: GPL-2.0-only
"""The disk says EIO in the middle of a command: once, or from then on. One clear error, the sources
as they were, and no image, or one in which `qemu-img check` finds leaks at most. A command that
succeeds all the same, because somebody tried again, has done all of its work.

The calls of the `file` driver fail: what the kernel would say of a bad disk. Each command is run
again and again, and fails a little later each time.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from block.protocols.file import threads
from miniqemu.cli.img.main import main
from tests.support.img_commands import CHANGE, MAKE, Line, contents, is_sound, make_corpus
from tests.support.qemu_tools import qemu_done

pytestmark = pytest.mark.full
# One makes so many calls that it would take half of the time of all.
LINES = [line for line in (*MAKE, *CHANGE) if "preallocation=metadata" not in line.words]
CALLS = {"read": ("preadv",), "write": ("pwritev", "pwrite"), "flush": ("fsync",)}


class Disk:
    """The call of one kind that fails: number `fails_at`, and all that follow if `for_ever`."""

    def __init__(self) -> None:
        self.kind = ""
        self.calls = self.fails_at = 0
        self.for_ever = False

    def breaks(self, kind: str, fails_at: int, for_ever: bool) -> None:
        self.kind, self.fails_at, self.for_ever = kind, fails_at, for_ever
        self.calls = 0

    @property
    def has_failed(self) -> bool:
        return self.calls > self.fails_at

    def failing(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if kind == self.kind:
                self.calls += 1
                behind = self.calls - 1 - self.fails_at
                if behind == 0 or (self.for_ever and behind > 0):
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments)

        return call


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    broken = Disk()
    for kind, names in CALLS.items():
        for name in names:
            monkeypatch.setattr(os, name, broken.failing(kind, getattr(os, name)))
    monkeypatch.setattr(threads, "sync_data", broken.failing("flush", threads.sync_data))
    return broken


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder


def places() -> Iterator[int]:
    """Which call fails: the first ones, and then ever fewer."""
    place = 0
    while True:
        yield place
        place += 1 + place // 3


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.words)
def test_a_broken_disk_is_an_error_that_leaves_all_else_as_it_was(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    disk: Disk,
    line: Line,
    kind: str,
    for_ever: bool,
) -> None:
    expected = done_well(corpus, tmp_path / "good", monkeypatch, line)
    for place in places():
        folder = tmp_path / str(place)
        shutil.copytree(corpus, folder)
        others = contents(folder, line.target)
        monkeypatch.chdir(folder)
        disk.breaks(kind, place, for_ever)
        status = main(["miniqemu-img", *line.words.split()])
        has_failed = disk.has_failed
        disk.breaks("", 0, False)
        err = capfd.readouterr().err
        assert contents(folder, line.target) == others
        target = folder / line.target
        if status and "snapshot" in line.words:
            is_whole_after_a_repair(target, expected)
        elif target.exists():
            is_sound(target, line.fmt)
        if status:
            assert has_failed
            assert status == 1
            assert os.strerror(errno.EIO) in err
        else:
            assert err == ""
            qemu_done("qemu-img", "compare", "-U", target, expected)
        shutil.rmtree(folder)
        if not has_failed:
            return


def is_whole_after_a_repair(image: Path, expected: Path) -> None:
    """All clusters of the disk get one more reference, in more than one write. In between they
    count twice and are marked as if they counted once (QEMU leaves that, too): leaks."""
    qemu_done("qemu-img", "check", "-q", "-r", "leaks", image)
    qemu_done("qemu-img", "compare", image, expected)


def done_well(corpus: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, line: Line) -> Path:
    """The image that the command makes of a disk without faults."""
    shutil.copytree(corpus, folder)
    monkeypatch.chdir(folder)
    assert main(["miniqemu-img", *line.words.split()]) == 0
    return folder / line.target
