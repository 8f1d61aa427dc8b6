# SPDX-License-Identifier: GPL-2.0-only
"""Internal snapshots of qcow2: what is shared (snapshots-shared.svg), and in which order a disk
goes back to one (snapshots-goto.svg)."""

from __future__ import annotations

from docs.tools.draw import Box, Picture

WIDTH, HEIGHT = 860, 372


def _data(made: Picture, number: int, name: str, count: int) -> Box:
    kind = "amber" if count > 1 else "green"
    x = 240 + 152 * number
    box = made.box(x, 300, 132, 44, name, f"~refcount {count}", kind=kind)
    return box


def shared() -> Picture:
    """Draws a disk and a snapshot after one cluster was written to."""
    made = Picture("snapshots-shared", WIDTH, HEIGHT, "Two L1 tables that share what is the same")
    header = made.box(16, 24, 180, 44, "header", "~l1_table, snapshots", kind="violet")
    table = made.box(16, 120, 180, 44, "snapshot table", '~"monday"', kind="violet")
    disk = made.box(300, 24, 200, 44, "L1 table of the disk", kind="blue")
    other = made.box(610, 24, 200, 44, "L1 table of monday", kind="blue")
    own = made.box(240, 150, 180, 60, "L2 table", "~refcount 1, COPIED", kind="green")
    both = made.box(436, 150, 180, 60, "L2 table", "~refcount 2", kind="amber")
    kept = made.box(632, 150, 180, 60, "L2 table", "~refcount 1", kind="green")
    new = _data(made, 0, "new data", 1)
    same = _data(made, 1, "data", 2)
    more = _data(made, 2, "data", 2)
    old = _data(made, 3, "old data", 1)
    made.arrow(header.right(), disk.left())
    made.arrow(header.bottom(), table.top())
    x, y = table.right()
    made.arrow((x, y), (212, y), (212, 100), (590, 100), (590, 46), other.left())
    made.arrow(disk.bottom(0.2), own.top(0.6))
    made.arrow(disk.bottom(0.8), both.top(0.4))
    made.arrow(other.bottom(0.2), both.top(0.8))
    made.arrow(other.bottom(0.6), kept.top(0.5))
    made.arrow(own.bottom(0.4), new.top())
    made.arrow(own.bottom(0.75), same.top(0.4))
    made.arrow(kept.bottom(0.2), same.top(0.8))
    made.arrow(kept.bottom(0.5), old.top())
    made.arrow(both.bottom(), more.top(0.4))
    made.text(16, 300, "~Amber is shared. Whoever")
    made.text(16, 318, "~writes there takes a")
    made.text(16, 336, "~cluster of his own first.")
    return made


STEPS = (
    ("count up", "what monday has", "blue"),
    ("copy", "its L1 table, elsewhere", "blue"),
    ("switch", "one write to the header", "amber"),
    ("count down", "what the disk had", "green"),
    ("flags", "COPIED where it is 1", "green"),
)


def goto() -> Picture:
    """Draws the steps, and what a crash after each leaves."""
    made = Picture("snapshots-goto", 860, 190, "Going back to a snapshot")
    before = None
    for number, (name, what, kind) in enumerate(STEPS):
        box = made.box(16 + 168 * number, 40, 152, 56, name, f"~{what}", kind=kind)
        made.number(box.x + 12, box.y - 10, number + 1)
        if before is not None:
            made.arrow(before.right(), box.left())
        before = box
    made.rule((428, 20), (428, 176))
    made.text(404, 140, "a crash here leaves the disk as it was, and leaks", anchor="end")
    made.text(452, 140, "a crash here leaves it as on monday, and leaks")
    made.text(404, 160, "~counts that are too high harm nobody", anchor="end")
    made.text(452, 160, "~check -r leaks finds them all")
    return made
