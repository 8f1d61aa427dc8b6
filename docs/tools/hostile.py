# SPDX-License-Identifier: GPL-2.0-only
"""What is checked of a request, in order, and what becomes of it (docs/images/hostile.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture

# What is read out of guest memory, what is asked of it, in which function; and who answers.
GATES = (
    ("available index", "at most the queue's size ahead", "`VirtQueue._refresh`", "reset"),
    ("head", "in the table, and not in flight", "`VirtQueue.pop`", "reset"),
    ("next, flags, length", "in the table, in order, no loop", "`VirtQueue._walk`", "reset"),
    ("address", "every byte is RAM", "`GuestMemory.view`", "reset"),
    ("header, status", "there is room for both", "`BlkRequest.parse`", "reset"),
    ("type, sector, ranges", "known, and inside the disk", "`VirtioBlk._take_...`", "status"),
)
TOP, STEP = 66, 62


def picture() -> Picture:
    """Draws the gates from top to bottom, with the two exits at the right."""
    made = Picture("hostile", 860, 500, "What is checked of a request before it reaches the disk")
    made.region(20, 10, 190, 424, "guest memory", kind="amber")
    made.region(236, 10, 366, 424, "the device")
    last = len(GATES) - 1
    for number, (field, question, where, _) in enumerate(GATES):
        y = TOP + number * STEP
        read = made.box(36, y - 22, 158, 40, field)
        gate = made.box(256, y - 22, 326, 40, question, f"~{where.strip('`')}", kind="green")
        made.arrow(read.right(), gate.left())
        if number < last:
            made.arrow(gate.bottom(), (gate.bottom()[0], y + STEP - 22))
    y = TOP + last * STEP
    disk = made.box(256, 448, 326, 40, "the disk", "~block layer, this request only", kind="blue")
    made.arrow((419, y + 18), disk.top())
    ask = made.box(660, TOP - 22, 180, 4 * STEP + 40, kind="amber")
    words = ("NEEDS_RESET", "~a word to the person", "~an interrupt to the driver")
    words += ("~nothing more is read", "~until a reset comes")
    for line, word in enumerate(words):
        made.text(750, TOP + 2 * STEP - 30 + 18 * line, word, anchor="middle")
    for number in range(last):
        y = TOP + number * STEP - 2
        made.arrow((582, y), (ask.x, y))
    y = TOP + last * STEP - 2
    refuse = made.box(660, y - 20, 180, 40, "IOERR or UNSUPP", "~the queue goes on", kind="blue")
    made.arrow((582, y), refuse.left())
    return made
