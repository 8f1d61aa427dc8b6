# SPDX-License-Identifier: GPL-2.0-only
"""qed: the file (qed-file.svg), and the life of the bit NEED_CHECK (qed-need-check.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture
from docs.tools.qcow2 import over


def file() -> Picture:
    """Draws a small image from its start to its end, and who points to whom."""
    made = Picture("qed-file", 860, 300, "A qed file: a header, tables, and data as they came")
    rows = (
        (18, 96, ("header", "~and the name of", "~the backing file"), 0x0, "violet"),
        (122, 150, ("L1 table", "~4 clusters"), 0x10000, "green"),
        (280, 96, ("data", "~guest 0"), 0x50000, "amber"),
        (384, 150, ("L2 table", "~4 clusters"), 0x60000, "green"),
        (542, 96, ("data", "~guest 7"), 0xA0000, "amber"),
        (646, 96, ("data", "~guest 1"), 0xB0000, "amber"),
    )
    boxes = [
        made.box(x, 110, width, 86, *lines, f"`{offset:#x}`", kind=kind)
        for x, width, lines, offset, kind in rows
    ]
    _, l1, first, l2, second, third = boxes
    made.box(750, 110, 92, 86, "the end:", "~what is new", "~goes here", kind="none dashed")
    over(made, l1.top(), l2.top(0.3), 50, "~entry 0: guest 0 to 2 GiB", 330)
    over(made, l2.bottom(0.3), first.bottom(), 236, "~entry 0", 386)
    over(made, l2.bottom(0.9), second.bottom(), 236, "~entry 7", 568)
    over(made, l2.top(0.7), third.top(), 70, "~entry 1", 604)
    made.text(18, 266, "~Nothing says which clusters are in use: all up to the end of the file.")
    made.text(18, 286, "~An entry of 0 means: read the backing file. An entry of 1 means: zeroes.")
    return made


def need_check() -> Picture:
    """Draws the three states of an image that allocates, and what leads from one to the next."""
    made = Picture("qed-need-check", 860, 250, "When an image says that it must be checked")
    clean = made.box(20, 90, 190, 76, "clean", "~the bit is off", "~no timer", kind="green")
    busy = made.box(334, 90, 190, 76, "allocating", "~the bit is on", "~no timer", kind="amber")
    idle = made.box(648, 90, 190, 76, "idle", "~the bit is on", "~5 s to go", kind="blue")
    made.arrow(clean.right(0.4), busy.left(0.4))
    made.text(272, 112, "~first new cluster:", anchor="middle")
    made.text(272, 140, "~header, flush", anchor="middle")
    made.arrow(busy.right(0.3), idle.left(0.3))
    made.text(586, 102, "~last one ends", anchor="middle")
    made.arrow(idle.left(0.75), busy.right(0.75))
    made.text(586, 166, "~another comes", anchor="middle")
    made.arrow(idle.bottom(), (743, 206), (115, 206), clean.bottom())
    made.text(430, 198, "~5 s later, or a drain, or close: flush, header", anchor="middle")
    made.arrow(busy.top(), (429, 40), (115, 40), clean.top(), dashed=True)
    made.text(272, 32, "~killed: the next who opens it repairs it", anchor="middle")
    return made
