# SPDX-License-Identifier: GPL-2.0-only
"""A guest's request in its ring: three descriptors, two rings (docs/images/chain.svg)."""

from __future__ import annotations

from itertools import pairwise

from docs.tools.draw import Picture

ROW = 44


def picture() -> Picture:
    """Draws request 5 of the toy kernel: what it wrote, and how the device finds it."""
    made = Picture("chain", 860, 352, "Request 5 in the ring: a chain of three descriptors")
    rings(made)
    table(made)
    return made


def rings(made: Picture) -> None:
    """Draws the two rings: 1 goes to the device, 2 comes back with the bytes it has written."""
    made.region(16, 10, 224, 126, "avail", kind="blue")
    made.text(28, 50, "~the driver writes, the device reads")
    made.box(28, 62, 92, 30, "`idx`")
    made.box(132, 62, 96, 30, "`ring[]: 20`")
    made.text(28, 120, "`used_event`")
    made.region(16, 216, 224, 126, "used", kind="green")
    made.text(28, 256, "~the device writes, the driver reads")
    made.box(28, 268, 92, 30, "`idx`")
    made.box(132, 268, 96, 30, "`20, 4097`")
    made.text(28, 326, "`avail_event`")
    made.arrow((228, 77), (316, 77))
    made.number(280, 77, 1)
    made.arrow((316, 205), (280, 205), (280, 283), (228, 283))
    made.number(280, 240, 2)


def table(made: Picture) -> None:
    """Draws the descriptor table and the memory that the chain names."""
    made.region(300, 10, 260, 270, "desc")
    names = ("header", "data", "status")
    rows = (
        ("`20: len 16`", "`NEXT -> 21`"),
        ("`21: len 4096`", "`NEXT, WRITE -> 22`"),
        ("`22: len 1`", "`WRITE`"),
    )
    boxes = [made.box(316, 55 + 64 * i, 228, ROW, *row) for i, row in enumerate(rows)]
    for above, below in pairwise(boxes):
        made.arrow(above.bottom(), below.top())
    made.text(316, 258, "~23 stays free")
    memory = (
        ("`type IN, sector 8`", "~the device reads"),
        ("`data[5], a page`", "~the device writes"),
        ("`one byte: 0 is ok`", "~the device writes"),
    )
    for box, name, lines in zip(boxes, names, memory, strict=True):
        piece = made.box(640, box.y, 204, ROW, *lines, kind="amber")
        made.arrow(box.right(), piece.left(), label=f"~{name}")
