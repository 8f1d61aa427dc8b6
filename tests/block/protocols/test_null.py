# SPDX-License-Identifier: GPL-2.0-only
"""null-co: a disk that forgets."""

from __future__ import annotations

import pytest

import block
from block.core.error import BlockError


def test_it_has_a_gibibyte_and_forgets_what_is_written() -> None:
    with block.open("null-co://", format="raw") as disk:
        assert disk.length == 1 << 30
        disk.pwrite(0, b"forget me")
        disk.flush()


def test_it_reads_as_zeroes_when_asked_to() -> None:
    options = {"driver": "null-co", "size": 4096, "read-zeroes": True}
    with block.open(options=options) as disk:
        buffer = bytearray(b"x" * 512)
        disk.preadv_into(0, [memoryview(buffer)])
        assert buffer == bytes(512)
        ret, pnum, _, _ = disk.bs.block_status(0, 4096)  # type: ignore[union-attr]
        assert (bool(ret & 2), pnum) == (True, 4096)


@pytest.mark.parametrize("latency", [0, 1000])
def test_a_latency_makes_it_wait(latency: int) -> None:
    with block.open(options={"driver": "null-co", "latency-ns": latency}) as disk:
        before = disk.stats.now()
        disk.pread(0, 512)
        assert disk.stats.now() - before >= latency


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("null-co://x", {}, "The only allowed filename for this driver is 'null-co://'"),
        (None, {"driver": "null-co", "latency-ns": -1}, "latency-ns is invalid"),
    ],
)
def test_what_makes_no_sense_is_refused(
    name: str | None, options: dict[str, object], message: str
) -> None:
    with pytest.raises(BlockError) as error:
        block.open(name, options=options)
    assert message in str(error.value)
