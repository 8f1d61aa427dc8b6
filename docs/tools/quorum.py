# SPDX-License-Identifier: GPL-2.0-only
"""A vote (docs/images/quorum-vote.svg), and children that the core does not walk
(docs/images/own-children.svg)."""

from __future__ import annotations

from docs.tools.draw import Box, Picture

TOP, MIDDLE, BOTTOM = 40, 150, 262


def vote() -> Picture:
    """Draws one read: three answers, two versions, one winner, one repair."""
    made = Picture("quorum-vote", 860, 370, "A read of a quorum: the children answer, and vote")
    request = made.box(20, 135, 120, 52, "a read of", "4 KiB", kind="blue")
    children = [answer(made, n, letter) for n, letter in enumerate("AAB")]
    counted = made.region(520, 48, 190, 248, "the votes", kind="none")
    winner = made.box(540, 118, 150, 44, "A: children 0, 1", kind="green")
    loser = made.box(540, 180, 150, 44, "B: child 2", kind="amber")
    for child in children:
        made.arrow(request.right(), child.left())
        made.arrow((child.right()[0] + 82, child.right()[1]), (counted.x, child.right()[1]))
    done = made.box(740, 114, 104, 52, "A is the", "answer", kind="blue")
    made.arrow(winner.right(), done.left())
    told = made.box(740, 176, 104, 52, "REPORT_BAD", "for child 2", kind="amber")
    made.arrow(loser.right(), told.left())
    repair = [(615, 296), (615, 326), (270, 326), children[2].bottom()]
    made.arrow(*repair, dashed=True)
    made.text(442, 318, "rewrite-corrupted: A is written over B", anchor="middle")
    made.text(442, 344, "~writes are kept out, and the votes counted again first", anchor="middle")
    steps = ((180, 28, 1, "all at once"), (392, 28, 2, "each into its own buffer"))
    for x, y, number, words in (*steps, (600, 28, 3, "the threshold is 2")):
        made.number(x - 16, y - 4, number)
        made.text(x, y, words)
    return made


def answer(made: Picture, n: int, letter: str) -> Box:
    """Draws a child and what it read."""
    y = (TOP, MIDDLE - 10, BOTTOM - 22)[n] + 4
    child = made.box(210, y, 120, 46, f"children.{n}", kind="plain")
    kind = "green" if letter == "A" else "amber"
    buffer = made.box(352, y, 60, 46, letter, kind=kind)
    made.arrow(child.right(), buffer.left())
    return child


def own_children() -> Picture:
    """Draws two trees, and who takes which node out of its loop, in order."""
    made = Picture("own-children", 860, 330, "Who walks which child when a tree leaves its loop")
    made.text(60, 30, "blkverify", style="title")
    top = made.box(140, 50, 150, 44, "blkverify", kind="plain")
    test = made.box(230, 150, 150, 44, "test: qcow2", kind="amber")
    below = made.box(230, 250, 150, 44, "file", kind="blue")
    raw = made.box(50, 150, 150, 44, "raw: file", kind="blue")
    made.arrow(top.bottom(0.7), test.top(0.4), dashed=True)
    made.arrow(top.bottom(0.3), raw.top(0.6))
    made.arrow(test.bottom(), below.top())
    for box, number in ((top, 1), (test, 2), (below, 3), (raw, 4)):
        made.number(box.x, box.y, number)
    made.text(440, 30, "quorum", style="title")
    top = made.box(565, 50, 150, 44, "quorum", kind="plain")
    made.number(top.x, top.y, 1)
    for n in range(3):
        x = 440 + 138 * n
        child = made.box(x, 150, 124, 44, f"children.{n}", kind="amber")
        below = made.box(x, 250, 124, 44, "file", kind="blue")
        made.arrow(top.bottom(0.2 + 0.3 * n), child.top(), dashed=True)
        made.arrow(child.bottom(), below.top())
        made.number(child.x, child.y, 2 + 2 * n)
        made.number(below.x, below.y, 3 + 2 * n)
    made.text(
        430, 320, "~dashed, amber: the driver's hook walks it; blue: the core does", anchor="middle"
    )
    return made
