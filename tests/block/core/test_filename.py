# SPDX-License-Identifier: GPL-2.0-only
"""Names of images (block/core/filename.py)."""

from __future__ import annotations

import pytest

from block.core import filename as fn
from block.core.error import BlockError
from block.core.open import blockdev_add


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("nbd:localhost", True),
        ("http://host/a", True),
        ("a:b", True),
        ("./a:b", False),
        ("/a:b", False),
        ("dir/a:b", False),
        ("plain.img", False),
        ("", False),
    ],
)
def test_a_protocol_is_a_colon_before_the_first_slash(name: str, has: bool) -> None:
    assert fn.path_has_protocol(name) is has


@pytest.mark.parametrize(
    ("base", "name", "whole"),
    [
        ("/images/a.qcow2", "b.img", "/images/b.img"),
        ("/images/a.qcow2", "/other/b.img", "/other/b.img"),
        ("a.qcow2", "b.img", "b.img"),
        ("dir/a.qcow2", "../b.img", "dir/../b.img"),
        ("http://host/x/a.qcow2", "b.img", "http://host/x/b.img"),
        ("nbd:a", "b", "nbd:b"),
        ("file:dir/a", "b", "file:dir/b"),
        ("/images/a", "", "/images/"),
    ],
)
def test_a_relative_name_is_seen_from_the_other_image(base: str, name: str, whole: str) -> None:
    assert fn.path_combine(base, name) == whole


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("file:a.img", "a.img"),
        ("file:/a", "/a"),
        ("file:a:b", "./a:b"),
        ("file:dir/a:b", "dir/a:b"),
    ],
)
def test_stripping_a_prefix_never_uncovers_another_protocol(name: str, stripped: str) -> None:
    options: dict[str, object] = {"filename": name}
    fn.strip_protocol(name, "file:", options)
    assert options["filename"] == stripped


def test_a_name_without_the_prefix_stays() -> None:
    options: dict[str, object] = {"filename": "a.img"}
    fn.strip_protocol("a.img", "file:", options)
    assert options["filename"] == "a.img"


def test_a_backing_name_is_absolute_has_a_protocol_or_is_combined() -> None:
    assert fn.full_backing_filename("/d/top", "") == ""
    assert fn.full_backing_filename("/d/top", "/x") == "/x"
    assert fn.full_backing_filename("/d/top", "nbd:x") == "nbd:x"
    assert fn.full_backing_filename("/d/top", "base") == "/d/base"


def test_a_json_name_has_no_directory() -> None:
    with pytest.raises(BlockError, match=r"names for 'json:\{\}'$"):
        fn.full_backing_filename("json:{}", "base")


def test_a_json_name_becomes_flat_options() -> None:
    name = 'json:{"driver": "raw", "file": {"driver": "file", "filename": "a"}}'
    assert fn.parse_json_filename(name) == {
        "driver": "raw",
        "file.driver": "file",
        "file.filename": "a",
    }


def test_a_broken_json_name_says_so() -> None:
    with pytest.raises(BlockError, match=r"^Could not parse the JSON options: JSON parse error, "):
        fn.parse_json_filename("json:{")
    with pytest.raises(BlockError, match=r"^Invalid JSON object given$"):
        fn.parse_json_filename("json:[]")


def test_the_nodes_of_a_chain_are_named_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each used to name all below it once more, and opening 200 images took a minute."""
    names = 0
    real = fn.json_filename

    def counted(options: dict[str, object]) -> str:
        nonlocal names
        names += 1
        return real(options)

    options: dict[str, object] = {"driver": "null-co", "size": 1 << 20}
    for _ in range(39):
        options = {"driver": "raw", "size": 1 << 20, "file": options}
    monkeypatch.setattr(fn, "json_filename", counted)
    bs = blockdev_add({**options, "node-name": "top"})
    assert 40 <= names <= 120
    assert bs.filename.count('"driver"') == 40
    bs.unref()
