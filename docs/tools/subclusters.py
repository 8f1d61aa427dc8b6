# SPDX-License-Identifier: GPL-2.0-only
"""qcow2 with parts of clusters: an extended L2 entry (subclusters-entry.svg), what a small write
copies (subclusters-write.svg); and a data file of its own (subclusters-data.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture

# What the first eight subclusters of the drawn cluster are: (allocated bit, zero bit, a name).
BITS = (
    (1, 0, "data"), (1, 0, "data"), (0, 0, "backing"), (0, 0, "backing"),
    (0, 1, "zero"), (0, 1, "zero"), (1, 0, "data"), (0, 0, "backing"),
)  # fmt: skip
KINDS = {"data": "amber", "zero": "blue", "backing": "none"}
STEP = 78


def entry() -> Picture:
    """Draws an entry, its bitmap, and the subclusters that the bits speak of."""
    made = Picture("subclusters-entry", 860, 326, "An L2 entry of 16 bytes, and what its bits say")
    made.box(18, 16, 270, 44, "entry: place in the file, flags", "~8 bytes, as ever", kind="green")
    zeroes = made.box(288, 16, 270, 44, "reads as zeroes", "~32 bits", kind="blue")
    allocated = made.box(558, 16, 284, 44, "is allocated", "~32 bits", kind="amber")
    made.text(18, 128, "zero")
    made.text(18, 162, "allocated")
    made.text(18, 222, "subclusters")
    for number, (there, zero, name) in enumerate(BITS):
        x = 120 + STEP * number
        made.box(x + 18, 108, 34, 28, f"`{zero}`", kind="blue" if zero else "paper")
        made.box(x + 18, 142, 34, 28, f"`{there}`", kind="amber" if there else "paper")
        made.box(x, 196, STEP - 6, 44, f"~{number}", f"~{name}", kind=KINDS[name])
    made.arrow(zeroes.bottom(), (zeroes.bottom()[0], 104))
    x, y = allocated.bottom(0.3)
    made.arrow((x, y), (x, 84), (770, 84), (770, 156), (734, 156))
    made.text(766, 222, "... 31")
    lines = (
        "~A cluster of 64 KiB has 32 subclusters of 2 KiB. They lie in one cluster of the file,",
        "~side by side: the entry says where. Neither bit: what the backing file has is read.",
        "~Both bits at once: the image contradicts itself.",
    )
    for number, line in enumerate(lines):
        made.text(18, 276 + 18 * number, line)
    return made


def write() -> Picture:
    """Draws what 4 KiB into an empty cluster cost, without and with subclusters."""
    made = Picture("subclusters-write", 860, 250, "4 KiB written over a backing file")
    for row, (title, size, parts) in enumerate(
        (
            ("clusters of 64 KiB", "64 KiB are read and written", ((0, 16, "copied"),)),
            ("with 32 subclusters", "4 KiB are written, none read", ()),
        )
    ):
        y = 44 + 104 * row
        made.text(18, y + 28, title)
        made.text(18, y + 46, f"~{size}")
        made.box(210, y, 632, 56, kind="none")
        for start, stop, name in parts:
            made.box(210 + start * 39.5, y, (stop - start) * 39.5, 56, f"~{name}", kind="green")
        made.box(210 + 10 * 39.5, y, 39.5, 56, "~new", kind="amber")
        if not parts:
            made.text(222, y + 32, "~not there: read from the backing file")
    made.text(210, 30, "~a cluster of the file")
    return made


def data() -> Picture:
    """Draws an image and its data file."""
    made = Picture("subclusters-data", 860, 290, "An image whose data lie in another file")
    made.region(16, 10, 400, 170, "disk.qcow2")
    made.region(446, 10, 398, 170, "data.raw")
    header = made.box(36, 60, 110, 60, "header", "~data file:", "~data.raw", kind="violet")
    made.box(156, 60, 110, 60, "refcounts", "~of tables only", kind="blue")
    tables = made.box(276, 60, 120, 60, "L1, L2 tables", kind="green")
    rows = ("guest 0", "guest 1", "~nothing", "guest 3")
    for number, name in enumerate(rows):
        kind = "none" if name == "~nothing" else "amber"
        made.box(466 + 92 * number, 60, 88, 60, name, f"`{number << 16:#x}`", kind=kind)
    made.arrow(tables.right(), (466, 90))
    made.arrow(header.bottom(), (header.bottom()[0], 152), (446, 152))
    made.text(160, 146, "~opened by this name, as a local file")
    made.text(466, 152, "~a guest's offset is the file's offset")
    lines = (
        "~data_file: the tables say what is there. COPIED says it, as 0 is a place like any other.",
        "~data_file_raw: the file alone is the disk, at every moment. Other programs may read it.",
        "~Neither snapshots nor compressed clusters: nothing lies at two places, or at an odd one.",
    )
    for number, line in enumerate(lines):
        made.text(18, 214 + 22 * number, line)
    return made
