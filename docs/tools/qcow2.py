# SPDX-License-Identifier: GPL-2.0-only
"""qcow2: the file (qcow2-file.svg), from a guest offset to a host offset (qcow2-lookup.svg), and
what an allocating write does in which order (qcow2-order.svg)."""

from __future__ import annotations

from docs.tools.draw import Box, Picture


def file() -> Picture:
    """Draws a small image cluster by cluster, and who points to whom."""
    made = Picture("qcow2-file", 860, 330, "A qcow2 file: clusters, and who points to whom")
    rows = (
        ("header", "~cluster 0", "violet"),
        ("refcount", "table", "blue"),
        ("refcount", "block", "blue"),
        ("L1 table", "green"),
        ("L2 table", "green"),
        ("data", "~guest 0", "amber"),
        ("data", "~guest 7", "amber"),
        ("free", "~refcount 0", "none"),
    )
    boxes = [
        made.box(18 + 103 * n, 122, 96, 72, *lines, f"`{n << 16:#x}`", kind=kind)
        for n, (*lines, kind) in enumerate(rows)
    ]
    header, table, block, l1, l2, first, second, _ = boxes
    over(made, header.top(0.7), table.top(), 96, "~refcount_table_offset", 188)
    over(made, header.top(0.3), l1.top(), 50, "~l1_table_offset", 200)
    over(made, table.bottom(0.3), block.bottom(), 240)
    over(made, l1.bottom(), l2.bottom(0.3), 240)
    over(made, l2.top(0.3), first.top(), 100, "~entry 0", 550)
    over(made, l2.top(0.7), second.top(), 64, "~entry 7", 600)
    made.text(
        18, 274, "~In use how often? The refcount blocks say it of every cluster of this file."
    )
    made.text(
        18, 294, "~Where is it? L1 and L2 tables say it of every cluster of the guest's disk."
    )
    made.text(
        18, 314, "~A guest cluster without an entry is read from the backing file, or is zero."
    )
    return made


def over(
    made: Picture,
    start: tuple[float, float],
    end: tuple[float, float],
    height: float,
    label: str = "",
    at: float = 0,
) -> None:
    """Draws an arrow that leaves its row, and comes back to it further right."""
    made.arrow(start, (start[0], height), (end[0], height), end)
    if label:
        made.text(at, height - 6, label, anchor="middle")


def lookup() -> Picture:
    """Draws how the bits of an offset choose table entries."""
    made = Picture("qcow2-lookup", 860, 330, "From a guest offset to a host offset")
    made.text(18, 30, "guest offset", style="title")
    first = made.box(160, 12, 220, 34, "~index in the L1 table", kind="green")
    second = made.box(380, 12, 220, 34, "~index in the L2 table: 13 bits", kind="green")
    third = made.box(600, 12, 240, 34, "~byte in the cluster: 16 bits", kind="amber")
    l1 = made.box(160, 110, 220, 60, "L1 table", "~one, always in memory", kind="green")
    l2 = made.box(380, 190, 220, 60, "L2 table", "~a slice of it in the cache", kind="green")
    data = made.box(600, 270, 240, 46, "the bytes in the file", kind="amber")
    made.arrow(first.bottom(), l1.top())
    made.arrow(second.bottom(), l2.top())
    made.arrow(third.bottom(), data.top())
    made.arrow(l1.right(), (490 - 40, 140), (490 - 40, 190))
    made.text(390, 132, "~its place")
    made.arrow(l2.right(), (660, 220), (660, 270))
    made.text(608, 212, "~its place")
    notes(made, 18, 208)
    return made


def notes(made: Picture, x: float, y: float) -> None:
    """Writes what else an entry says."""
    for number, line in enumerate(
        (
            "~an entry also says:",
            "~COPIED: used only once, so it",
            "~may be written in place",
            "~ZERO: reads as zeroes",
            "~COMPRESSED",
        )
    ):
        made.text(x, y + 18 * number, line)


def order() -> Picture:
    """Draws an allocating write: what is in memory, what goes to the file, and what waits."""
    made = Picture("qcow2-order", 860, 380, "An allocating write, and the flush after it")
    columns = [
        made.region(16 + 282 * n, 10, 264, 356, name)
        for n, name in enumerate(("request", "caches (memory)", "file"))
    ]
    steps(made, columns)
    return made


def steps(made: Picture, columns: list[Box]) -> None:
    """Writes the steps into their columns; time runs downwards."""
    rows = (
        (0, 46, 1, "refcount + 1, with the lock"),
        (1, 46, 0, "refcount block is dirty"),
        (0, 96, 2, "data, without the lock"),
        (2, 96, 0, "data are in the file"),
        (0, 146, 3, "link, with the lock"),
        (1, 146, 0, "L2 entry; L2 after refcounts"),
        (0, 206, 4, "flush"),
        (2, 206, 0, "refcount block"),
        (2, 256, 0, "(flushed)"),
        (2, 306, 0, "L2 table"),
    )
    for column, y, number, line in rows:
        box = columns[column]
        kind = ("plain", "blue", "amber")[column]
        made.box(box.x + 30, y, box.width - 44, 34, f"~{line}", kind=kind)
        if number:
            made.number(box.x + 16, y + 17, number)
    for column, y, to in ((0, 63, 1), (0, 113, 2), (0, 163, 1), (0, 223, 2)):
        start = columns[column].x + columns[column].width - 14
        made.arrow((start, y), (columns[to].x + 30, y))
    x = columns[2].x + 140
    made.arrow((x, 240), (x, 256))
    made.arrow((x, 290), (x, 306))
