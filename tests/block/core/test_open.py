# SPDX-License-Identifier: GPL-2.0-only
"""Opening trees by names and options (block/core/open*.py, inherit.py, probe.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from block.core import flags as f
from block.core import graph
from block.core.error import BlockError
from block.core.node import BlockDriverState
from block.core.open import bdrv_open, blockdev_add, open_backend
from block.core.open_node import apply_auto_read_only
from tests.support.descriptors import described, open_fds
from tests.support.images import toy_format, write_toy


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "a.img"
    path.write_bytes(b"data" * 1024)
    return os.fspath(path)


@pytest.fixture
def toy() -> Iterator[None]:
    with toy_format():
        yield


@contextmanager
def opened(*args: Any, **kwargs: Any) -> Iterator[BlockDriverState]:
    bs = bdrv_open(*args, **kwargs)
    try:
        yield bs
    finally:
        bs.unref()


def refusal(*args: Any, **kwargs: Any) -> str:
    """The message with which an open is refused."""
    with pytest.raises(BlockError) as caught:
        bdrv_open(*args, **kwargs)
    return str(caught.value)


def child(bs: BlockDriverState) -> BlockDriverState:
    assert bs.file is not None
    return bs.file.bs


RAW = {"driver": "raw"}


def test_a_loop_of_backing_files_is_one_clear_error(tmp_path: Path, toy: None) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_toy(one, "two")
    write_toy(two, "one")
    message = "The chain of images is more than 200 nodes deep, or a loop"
    assert refusal(os.fspath(one), flags=0) == message
    assert not any(os.fspath(tmp_path) in what for what in described().values())


def test_an_empty_backing_is_none_with_a_warning(
    tmp_path: Path, toy: None, capsys: pytest.CaptureFixture[str]
) -> None:
    write_toy(tmp_path / "one", "nosuch")
    for nothing, warnings in (("", 1), (None, 0)):
        with opened(os.fspath(tmp_path / "one"), options={"backing": nothing}, flags=0) as bs:
            assert bs.backing is None
        said = 'Use of "backing": "" is deprecated; use "backing": null instead\n'
        assert capsys.readouterr().err == f"warning: {said}" * warnings


def test_a_name_and_a_driver_make_a_format_over_a_protocol(image: str) -> None:
    with opened(image, options=RAW) as bs:
        assert bs.drv is not None
        assert bs.drv.format_name == "raw"
        assert child(bs).drv is not None
        assert (bs.filename, child(bs).filename) == (image, image)
        assert bs.getlength() == 4096
        assert not bs.probed


def test_options_alone_describe_the_same_tree(image: str) -> None:
    flat = {"driver": "raw", "file.driver": "file", "file.filename": image}
    nested = {"driver": "raw", "file": {"driver": "file", "filename": image}}
    for options in (flat, nested):
        with opened(options=options) as bs:
            assert child(bs).filename == image


def test_a_json_name_describes_a_tree(image: str) -> None:
    with opened(f'json:{{"driver": "raw", "file": {{"filename": "{image}"}}}}') as bs:
        assert child(bs).filename == image


def test_an_option_goes_before_what_a_json_name_says(image: str) -> None:
    name = f'json:{{"driver": "raw", "size": 512, "file": {{"filename": "{image}"}}}}'
    with opened(name, options={"size": 1024}) as bs:
        assert bs.getlength() == 1024


def test_a_prefix_may_stand_before_a_path(image: str) -> None:
    with opened(f"file:{image}", options=RAW) as bs:
        assert child(bs).filename == image


def test_a_colon_in_a_name_needs_a_prefix_or_a_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a:b").write_bytes(bytes(512))
    monkeypatch.chdir(tmp_path)
    assert refusal("a:b", options=RAW) == "Unknown protocol 'a'"
    for name in ("./a:b", "file:a:b"):
        with opened(name, options=RAW) as bs:
            assert child(bs).filename == "./a:b"


def test_an_image_that_looks_like_nothing_is_raw_and_that_is_a_guess(
    image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(image) as bs:
        assert bs.probed
        assert bs.options["driver"] == "raw"
    warning = capsys.readouterr().err
    assert f"Image format was not specified for '{image}' and probing guessed raw." in warning


def test_a_guess_that_is_only_read_needs_no_warning(
    image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(image, flags=0):
        assert capsys.readouterr().err == ""


def test_an_empty_image_is_raw(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    with opened(os.fspath(path), flags=0) as bs:
        assert bs.getlength() == 0


def test_a_format_that_this_version_lacks_is_not_taken_for_raw(tmp_path: Path) -> None:
    path = tmp_path / "later.vhdx"
    path.write_bytes(b"vhdxfile".ljust(4096, b"\0"))
    with_it = refusal(os.fspath(path))
    assert with_it == "Driver 'vhdx' is not available in this version of miniqemu"


def test_a_probed_format_is_opened(tmp_path: Path, toy: None) -> None:
    with opened(os.fspath(write_toy(tmp_path / "t.toy")), flags=0) as bs:
        assert bs.drv is not None
        assert bs.drv.format_name == "toy"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"driver": "nosuch"}, "Unknown driver 'nosuch'"),
        ({"driver": "raw", "foo": 1}, "Block format 'raw' does not support the option 'foo'"),
        (
            {"driver": "raw", "file.foo": 1},
            "Block protocol 'file' doesn't support the option 'foo'",
        ),
        ({"driver": "file", "foo": 1}, "Block protocol 'file' doesn't support the option 'foo'"),
        ({"driver": "raw", "cache.direct": "x"}, "Parameter 'cache.direct' expects 'on' or 'off'"),
        ({"driver": "raw", "read-only": 5}, "Parameter 'read-only' expects 'on' or 'off'"),
        ({"driver": "raw", "discard": "x"}, "Invalid discard option"),
        ({"driver": "raw", "detect-zeroes": "x"}, "invalid parameter value: x"),
        (
            {"driver": "raw", "detect-zeroes": "unmap"},
            "setting detect-zeroes to unmap is not allowed without setting discard operation "
            "to unmap",
        ),
        (
            {"driver": "raw", "force-share": "on"},
            "force-share=on can only be used with read-only images",
        ),
        ({"driver": "raw", "node-name": "1x"}, "Invalid node-name: '1x'"),
        ({"driver": "raw", "backing": "x"}, "Driver doesn't support backing files"),
        (
            {"driver": "file", "filename": "x"},
            "Can't specify 'file' and 'filename' options at the same time",
        ),
        (
            {"driver": "raw", "size": "x"},
            "Parameter 'size' expects a non-negative number below 2^64",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    image: str, options: dict[str, object], message: str
) -> None:
    assert refusal(image, options=options) == message


def test_something_must_be_opened() -> None:
    assert refusal() == "Must specify either driver or file"
    assert refusal(options={"driver": "raw"}) == 'A block device must be specified for "file"'
    assert refusal(options={"driver": "file"}) == "The 'file' block driver requires a file name"
    assert refusal("") == "The 'file' block driver requires a file name"


def test_a_reference_shares_the_node(image: str) -> None:
    with (
        opened(image, options={"driver": "file", "node-name": "node0"}) as node,
        opened(options={"driver": "raw", "file": "node0"}) as raw,
    ):
        assert child(raw) is node
        assert graph.lookup_bs("node0") is node


def test_a_reference_stands_alone(image: str) -> None:
    with opened(image, options={"driver": "file", "node-name": "node0"}):
        options = {"driver": "raw", "file": "node0", "file.locking": "off"}
        assert refusal(options=options) == (
            "Cannot reference an existing block device with additional options or a new filename"
        )
    message = "Cannot find device='nope' nor node-name='nope'"
    assert refusal(options={"driver": "raw", "file": "nope"}) == message


def test_two_nodes_cannot_bear_one_name(image: str) -> None:
    with opened(image, options={"driver": "file", "node-name": "node0"}):
        again = refusal(image, options={"driver": "file", "node-name": "node0"})
        assert again == "Duplicate nodes with node-name='node0'"


def test_a_refused_open_leaves_no_descriptor_behind(image: str) -> None:
    before = open_fds()
    refusal(image, options={"driver": "raw", "foo": 1})
    refusal(image, options={"driver": "file", "aio": "native"})
    assert open_fds() == before


# -- flags and what children inherit


def test_a_child_inherits_the_cache_mode_and_read_only(image: str) -> None:
    flags = f.BDRV_O_NO_FLUSH
    with opened(image, options=RAW, flags=flags) as bs:
        assert child(bs).open_flags & f.BDRV_O_NO_FLUSH
        assert (bs.read_only, child(bs).read_only) == (True, True)


def test_what_is_said_for_a_child_goes_before_what_it_inherits(image: str) -> None:
    options = {"driver": "raw", "cache.no-flush": True, "file.cache.no-flush": "off"}
    with opened(image, options=options) as bs:
        assert bs.open_flags & f.BDRV_O_NO_FLUSH
        assert not child(bs).open_flags & f.BDRV_O_NO_FLUSH


def test_discard_is_refused_at_the_top_and_let_through_below(image: str) -> None:
    with opened(image, options=RAW) as bs:
        assert not bs.open_flags & f.BDRV_O_UNMAP
        assert child(bs).open_flags & f.BDRV_O_UNMAP


def test_a_copy_of_options_is_kept_without_those_of_children(image: str) -> None:
    with opened(image, options={"driver": "raw", "file.locking": "off"}) as bs:
        assert bs.explicit_options == {"driver": "raw"}
        assert child(bs).explicit_options == {"locking": "off"}
        assert not [name for name in bs.options if name.startswith("file")]


def test_a_tree_with_options_that_matter_has_a_json_name(image: str) -> None:
    with opened(image, options={"driver": "raw", "offset": 512, "node-name": "n"}) as bs:
        name = bs.filename
        assert name.startswith("json:{")
    with opened(name) as again:
        assert again.getlength() == 4096 - 512


def test_overlays_are_refused_by_name(image: str) -> None:
    told = refusal(image, options=RAW, flags=f.BDRV_O_SNAPSHOT)
    assert told.startswith("snapshot=on needs an overlay")


def test_a_driver_may_fall_back_to_read_only_where_that_is_allowed(image: str) -> None:
    with opened(image, options={**RAW, "auto-read-only": True}) as bs:
        apply_auto_read_only(bs)
        assert bs.read_only
    with (
        opened(image, options=RAW) as bs,
        pytest.raises(BlockError, match=r"^Image is read-only$"),
    ):
        apply_auto_read_only(bs)


# -- backing chains


def chain(bs: BlockDriverState) -> list[str]:
    """The names of a node and of all below it by backing."""
    names = [os.path.basename(bs.filename)]
    while bs.backing is not None:
        bs = bs.backing.bs
        names.append(os.path.basename(bs.filename))
    return names


@pytest.fixture
def three(tmp_path: Path, toy: None) -> Path:
    """top -> middle -> base, by relative names."""
    (tmp_path / "base.img").write_bytes(b"base" * 256)
    write_toy(tmp_path / "middle", "base.img")
    return write_toy(tmp_path / "top", "middle")


def test_a_chain_is_opened_by_names_relative_to_each_image(three: Path) -> None:
    with opened(os.fspath(three), flags=0) as bs:
        assert chain(bs) == ["top", "middle", "base.img"]


def test_backing_files_are_read_only(three: Path) -> None:
    with opened(os.fspath(three)) as bs:
        assert bs.backing is not None
        assert (bs.read_only, bs.backing.bs.read_only) == (False, True)
        assert child(bs.backing.bs).read_only


def test_null_says_that_an_image_stands_alone(three: Path) -> None:
    with opened(os.fspath(three), options={"backing": None}, flags=0) as bs:
        assert bs.backing is None


def test_the_backing_file_can_be_another_one(three: Path, image: str) -> None:
    options = {"backing": {"driver": "raw", "file": {"filename": image}}}
    with opened(os.fspath(three), options=options, flags=0) as bs:
        assert bs.backing is not None
        assert bs.backing.bs.filename == image
        assert bs.filename.startswith("json:")


def test_a_word_about_the_backing_file_is_part_of_what_must_be_said_to_open_it_so(
    three: Path,
) -> None:
    with opened(os.fspath(three), flags=0) as bs:
        assert bs.filename == os.fspath(three)
    with opened(os.fspath(three), options={"backing.detect-zeroes": "off"}, flags=0) as bs:
        assert bs.filename.startswith('json:{"backing": ')


def test_the_backing_file_can_be_an_existing_node(three: Path, image: str) -> None:
    base = {"driver": "raw", "node-name": "base0"}
    with (
        opened(image, options=base, flags=0) as node,
        opened(os.fspath(three), options={"backing": "base0"}, flags=0) as bs,
    ):
        assert bs.backing is not None
        assert bs.backing.bs is node


def test_a_missing_backing_file_is_named(three: Path) -> None:
    (three.parent / "base.img").unlink()
    message = refusal(os.fspath(three), flags=0)
    assert message == (
        "Could not open backing file: Could not open backing file: "
        f"Could not open '{three.parent}/base.img': No such file or directory"
    )


# -- -blockdev, and the backend on top


def test_blockdev_wants_a_driver_that_exists_and_a_name(image: str) -> None:
    for options, message in [
        ({"node-name": "n"}, "Parameter 'driver' is missing"),
        ({"driver": "x", "node-name": "n"}, "Parameter 'driver' does not accept value 'x'"),
        (
            {"driver": "file", "filename": image},
            "'node-name' must be specified for the root node",
        ),
    ]:
        with pytest.raises(BlockError) as caught:
            blockdev_add(options)
        assert str(caught.value) == message


def test_blockdev_opens_a_tree(image: str) -> None:
    bs = blockdev_add(
        {"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": image}}
    )
    assert (bs.node_name, bs.read_only, bs.getlength()) == ("n", False, 4096)
    bs.unref()


def test_a_backend_reads_and_writes_what_it_was_opened_for(image: str) -> None:
    blk = open_backend(image, options=RAW, name="disk0", writethrough=True)
    assert graph.find_backend("disk0") is blk
    assert not blk.enable_write_cache
    blk.pwrite(1, b"x")
    assert blk.pread(0, 4) == b"dxta"
    blk.close()


def test_a_backend_that_cannot_be_opened_leaves_its_name_free(image: str) -> None:
    with pytest.raises(BlockError):
        open_backend(image, options={"driver": "nosuch"}, name="disk0")
    assert graph.find_backend("disk0") is None
