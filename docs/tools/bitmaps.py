# SPDX-License-Identifier: GPL-2.0-only
"""Dirty bitmaps: in memory (bitmaps-memory.svg), in a qcow2 file (bitmaps-file.svg), and what the
file says of them from one opening to the next (bitmaps-time.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture


def memory() -> Picture:
    """Draws the summary, the chunks, and the bits of one chunk over the pieces of a disk."""
    made = Picture("bitmaps-memory", 860, 322, "A dirty bitmap in memory")
    made.text(20, 40, "summary", style="title")
    made.text(20, 58, "~1 byte a chunk")
    levels = (0, 0, 1, 0, 0, 2, 2, 0)
    kinds = {0: "plain", 1: "amber", 2: "green"}
    for number, level in enumerate(levels):
        made.box(150 + 84 * number, 24, 84, 36, f"`{level}`", kind=kinds[level])
    made.text(20, 120, "chunks", style="title")
    made.text(20, 138, "~1 integer each")
    words = {0: "`0`", 1: "`0b1..0110`", 2: "`FULL`"}
    for number, level in enumerate(levels):
        made.box(150 + 84 * number, 104, 84, 36, words[level], kind=kinds[level])
        made.arrow((192 + 84 * number, 62), (192 + 84 * number, 102))
    made.text(20, 206, "pieces", style="title")
    made.text(20, 224, "~4096 of the disk")
    dirty = (0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    for number, bit in enumerate(dirty):
        word = "`...`" if number == 8 else f"`{bit}`"
        kind = "amber" if bit else "plain"
        made.box(150 + 56 * number, 190, 56, 36, word, kind=kind)
    made.rule((318, 142), (150, 188))
    made.rule((402, 142), (822, 188))
    notes = (
        "A piece is as long as the granularity says, 64 KiB by default. To find the next dirty",
        "one: look at the rest of this chunk (one shift), then find the next byte in the summary",
        "that is not 0 (bytes.find), then the lowest bit of that integer (x & -x). All full chunks",
        "are the same integer, and empty ones are 0: what is all alike costs 9 bytes a chunk.",
    )
    for number, line in enumerate(notes):
        made.text(20, 262 + 17 * number, f"~{line}")
    return made


def file() -> Picture:
    """Draws the way from the header to the bits."""
    made = Picture("bitmaps-file", 860, 316, "Bitmaps in a qcow2 file")
    header = made.box(
        20, 30, 170, 66, "header", "~autoclear bit 0", "~bitmaps extension", kind="violet"
    )
    names = made.box(
        250, 30, 230, 66, "directory", "~name, granularity,", "~flags: IN_USE, AUTO", kind="blue"
    )
    made.arrow(header.right(), names.left())
    made.text(250, 118, "~an entry for each bitmap, one behind the other")
    made.region(560, 30, 130, 170, "table", kind="blue")
    entries = ("`0`", "`1`", "`0x90000`", "`0`")
    places = [
        made.box(572, 62 + 33 * number, 106, 28, word, kind="paper")
        for number, word in enumerate(entries)
    ]
    made.arrow(names.right(), (560, 63))
    bits = made.box(740, 124, 100, 48, "a cluster", "~full of bits", kind="amber")
    made.arrow(places[2].right(), bits.left())
    made.text(740, 80, "~no bit is set")
    made.text(740, 113, "~all are")
    made.arrow(places[0].right(), (736, 76))
    made.arrow(places[1].right(), (736, 109))
    notes = (
        "The autoclear bit is how an old program says that it was here: when it opens an image",
        "for writing, it clears all such bits that it does not know. Then the bitmaps are worth",
        "nothing. A cluster of 64 KiB holds 524288 bits: with pieces of 64 KiB, those of 32 GiB.",
        "To save, everything to the right of the header is written to free clusters. Then the",
        "header is written, once, and points to the new directory; then the old one is freed.",
    )
    for number, line in enumerate(notes):
        made.text(20, 236 + 17 * number, f"~{line}")
    return made


def time() -> Picture:
    """Draws what the file says while images are opened, written and closed."""
    made = Picture("bitmaps-time", 760, 214, "What the file says of its bitmaps")
    steps = (
        (20, "closed", "~the bits are right", "green"),
        (250, "open", "~IN_USE: ask the program", "amber"),
        (500, "closed", "~the bits are right", "green"),
    )
    boxes = [made.box(x, 40, 170, 48, word, what, kind=kind) for x, word, what, kind in steps]
    made.arrow(boxes[0].right(), boxes[1].left())
    made.arrow(boxes[1].right(), boxes[2].left())
    made.text(194, 30, "~load, mark")
    made.text(424, 30, "~save, switch")
    broken = made.box(250, 150, 170, 48, "the power is gone", "~IN_USE", kind="plain")
    found = made.box(500, 150, 200, 48, "inconsistent", "~shown; can be removed", kind="violet")
    made.arrow(boxes[1].bottom(), broken.top())
    made.arrow(broken.right(), found.left(), label="open")
    return made
