# SPDX-License-Identifier: GPL-2.0-only
"""`bitmap` and `convert --bitmaps`, as far as no real tool is needed to judge them."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NoReturn

import pytest

from block.core.error import BlockError
from block.formats.qcow2 import bitmap_store
from miniqemu.cli.img.main import main
from tests.support.qcow2_bitmaps import AUTO, stored
from tests.support.qcow2_damage import counts, run_check


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image `a` of 1 MiB in the current folder."""
    monkeypatch.chdir(tmp_path)
    assert img("create -q -f qcow2 a 1M") == 0
    return tmp_path / "a"


def img(line: str) -> int:
    return main(["img", *line.split()])


def fails(*args: object) -> NoReturn:
    raise BlockError(errno.ENOSPC)


def test_actions_are_done_in_their_order(image: Path) -> None:
    assert img("bitmap --add --disable --remove --add -g 4k a b0") == 0
    assert stored(image)["b0"][:3] == (AUTO, 4096, [])
    assert img("bitmap --disable --add a b0") == 1, "it is there already"
    assert stored(image)["b0"].flags == 0, "what came before is done"


def test_what_cannot_be_saved_ends_with_an_error(
    image: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert img("bitmap --add a b0") == 0
    assert img("convert --bitmaps -O qcow2 a source") == 0
    with monkeypatch.context() as patch:
        patch.setattr(bitmap_store, "_write_directory", fails)
        assert img("bitmap --add a b1") == 1
        assert img("convert --bitmaps -O qcow2 source copy") == 1
    said = capfd.readouterr().err
    assert said.count("img: No space left on device\n") == 2
    assert set(stored(image)) == {"b0"}
    assert stored(image.with_name("copy")) == {}
    for name in ("a", "copy"):
        assert counts(run_check(image.with_name(name))[0]) == (0, 0, 0)


def test_a_copy_has_its_bitmaps(image: Path) -> None:
    assert img("bitmap --add a b0") == 0
    assert img("bitmap --add --disable -g 512 a b1") == 0
    assert img("convert --bitmaps -O qcow2 -o cluster_size=4k a copy") == 0
    assert stored(image.with_name("copy")).keys() == {"b0", "b1"}
    assert img("convert -O qcow2 a plain") == 0
    assert stored(image.with_name("plain")) == {}


def test_a_bitmap_that_was_not_saved_is_skipped_or_in_the_way(
    image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert img("bitmap --add a b0") == 0
    data = bytearray(image.read_bytes())
    data[stored(image)["b0"].at + 15] |= 1
    image.write_bytes(data)
    assert img("convert --bitmaps -O qcow2 a copy") == 1
    assert capfd.readouterr().err == (
        "img: Cannot copy inconsistent bitmap 'b0'\n"
        "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it\n"
    )
    assert not image.with_name("copy").exists()
    assert img("convert --bitmaps --skip-broken-bitmaps -O qcow2 a copy") == 0
    assert capfd.readouterr().err == "img: warning: Skipping inconsistent bitmap 'b0'\n"
    assert stored(image.with_name("copy")) == {}
