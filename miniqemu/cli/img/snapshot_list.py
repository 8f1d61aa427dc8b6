# SPDX-License-Identifier: GPL-2.0-only
"""The list of snapshots, for a person (bdrv_snapshot_dump)."""

from __future__ import annotations

import os
import time

from block.core.snapshot import NO_ICOUNT, SnapshotInfo

from .common import size_to_str

HEAD = f"{'ID':<10}{'TAG':<17}{'VM SIZE':>8}{'DATE':>20}{'VM CLOCK':>13}{'ICOUNT':>11}\n"


def snapshot_lines(infos: list[SnapshotInfo]) -> list[str]:
    """The lines, with their ends."""
    return ["Snapshot list:\n", HEAD, *map(snapshot_line, infos)]


def snapshot_line(info: SnapshotInfo) -> str:
    """One snapshot; the date is the one of this place's clocks."""
    date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(info.date_sec))
    icount = "" if info.icount == NO_ICOUNT else str(_signed(info.icount))
    who = f"{_padded(info.id, 9)} {_padded(info.name, 16)}"
    return (
        f"{who} {size_to_str(info.vm_state_size):>8}{date:>20}"
        f"{vm_clock(info.vm_clock_nsec):>13}{icount:>11}\n"
    )


def _padded(text: str, width: int) -> str:
    """As C's %-9s: bytes are counted."""
    return text + " " * (width - len(os.fsencode(text)))


def vm_clock(nsec: int) -> str:
    """How long the machine had been running."""
    sec, msec = nsec // 1_000_000_000, nsec // 1_000_000 % 1000
    return f"{sec // 3600:02d}:{sec // 60 % 60:02d}:{sec % 60:02d}.{msec:03d}"


def _signed(number: int) -> int:
    """As C's PRId64 prints an unsigned number."""
    return number - (1 << 64) if number >> 63 else number
