# SPDX-License-Identifier: GPL-2.0-only
"""The fuzzers of formats: their seeds are in order, their rules find bugs, and they find none in a
short run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from block.core import check, graph
from block.core.error import BlockError
from block.formats.luks.driver import LuksDriver
from block.formats.qcow2.driver import Qcow2Driver
from block.formats.qed.driver import QedDriver
from block.formats.vmdk.driver import VmdkDriver
from tests.fuzz.image import LIMIT, LONGEST, Target, tried
from tests.fuzz.image_seeds import FORMATS, images
from tests.fuzz.short_run import short_run

SECONDS = 8


@pytest.fixture(params=FORMATS)
def fmt(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def target(fmt: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Target]:
    monkeypatch.chdir(tmp_path)
    with closing(Target(fmt)) as target:
        yield target


def test_the_seeds_are_images_that_open(target: Target, fmt: str) -> None:
    opened = []

    def note(disk: object) -> None:
        opened.append(disk)

    for name, image in images(fmt).items():
        assert len(image) <= LONGEST
        target(image)
        before = len(opened)
        target.on(image, 0, note)
        assert len(opened) == before + (name != "text"), name


def test_an_image_that_is_none_is_refused(target: Target) -> None:
    target(b"")
    target(b"\xff" * 4096)


@pytest.mark.parametrize("hook", ["co_preadv", "co_pwritev"])
def test_what_is_no_blockerror_is_found(
    target: Target, fmt: str, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = {"qcow2": Qcow2Driver, "qed": QedDriver, "vmdk": VmdkDriver, "luks": LuksDriver}[fmt]

    def broken(*request: object) -> None:
        raise IndexError("a table that is too short")

    monkeypatch.setattr(driver, hook, broken)
    with pytest.raises(IndexError):
        target(next(iter(images(fmt).values())))
    for bs in list(graph.all_states):
        bs.unref()


def test_a_repair_that_leaves_errors_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([(0, 0), (1, 0)])

    def lying(*_: object) -> check.BdrvCheckResult:
        result = check.BdrvCheckResult()
        result.corruptions, result.leaks = next(found)
        return result

    monkeypatch.setattr(check, "check", lying)
    with closing(Target("qcow2")) as target, pytest.raises(AssertionError):
        target(images("qcow2")["v3"])


def test_the_file_does_not_grow_for_ever() -> None:
    from tests.fuzz.image import ShortRam
    from tests.support.drivers import Disk, backend_on, ram_node

    blk = backend_on(ram_node(Disk(LIMIT), "", ShortRam))
    for grow in (lambda: blk.truncate(LIMIT + 1), lambda: blk.truncate(1 << 60)):
        with pytest.raises(BlockError, match="File too large"):
            grow()
    tried(blk.truncate, LIMIT + 1)
    blk.pwrite(LIMIT - 512, b"x" * 512)
    blk.unref()


@pytest.mark.full
def test_a_short_run_finds_nothing(fmt: str, tmp_path: Path) -> None:
    reached = short_run(fmt, tmp_path, SECONDS)
    assert reached[-1] > reached[0], "no input led anywhere new"
