# SPDX-License-Identifier: GPL-2.0-only
"""JSON as QEMU prints it. The texts here were printed by QEMU 7.2."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from block.qapi.qjson import dict_items, quoted, to_json

INFO = {
    "filename": "a.qcow2",
    "format": "qcow2",
    "dirty-flag": False,
    "actual-size": 200704,
    "virtual-size": 10485760,
    "cluster-size": 65536,
    "full-backing-filename": "base",
    "backing-filename": "base",
    "backing-filename-format": "raw",
    "format-specific": {"type": "qcow2", "data": {"compat": "1.1", "corrupt": False}},
}
TEXT = """\
{
    "backing-filename-format": "raw",
    "virtual-size": 10485760,
    "filename": "a.qcow2",
    "cluster-size": 65536,
    "format": "qcow2",
    "actual-size": 200704,
    "format-specific": {
        "type": "qcow2",
        "data": {
            "compat": "1.1",
            "corrupt": false
        }
    },
    "full-backing-filename": "base",
    "backing-filename": "base",
    "dirty-flag": false
}"""


def test_members_come_in_the_order_of_qemus_hash_table() -> None:
    assert to_json(INFO, pretty=True) == TEXT


def test_of_two_in_one_bucket_the_later_comes_first() -> None:
    # One bucket: the hash adds the bytes, each shifted by its place; 1 << 5 is 32.
    assert [name for name, _ in dict_items({"aB": 1, "Ab": 2})] != ["aB", "Ab"]
    one, two = "a!", "A" + chr(ord("!") + 1)
    assert [name for name, _ in dict_items({one: 1, two: 2})] == [two, one]
    assert [name for name, _ in dict_items({two: 2, one: 1})] == [one, two]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", '"plain"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("\n\t\r\b\f", '"\\n\\t\\r\\b\\f"'),
        ("\x01\x7f", '"\\u0001\\u007F"'),
        ("ü", '"\\u00FC"'),
        ("\U0001f600", '"\\uD83D\\uDE00"'),
        (b"a\xffb".decode(errors="surrogateescape"), '"a\\uFFFDb"'),
        (b"\xc3(".decode(errors="surrogateescape"), '"\\uFFFD("'),
        (b"\x80\x80".decode(errors="surrogateescape"), '"\\uFFFD\\uFFFD"'),
        (b"\xed\xa0\x80.".decode(errors="surrogateescape"), '"\\uFFFD."'),  # a surrogate
        (b"\xc0\xaf.".decode(errors="surrogateescape"), '"\\uFFFD."'),  # too long a form
        ("\ufffe.", '"\\uFFFD."'),  # a noncharacter
    ],
)
def test_strings_are_escaped_as_qemu_escapes_them(text: str, expected: str) -> None:
    assert quoted(text) == expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text('ab"\\\nü€'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab-"), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.booleans())
def test_whoever_reads_it_gets_the_same_value(value: Any, pretty: bool) -> None:
    assert json.loads(to_json(value, pretty)) == value


def test_empty_ones_have_a_line_for_their_end() -> None:
    assert to_json({}, pretty=True) == "{\n}"
    assert to_json([], pretty=True) == "[\n]"
    assert to_json([]) == "[]"
