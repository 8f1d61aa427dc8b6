# SPDX-License-Identifier: GPL-2.0-only
"""How `convert` copies: workers that read ahead and write in order (docs/images/convert.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture

LEFT = 112
HEIGHT = 36
# The disk, piece by piece: what is there, and how wide it is drawn.
PIECES = (("1", 140), ("2", 140), ("zeroes", 150), ("3", 140), ("4", 140))
# What each worker does: (from, to, what, colour). Reads are in one another's shadow, writes are
# in the order of the disk, two at once at most.
WORKERS = (
    ((112, 144, "?", "plain"), (144, 280, "read 1", "blue"), (280, 450, "write 1", "green"),
     (450, 482, "?", "plain"), (482, 622, "read 4", "blue"), (622, 792, "write 4", "green")),
    ((144, 176, "?", "plain"), (176, 340, "read 2", "blue"), (340, 510, "write 2", "green")),
    ((176, 208, "?", "plain"), (208, 240, "?", "plain"), (240, 376, "read 3", "blue"),
     (376, 450, "~its turn?", "none paper dashed"), (450, 620, "write 3", "green")),
)  # fmt: skip


def picture() -> Picture:
    """Draws the source, three workers in time, and the target."""
    made = Picture("convert", 860, 360, "How an image is copied")
    strip(made, 14, "source", "blue")
    for number, bars in enumerate(WORKERS):
        y = 104 + 54 * number
        made.text(16, y + 23, f"worker {number + 1}")
        made.rule((LEFT, y + HEIGHT / 2), (836, y + HEIGHT / 2))
        for start, end, what, kind in bars:
            made.box(start, y, end - start, HEIGHT, what, kind=kind)
    made.arrow((LEFT, 272), (836, 272))
    made.text(836, 290, "~time", anchor="end")
    made.text(LEFT, 290, "~?  asks what is there, one at a time; zeroes are not read at all")
    strip(made, 306, "target", "green")
    return made


def strip(made: Picture, y: float, name: str, kind: str) -> None:
    """Draws a disk with its pieces."""
    made.text(16, y + 23, name, style="title")
    x = LEFT
    for what, width in PIECES:
        if what == "zeroes":
            made.box(x, y, width, HEIGHT, "~zeroes: a hole", kind="none dashed")
        else:
            made.box(x, y, width, HEIGHT, f"data {what}", kind=kind)
        x += width
