# SPDX-License-Identifier: GPL-2.0-only
"""Checking the snapshot table, and making it one that can be (qcow2_check_read_snapshot_table).

    before refcounts are checked    the table is read; a repair cuts off what is too much
    after that                      it is written anew, with all that version 3 wants of it

R1  Where it cannot be read, the check ends: nobody knows which clusters snapshots have in use.
R2  How many there are is set right in the header at once, since a repair of refcounts must find
    there what it counts. A new table needs clusters, so it waits until refcounts are right.
Who may call it: check.py, with the image's lock held.
"""

from __future__ import annotations

from block.core import check as core
from block.core.error import BlockError
from block.core.report import prefixed
from block.formats.qcow2 import header
from block.formats.qcow2.layout import MAX_SNAPSHOTS, SNAPSHOTS_AT
from block.formats.qcow2.snapshot_table import REPAIR, Cut, read_table, rewrite_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qcow2.state import Qcow2State


async def read_snapshots(s: Qcow2State, result: core.BdrvCheckResult, fix: int) -> None:
    """Reads the table, repairs what must be right before refcounts are counted, tells of the rest.

    Raises BlockError (R1).
    """
    cut = Cut() if fix & core.FIX_ERRORS else None
    if cut is not None and s.nb_snapshots > MAX_SNAPSHOTS:
        cut.snapshots = s.nb_snapshots - MAX_SNAPSHOTS
        result.say(f"Discarding {cut.snapshots} overhanging snapshots")
        s.nb_snapshots = MAX_SNAPSHOTS
    await _read(s, result, cut)
    if cut is not None:
        for line in cut.lines:
            result.say(line)
        result.corruptions += cut.entries + cut.snapshots
        if cut.snapshots:
            await _write_number(s, result)
            result.corruptions -= cut.snapshots
            result.corruptions_fixed += cut.snapshots
    for number, snapshot in enumerate(s.snapshots):
        if s.version >= 3 and not snapshot.is_complete():
            result.corruptions += 1
            what = "ERROR" if cut is None else "Repairing"
            result.say(f"{what} snapshot table entry {number} is incomplete")


async def _read(s: Qcow2State, result: core.BdrvCheckResult, cut: Cut | None) -> None:
    what = ""
    try:
        header.check_snapshot_table(s, s.nb_snapshots, s.snapshots_offset, "snapshot table")
        what = "failed to read the snapshot table: "
        await read_table(s, cut)
    except BlockError as error:
        result.check_errors += 1
        result.say(prefixed(f"ERROR {what}{error}"))
        hint = error.hint
        if s.nb_snapshots > MAX_SNAPSHOTS:
            rest = s.nb_snapshots - MAX_SNAPSHOTS
            hint = f"You can force-remove all {rest} overhanging snapshots with {REPAIR}"
        if hint:
            result.say(hint)
        raise


async def _write_number(s: Qcow2State, result: core.BdrvCheckResult) -> None:
    """Tells the header how many are left (R2)."""
    field = s.nb_snapshots.to_bytes(4, "big")
    try:
        await s.file.co_pwritev(SNAPSHOTS_AT, len(field), [memoryview(field)])
        await s.file.co_flush()
    except OSError as error:
        result.check_errors += 1
        result.say(
            f"ERROR failed to update the snapshot count in the image header: {error.strerror}"
        )
        raise


async def rewrite_snapshots(s: Qcow2State, result: core.BdrvCheckResult, fix: int) -> None:
    """Writes the table anew where it was not as it should be (qcow2_check_fix_snapshot_table)."""
    if not result.corruptions or not fix & core.FIX_ERRORS:
        return
    try:
        await rewrite_table(s)
    except OSError as error:
        result.check_errors += 1
        result.say(f"ERROR failed to update snapshot table: {error.strerror}")
        raise
    result.corruptions_fixed += result.corruptions
    result.corruptions = 0
