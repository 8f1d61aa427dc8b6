# SPDX-License-Identifier: GPL-2.0-only
"""qcow2 images that change: the dirty bit over time (qcow2-dirty.svg), refcounts of another width
(qcow2-width.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture

LEFT = 150
STEP = 116


def dirty() -> Picture:
    """Draws a lazy image's life: what the header says, what the file's refcounts say."""
    made = Picture("qcow2-dirty", 860, 330, "The dirty bit of an image with lazy refcounts")
    moments = ("opened", "first allocation", "~writes, flushes", "~writes, flushes", "closed", "")
    for number, moment in enumerate(moments):
        x = LEFT + STEP * number
        made.text(x, 28, moment, anchor="middle")
        if moment:
            made.rule((x, 40), (x, 232))
    made.arrow((LEFT - 20, 232), (850, 232))
    made.text(850, 250, "~time", anchor="end")
    rows(made)
    made.text(
        18, 276, "~A power cut in the amber time: entries may point to clusters that count 0."
    )
    made.text(
        18, 296, "~The header says so. Whoever opens the image for writing counts anew first."
    )
    made.text(18, 316, "~Whoever only reads needs no refcounts, and reads what was flushed.")
    return made


def rows(made: Picture) -> None:
    """Three lines: the bit, the refcounts, the L2 entries."""
    last = LEFT + STEP * 5
    first, closed = LEFT + STEP, LEFT + STEP * 4
    made.text(18, 76, "the dirty bit", style="title")
    made.box(LEFT, 54, first - LEFT, 36, "~clear", kind="green")
    made.box(first, 54, closed + 70 - first, 36, "~set, and flushed before the entry", kind="amber")
    made.box(closed + 70, 54, last - closed, 36, "~clear", kind="green")
    made.text(18, 132, "refcounts", style="title")
    made.text(18, 148, "~in the file")
    made.box(LEFT, 110, first + 20 - LEFT, 36, "~right", kind="green")
    made.box(
        first + 20, 110, closed + 20 - first, 36, "~old; the right ones are in memory", kind="amber"
    )
    made.box(closed + 40, 110, last + 30 - closed, 36, "~written, flushed: right", kind="green")
    made.text(18, 192, "L2 entries", style="title")
    made.text(18, 208, "~in the file")
    made.box(
        LEFT, 170, last + 70 - LEFT, 36, "~as always: behind the data they point to", kind="blue"
    )


def width() -> Picture:
    """Draws how refcounts of another width come into an image."""
    made = Picture("qcow2-width", 860, 250, "Refcounts of another width: one write switches")
    header = made.box(18, 96, 110, 56, "header", kind="violet")
    old = made.region(200, 14, 300, 92, "old table and blocks", kind="blue")
    new = made.region(200, 136, 300, 92, "new table and blocks", kind="green")
    made.text(214, 62, "~16 bits each. Count everything:")
    made.text(214, 80, "~data, themselves, and the new ones.")
    made.text(214, 184, "~64 bits each. Count everything:")
    made.text(214, 202, "~data, themselves, and the old ones.")
    made.arrow(header.right(0.3), old.left(), dashed=True)
    made.arrow(header.right(0.7), new.left())
    steps = (
        "allocate the new ones, in the old ones",
        "write the new ones, flush",
        "one write: the header points here",
        "free the old ones, in the new ones",
    )
    for number, step in enumerate(steps, 1):
        y = 36 + 56 * (number - 1)
        made.number(540, y, number)
        made.text(560, y + 5, step)
    return made
