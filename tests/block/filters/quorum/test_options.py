# SPDX-License-Identifier: GPL-2.0-only
"""Options and names of a quorum: what is taken, what is refused and how, what it is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import block
from block.core import flags as f
from block.core.error import BlockError
from block.core.filename import node_dirname
from block.core.node import BlockDriverState
from tests.support.drivers import Disk, ram_node
from tests.support.images import toy_format, write_toy
from tests.support.voters import Voters

SIZE = 8192


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for n in range(4):
        (tmp_path / f"{n}.raw").write_bytes(bytes(SIZE))
    return tmp_path


def child(n: int) -> dict[str, object]:
    return {"driver": "raw", "file": {"driver": "file", "filename": f"{n}.raw"}}


def quorum(count: int, **options: object) -> dict[str, object]:
    """Nested options over the first files."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return {"driver": "quorum", "children": [child(n) for n in range(count)], **named}


BLKVERIFY = "blkverify=on can only be set if there are exactly two files and vote-threshold is 2"
LOW = "Parameter 'vote-threshold' expects a value >= 1"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"driver": "quorum"}, "Number of provided children must be 1 or more"),
        ({"driver": "quorum", "children": "x"}, "Number of provided children must be 1 or more"),
        ({"driver": "quorum", "children.1": "x"}, "Option children is not a valid array"),
        ({"driver": "quorum", "children.a.driver": "x"}, "Option children is not a valid array"),
        (
            {"driver": "quorum", "children.0": "x", "children.0.driver": "raw"},
            "Option children is not a valid array",
        ),
        (quorum(2), LOW),
        (quorum(2, vote_threshold=0), LOW),
        (quorum(2, vote_threshold=-1), LOW),
        (quorum(2, vote_threshold="two"), "Parameter 'vote-threshold' expects a number"),
        (quorum(2, vote_threshold=3), "threshold may not exceed children count"),
        (quorum(2, vote_threshold=1, blkverify=True), BLKVERIFY),
        (quorum(3, vote_threshold=2, blkverify="on"), BLKVERIFY),
        (
            quorum(2, vote_threshold=2, blkverify=True, rewrite_corrupted=True),
            "rewrite-corrupted=on cannot be used with blkverify=on",
        ),
        (
            quorum(2, vote_threshold=2, rewrite_corrupted="maybe"),
            "Parameter 'rewrite-corrupted' expects 'on' or 'off'",
        ),
        (
            quorum(2, vote_threshold=2, read_pattern="lifo"),
            "Please set read-pattern as fifo or quorum",
        ),
        (
            quorum(2, vote_threshold=2, wisdom=1),
            "Block format 'quorum' does not support the option 'wisdom'",
        ),
        (quorum(5, vote_threshold=1), "Could not open '4.raw': No such file or directory"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_leaves_nothing(options: dict[str, object], message: str) -> None:
    with pytest.raises(BlockError) as error:
        block.open(options=options)
    assert str(error.value) == message


@pytest.mark.usefixtures("files")
def test_with_fifo_two_options_mean_nothing() -> None:
    options = quorum(2, vote_threshold=1, read_pattern="fifo", blkverify=True)
    with block.open(options={**options, "rewrite-corrupted": True}) as disk:
        assert disk.length == SIZE


def test_copies_of_different_lengths_are_refused(files: Path) -> None:
    (files / "1.raw").write_bytes(bytes(SIZE + 512))
    with pytest.raises(BlockError) as error:
        block.open(options=quorum(2, vote_threshold=1))
    assert str(error.value) == "Could not refresh total sector count: Input/output error"


@pytest.mark.usefixtures("files")
def test_rewriting_needs_a_writable_node() -> None:
    with pytest.raises(BlockError, match="Block node is read-only"):
        block.open(options=quorum(2, vote_threshold=1, rewrite_corrupted=True), read_only=True)
    with block.open(options=quorum(2, vote_threshold=1), read_only=True) as disk:
        assert disk.read_only


def test_children_are_probed(files: Path) -> None:
    """A quorum is no format: what lies below it may be one."""
    for n in range(2):
        write_toy(files / f"{n}.toy", data=b"T" * 512)
    names = {f"children.{n}.file.filename": f"{n}.toy" for n in range(2)}
    with toy_format():
        options = {"driver": "quorum", "vote-threshold": 2, **names}
        with block.open(options=options, read_only=True) as disk:
            assert disk.pread(0, 512) == b"T" * 512


@pytest.mark.usefixtures("files")
def test_the_full_name_opens_the_same_again_and_has_a_list_without_gaps() -> None:
    from block.core import change

    options = quorum(3, vote_threshold=2, rewrite_corrupted=True)
    with block.open(options=options) as disk:
        bs = disk.bs
        assert bs is not None
        change.del_child(bs, "children.1")
        name = bs.filename
    full = json.loads(name.removeprefix("json:"))
    assert full == {
        "driver": "quorum",
        "vote-threshold": 2,
        "rewrite-corrupted": True,
        "children": [child(0), child(2)],
    }
    with block.open(name) as disk:
        assert disk.length == SIZE


@pytest.mark.usefixtures("files")
def test_a_backing_file_cannot_be_relative_to_many_folders() -> None:
    with block.open(options=quorum(1, vote_threshold=1)) as disk:
        bs = disk.bs
        assert bs is not None
        with pytest.raises(BlockError, match="Cannot generate a base directory for quorum nodes"):
            node_dirname(bs)


# -- permissions


def perms(node: BlockDriverState) -> tuple[int, int]:
    (edge,) = node.parents
    return edge.perm, edge.shared_perm


def test_nobody_else_may_write_to_a_child_or_resize_it() -> None:
    with Voters("AA") as voters:
        for node in voters.nodes:
            _, shared = perms(node)
            assert not shared & (f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE)
            assert shared & f.BLK_PERM_CONSISTENT_READ


@pytest.mark.parametrize("rewrites", [True, False])
def test_only_a_quorum_that_mends_writes_on_its_own_account(rewrites: bool) -> None:
    with Voters("AA", rewrite_corrupted=rewrites) as voters:
        voters.blk.set_perm(f.BLK_PERM_CONSISTENT_READ, f.BLK_PERM_ALL)
        for node in voters.nodes:
            assert bool(perms(node)[0] & f.BLK_PERM_WRITE) == rewrites


def test_a_quorum_supports_what_all_its_children_support() -> None:
    able = f.REQ_MAY_UNMAP | f.REQ_FUA
    first, second = ram_node(Disk()), ram_node(Disk())
    first.supported_zero_flags, second.supported_zero_flags = able, f.REQ_FUA
    names = [first.node_name, second.node_name]
    options = {"driver": "quorum", "vote-threshold": 1, "children": names}
    with block.open(options=options) as disk:
        assert disk.bs is not None
        assert disk.bs.supported_zero_flags == f.REQ_FUA | f.REQ_WRITE_UNCHANGED
        assert disk.bs.supported_write_flags == f.REQ_WRITE_UNCHANGED
    first.unref()
    second.unref()
