# SPDX-License-Identifier: GPL-2.0-only
"""A log of writes, and what a power cut may leave of it (blklogwrites-cut.svg).

The three disks are not drawn by hand: the replay's own code decides what is left.
"""

from __future__ import annotations

import random

from block.filters.blklogwrites.layout import FLUSH, Superblock, pack_entry
from block.ops.replay_log import ReplayLog
from docs.tools.draw import Picture

# (sector, letter), and a flush as None; two letters take two sectors.
CHANGES: tuple[tuple[int, str] | None, ...] = (
    (0, "A"),
    (1, "B"),
    None,
    (0, "C"),
    (2, "DE"),
    (4, "F"),
)
SECTORS = 5
SEEDS = (5, 0, 34)
WORDS = ("nothing of the three", "F alone, the last of them", "C, and one half of DE")
LEFT, CELL, ENTRY = 190, 62, 104


def made_log() -> ReplayLog:
    """The log of CHANGES, with sectors full of their letter."""
    sectors = [Superblock(len(CHANGES)).pack()]
    for change in CHANGES:
        sector, letters = change or (0, "")
        data = b"".join(letter.encode() * 512 for letter in letters)
        sectors += [pack_entry(512 * sector, len(data), 0 if change else FLUSH, 512), data]
    return ReplayLog(b"".join(sectors))


def left_by(seed: int) -> str:
    """A letter for each sector that a power cut behind the last change leaves; '.' is empty."""
    disk = bytearray(b"." * 512 * SECTORS)
    log = made_log()
    for entry in log.power_cut(len(CHANGES), random.Random(seed)):
        disk[entry.offset : entry.offset + entry.nbytes] = log.data_of(entry)
    return disk[::512].decode()


def cut() -> Picture:
    """Draws the log, the line that a flush draws through it, and three disks afterwards."""
    made = Picture("blklogwrites-cut", 860, 372, "What is left when the power goes")
    made.text(16, 62, "the log", style="title")
    for number, change in enumerate(CHANGES):
        x = LEFT + number * (ENTRY + 6)
        if change is None:
            made.box(x, 36, ENTRY, 44, "flush", kind="violet")
            continue
        sector, letters = change
        kind = "green" if number < CHANGES.index(None) else "amber"
        where = f"~sector {sector}" + (f" and {sector + 1}" if len(letters) > 1 else "")
        made.box(x, 36, ENTRY, 44, f"write {letters}", where, kind=kind)
    edge = LEFT + 3 * (ENTRY + 6) - 3
    made.rule((edge, 20), (edge, 124))
    made.text(edge - 10, 106, "~surely on the disk", anchor="end")
    made.text(edge + 10, 106, "~perhaps, in any order, a sector at a time")
    made.text(16, 158, "three disks", style="title")
    made.text(16, 176, "~after a cut at the end")
    for row, (seed, words) in enumerate(zip(SEEDS, WORDS, strict=True)):
        y = 148 + 70 * row
        for sector, letter in enumerate(left_by(seed)):
            kind = "none" if letter == "." else "green" if letter in "AB" else "amber"
            made.box(LEFT + sector * CELL, y, CELL, 40, "" if letter == "." else letter, kind=kind)
        made.text(LEFT + SECTORS * CELL + 20, y + 25, words)
    made.text(LEFT, 360, "~Whatever comes: B is there, and in the first sector A or C.")
    return made
