# SPDX-License-Identifier: GPL-2.0-only
"""Sizes, times and rates; what is expected was printed by qemu-io 7.2 or by C's printf."""

from __future__ import annotations

import pytest

from miniqemu.cli.io.numbers import cvtnum, cvtstr, parse_pattern, rate, timestr
from miniqemu.cli.io.session import Failed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bytes"),
        (16, "16 bytes"),
        (0.193292, "0.193292 bytes"),
        (16.0004, "16 bytes"),
        (1023, "1023 bytes"),
        (1 << 10, "1 KiB"),
        (1536, "1.500 KiB"),
        ((1 << 20) - 1, "1023.999 KiB"),
        (5 << 40, "5 TiB"),
        (7 << 60, "7 EiB"),
        (float("inf"), "inf EiB"),
    ],
)
def test_a_size_has_three_digits_behind_the_point_or_none(value: float, text: str) -> None:
    assert cvtstr(value) == text


@pytest.mark.parametrize(
    ("ns", "verbose", "text"),
    [
        (0, False, "00.00 sec"),
        (20_000_000, False, "00.02 sec"),
        (999_000_000, True, "0:00:01.00"),
        (1_500_000_000, False, "0:00:01.50"),
        (3_661_250_000_000, False, "1:01:01.25"),
    ],
)
def test_a_time_is_seconds_or_a_clock(ns: int, verbose: bool, text: str) -> None:
    assert timestr(ns, verbose) == text


def test_a_rate_is_a_second_s() -> None:
    assert rate(512, 500_000_000) == 1024
    assert rate(1, 0) == float("inf")


def test_a_pattern_is_one_byte() -> None:
    assert parse_pattern("0xff") == 255
    for text in ("256", "-1", "z"):
        with pytest.raises(Failed, match=f"^{text} is not a valid pattern byte$"):
            parse_pattern(text)


def test_a_size_ends_below_2_to_the_63() -> None:
    assert cvtnum("8191P") == 8191 << 50
    with pytest.raises(Failed, match="argument too large -- 8E"):
        cvtnum("8E")
    with pytest.raises(Failed, match="extraneous/unrecognized suffix -- 1z"):
        cvtnum("1z")
