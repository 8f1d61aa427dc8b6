# SPDX-License-Identifier: GPL-2.0-only
"""Fields on a disk: read by name, written by name, as `construct` would."""

from __future__ import annotations

import struct

import construct
import pytest

from block.core.record import Record

PLACE = Record(">", magic="4s", size="Q", kind="B3x", count="H")
SAME = construct.Struct(
    "magic" / construct.Bytes(4), "size" / construct.Int64ub, "kind" / construct.Int8ub,
    construct.Padding(3), "count" / construct.Int16ub,
)  # fmt: skip
VALUES = {"magic": b"disk", "size": 1 << 40, "kind": 7, "count": 0x1234}


def test_it_writes_what_construct_writes() -> None:
    assert PLACE.build(VALUES) == SAME.build(VALUES)
    assert PLACE.size == SAME.sizeof() == 18


def test_it_reads_what_construct_reads() -> None:
    data = bytes(range(18))
    fields, same = PLACE.parse(data), SAME.parse(data)
    assert (fields.magic, fields.size, fields.kind, fields.count) == (
        same.magic, same.size, same.kind, same.count,
    )  # fmt: skip


def test_the_byte_order_is_the_record_s() -> None:
    assert Record("<", count="H").build({"count": 0x1234}) == b"\x34\x12"
    assert Record(">", count="H").build({"count": 0x1234}) == b"\x12\x34"


def test_it_reads_at_an_offset_and_passes_over_what_follows() -> None:
    assert PLACE.parse(b"??" + PLACE.build(VALUES) + b"more", 2).values() == VALUES


def test_data_that_end_too_early_are_refused() -> None:
    with pytest.raises(struct.error, match="18 bytes"):
        PLACE.parse(bytes(17))


def test_a_value_that_lacks_is_named_and_others_are_passed_over() -> None:
    assert PLACE.build({**VALUES, "other": 1}) == PLACE.build(VALUES)
    with pytest.raises(KeyError, match="kind"):
        PLACE.build({"magic": b"", "size": 0, "count": 0})


def test_values_can_be_added_and_changed() -> None:
    fields = PLACE.parse(PLACE.build(VALUES))
    fields.update({"size": 3, "more": 4})
    assert (fields.size, fields.more, fields.kind) == (3, 4, 7)
    assert fields.values() == {**VALUES, "size": 3, "more": 4}
