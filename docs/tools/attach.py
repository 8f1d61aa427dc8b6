# SPDX-License-Identifier: GPL-2.0-only
"""A tree moves from the main loop into an IOThread (docs/images/attach.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture

HANDLE, RAW, FILE = 112, 204, 296  # the rows' middles


def picture() -> Picture:
    """Draws the phases of set_aio_context from left to right."""
    made = Picture("attach", 860, 390, "set_aio_context: drain, detach, attach, go on")
    made.region(20, 50, 240, 300, "the old loop: main loop", kind="blue")
    made.region(310, 50, 240, 300, "in no loop", kind="none")
    made.region(600, 50, 240, 300, "the new loop: IOThread", kind="green")
    for x in (70, 650):
        tree(made, x, ((HANDLE, "BlockBackend"), (RAW, "raw"), (FILE, "file")))
    tree(made, 360, ((RAW, "raw"), (FILE, "file")))
    steps(made)
    return made


def tree(made: Picture, x: float, rows: tuple[tuple[int, str], ...]) -> None:
    """Draws nodes below each other."""
    above = None
    for y, name in rows:
        box = made.box(x, y - 20, 140, 40, name)
        if above is not None:
            made.arrow(above.bottom(), box.top())
        above = box


def steps(made: Picture) -> None:
    """Draws the order: detach goes from the top down, attach from the bottom up."""
    made.number(31, 28, 1)
    made.text(48, 33, "drained_begin: late requests park, the others end")
    made.text(622, 33, "drained_end: the parked ones go on")
    made.number(605, 28, 7)
    for number, y in ((2, RAW), (3, FILE)):
        made.arrow((210, y), (360, y))
        made.text(285, y - 10, "~detach", anchor="middle")
        made.number(232, y, number)
    for number, y in ((4, FILE), (5, RAW)):
        made.arrow((500, y), (650, y))
        made.text(575, y - 10, "~attach", anchor="middle")
        made.number(522, y, number)
    made.arrow((210, HANDLE), (650, HANDLE))
    made.text(430, HANDLE - 10, "~the user of the tree follows", anchor="middle")
    made.number(522, HANDLE, 6)
    made.text(
        430, 374, "~parents leave before their children, and come after them", anchor="middle"
    )
