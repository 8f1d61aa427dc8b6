# SPDX-License-Identifier: GPL-2.0-only
"""External data files: what the header and the user may name, and files that are not there."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

import block
from block.core import flags as f
from block.core.error import BlockError
from block.core.open import open_backend
from block.formats.qcow2.layout import EXT_DATA_FILE
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, Opener, state_of
from tests.support.qcow2_datafile import data, image, raw_image
from tests.support.refusals import refused

__all__ = ["data", "image", "raw_image"]


def refusal(path: Path, **options: object) -> str:
    return str(refused(path, "qcow2", options=options))


def test_without_a_name_somebody_must_say_which_file_it_is(image: Path, data: Path) -> None:
    content = image.read_bytes()
    at = content.index(struct.pack(">I", EXT_DATA_FILE))
    image.write_bytes(content[:at] + b"\x11\x11\x11\x11" + content[at + 4 :])
    assert refusal(image) == "'data-file' is required for this image"
    named = {"data-file.driver": "file", "data-file.filename": os.fspath(data)}
    block.open(os.fspath(image), format="qcow2", options=named).close()


def test_an_image_without_a_data_file_takes_none(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "plain.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE)
    data.write_bytes(bytes(SIZE))
    named = {"data-file.driver": "file", "data-file.filename": os.fspath(data)}
    message = "'data-file' can only be set for images with an external data file"
    assert refusal(path, **named) == message


def test_only_with_a_data_file_can_it_be_raw(tmp_path: Path) -> None:
    path = tmp_path / "plain.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE)
    content = bytearray(path.read_bytes())
    struct.pack_into(">Q", content, 88, 2)
    path.write_bytes(content)
    assert refusal(path) == "data-file-raw requires a data file"


def test_a_data_file_that_is_gone_is_named(image: Path, data: Path) -> None:
    data.unlink()
    assert refusal(image) == f"Could not open '{data}': No such file or directory"


@pytest.mark.parametrize(
    "given", [{}, {"data-file.driver": "file", "data-file.filename": "gone"}, {"data-file": "n"}]
)
def test_whoever_looks_at_the_header_only_needs_no_data_file(
    image: Path, data: Path, given: dict[str, object]
) -> None:
    data.unlink()
    with open_backend(os.fspath(image), options=given, flags=f.BDRV_O_NO_IO) as disk:
        assert disk.bs is not None
        assert disk.bs.drv is not None
        told = disk.bs.drv.get_specific_info(disk.bs)
    assert told is not None
    assert told["data"]["data-file"] == os.fspath(data)  # type: ignore[index]  # of the schema


@pytest.mark.parametrize(
    "name", ['json:{"driver":"null-co"}', "nbd://localhost/x", "file:x", "n\0ul", "\udcff"]
)
def test_the_name_in_the_header_is_a_files_whatever_it_looks_like(image: Path, name: str) -> None:
    """An image must not be able to have anything opened but a file."""
    with open_backend(os.fspath(image), flags=f.BDRV_O_RDWR) as disk:
        from block.formats.qcow2 import datafile, header_update

        datafile.set_file_name(state_of(disk), name)
        header_update.update_header(state_of(disk), SIZE)
    shown = name.partition("\0")[0]
    assert refusal(image) == f"Could not open '{shown}': No such file or directory"


def test_a_data_file_that_is_too_short_reads_as_zeroes_behind_its_end(
    raw_image: Path, data: Path, opener: Opener
) -> None:
    data.write_bytes(b"s" * 1000)
    disk = opener(raw_image)
    assert disk.pread(0, CLUSTER) == b"s" * 1000 + bytes(CLUSTER - 1000)
    disk.pwrite(5 * CLUSTER, b"x" * 512)
    assert disk.pread(5 * CLUSTER, 1024) == b"x" * 512 + bytes(512)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_file_raw": True}, "data-file-raw requires data-file"),
        ({"data_file": "d", "compat": "0.10"}, "External data files are only supported with"),
        ({"data_file": "d", "data_file_raw": True, "backing_file": "b", "backing_fmt": "raw"},
         "Backing file and data-file-raw cannot be used at the same time"),
    ],
    ids=["raw alone", "version 2", "raw with a backing file"],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_a_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BlockError, match=message):
        block.create("a.qcow2", "qcow2", SIZE, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_raw_image_takes_no_backing_file_later_either(raw_image: Path, opener: Opener) -> None:
    disk = opener(raw_image)
    assert disk.bs is not None
    assert disk.bs.drv is not None
    with pytest.raises(BlockError, match="Invalid argument"):
        disk.bs.drv.change_backing_file(disk.bs, "base.raw", "raw")
