# SPDX-License-Identifier: GPL-2.0-only
"""raw: the file is the disk (raw-file.svg), or a part of the file is (raw-part.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture

HOLE = "none dashed"


def file() -> Picture:
    """Draws a disk over its file: the same offsets, and blocks only where something was written."""
    made = Picture("raw-file", 860, 236, "A raw image: each byte at the same place in the file")
    made.text(18, 24, "the guest's disk", style="title")
    made.text(18, 136, "the file", style="title")
    rows = (
        (18, 150, "partition table", 0x0, "blue"),
        (168, 250, "never written", 0x1000, HOLE),
        (418, 180, "a file of the guest", 0x100000, "blue"),
        (598, 244, "never written", 0x180000, HOLE),
    )
    for x, width, word, offset, kind in rows:
        above = made.box(x, 34, width, 44, word, kind=kind)
        stored = "blocks of the host" if kind == "blue" else "a hole: no blocks, reads as zeroes"
        below = made.box(x, 146, width, 44, f"~{stored}", kind="amber" if kind == "blue" else HOLE)
        made.text(x, 96, f"`{offset:#x}`")
        made.text(x, 208, f"`{offset:#x}`")
        made.arrow(above.bottom(), below.top())
    made.text(18, 230, "~No header and no table: what is a hole only the host's file system knows.")
    return made


def part() -> Picture:
    """Draws a disk that is a part of a file, by `offset` and `size`."""
    made = Picture("raw-part", 860, 182, "A disk that is a part of a file: offset and size")
    disk = made.box(248, 26, 340, 44, "the guest's disk", kind="blue")
    made.text(18, 104, "the file", style="title")
    made.box(18, 114, 230, 44, "somebody else's", kind="plain")
    inside = made.box(248, 114, 340, 44, "the image", kind="amber")
    made.box(588, 114, 254, 44, "somebody else's", kind="plain")
    made.arrow(disk.bottom(0.02), inside.top(0.02))
    made.arrow(disk.bottom(0.98), inside.top(0.98))
    made.text(248, 174, "`offset`")
    made.text(588, 174, "`offset + size`")
    made.text(268, 96, "~0")
    made.text(560, 96, "~size", anchor="end")
    return made
