# SPDX-License-Identifier: GPL-2.0-only
"""Zeroes in a buffer are found as qemu-img finds them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from block.ops.sparse import runs

BLOCK = 512


def picture(text: str) -> memoryview:
    """A buffer from one letter a block: 'x' data, '.' zeroes, '-' zeroes but the last byte."""
    pieces = {"x": b"x" * BLOCK, ".": bytes(BLOCK), "-": bytes(BLOCK - 1) + b"!"}
    return memoryview(b"".join(pieces[letter] for letter in text))


def drawn(text: str, offset: int = 0, least: int = BLOCK, block: int = BLOCK) -> str:
    """The runs as a picture: 'x' written, '.' not."""
    view = picture(text)
    return "".join(
        ("x" if is_data else ".") * ((end - start) // BLOCK)
        for is_data, start, end in runs(view, offset, least, block)
    )


@pytest.mark.parametrize("text", ["", "x", ".", "x.", ".x", "xx..x.", "..x.."])
def test_each_block_is_told_apart(text: str) -> None:
    assert drawn(text) == text


def test_one_byte_makes_data() -> None:
    assert drawn(".-.") == ".x."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x.x", "xxx"),  # too few zeroes between data
        ("x..x", "x..x"),
        ("x.x.x..x", "xxxxx..x"),
        (".x", ".x"),  # before data there is nothing to be joined
        ("x.", "x."),  # nor behind
    ],
)
def test_few_zeroes_between_data_are_written_with_them(text: str, expected: str) -> None:
    assert drawn(text, least=2 * BLOCK) == expected


@pytest.mark.parametrize(
    ("text", "offset", "expected"),
    [
        ("x...", 0, "xx.."),  # data end where a block ends
        ("...x", 0, "..xx"),  # zeroes too
        ("...x", BLOCK, "...x"),  # blocks are aligned in the target: 1, 2, 1
        ("...", 0, "..."),  # a block that is cut off
        (".", BLOCK, "."),
        ("..x", 0, "..x"),
        ("xx.", 0, "xx."),
    ],
)
def test_blocks_are_those_of_the_target(text: str, offset: int, expected: str) -> None:
    assert drawn(text, offset, block=2 * BLOCK) == expected


@given(st.text("x.-", max_size=20), st.integers(0, 7), st.integers(0, 3), st.integers(0, 6))
def test_all_is_told_once_and_no_data_are_left_out(
    text: str, offset: int, bits: int, least: int
) -> None:
    view = picture(text)
    at = 0
    before = None
    for is_data, start, end in runs(view, offset * BLOCK, least * BLOCK, BLOCK << bits):
        assert (start, is_data) != (at, before)
        assert start == at < end
        assert is_data or not any(view[start:end])
        at, before = end, is_data
    assert at == len(view)
