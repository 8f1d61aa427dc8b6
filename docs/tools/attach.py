# SPDX-License-Identifier: GPL-2.0-only
"""A tree moves from the main loop into an IOThread (docs/images/attach.svg)."""

from __future__ import annotations

import itertools

from docs.tools.draw import Picture

NODES = ("the device's handle", "raw", "file")


def picture() -> Picture:
    """Draws the five phases of set_aio_context from left to right."""
    made = Picture("attach", 860, 372, "set_aio_context: drain, detach, attach, go on")
    old = made.region(20, 50, 270, 300, "main loop", kind="blue")
    new = made.region(570, 50, 270, 300, "IOThread", kind="green")
    made.region(310, 50, 240, 300, "no loop", kind="none")
    for column in (old.x, 310 - 15, new.x):
        tree(made, column + 65)
    steps(made)
    return made


def tree(made: Picture, x: float) -> None:
    """Draws the handle and the two nodes below it."""
    boxes = [made.box(x, 92 + 92 * level, 140, 40, name) for level, name in enumerate(NODES)]
    for parent, child in itertools.pairwise(boxes):
        made.arrow(parent.bottom(), child.top())


def steps(made: Picture) -> None:
    """Draws the order: detach goes from the top down, attach from the bottom up."""
    made.number(34, 24, 1)
    made.text(52, 29, "drained_begin: new requests park, those under way end")
    made.text(838, 29, "drained_end: the parked ones go on", anchor="end")
    made.number(838 - 246, 24, 6)
    for number, y in ((2, 204), (3, 296)):
        made.arrow((225, y), (360, y))
        made.text(300, y - 8, "~detach", anchor="middle")
        made.number(250, y, number)
    for number, y in ((4, 296), (5, 204)):
        made.arrow((500, y), (635, y))
        made.text(568, y - 8, "~attach", anchor="middle")
        made.number(522, y, number)
    made.text(430, 340, "~parents leave before children, and come after them", anchor="middle")
