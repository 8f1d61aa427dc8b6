# SPDX-License-Identifier: GPL-2.0-only
"""What the benchmarks read out of other programs' text."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.machine import cpu_seconds, resident_beyond_guest
from benchmarks.tools import parse_seconds

SMAPS = """\
55e0-55e1 r-xp 00000000 fe:01 1 /usr/bin/python3
Size:                100 kB
Rss:                  80 kB
7f00-7f01 rw-s 00000000 00:01 2 /memfd:miniqemu-ram (deleted)
Size:               1024 kB
Rss:                 300 kB
7f02-7f03 r-xp 00000000 fe:01 3 /lib/libc.so.6
Size:               4096 kB
Rss:                  20 kB
"""


def test_the_seconds_are_found_in_what_qemu_img_bench_prints() -> None:
    text = "Sending 5 read requests, 4096 bytes each\nRun completed in 0.064 seconds.\n"
    assert parse_seconds(text) == 0.064


def test_a_run_without_a_time_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(ValueError, match="printed no time"):
        parse_seconds("Sending 5 read requests\n")


def test_the_guests_ram_is_left_out_of_the_resident_memory() -> None:
    assert resident_beyond_guest(SMAPS) == (80 + 20) * 1024


def test_a_machine_whose_guest_ram_is_not_mapped_is_an_error() -> None:
    with pytest.raises(ValueError, match="no mapping"):
        resident_beyond_guest(SMAPS.replace("miniqemu-ram", "other"))


def test_the_cpu_time_is_that_of_all_threads(tmp_path: Path) -> None:
    for thread, nanoseconds in ((7, 250_000_000), (8, 1_000_000_000)):
        task = tmp_path / "7" / "task" / str(thread)
        task.mkdir(parents=True)
        (task / "schedstat").write_text(f"{nanoseconds} 12345 6\n")
    assert cpu_seconds(7, tmp_path) == 1.25
