# SPDX-License-Identifier: GPL-2.0-only
"""Filters: a chain of them (filters-chain.svg), a read that copies (copy-on-read.svg), and a file
that grows in steps (preallocate.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture

WIDE = 236


def chain() -> Picture:
    """Draws a disk with a filter above its format, one below it, and one in its backing chain."""
    made = Picture("filters-chain", 860, 392, "A tree with filters above and below a format")
    blk = made.box(60, 14, WIDE, 40, "a device: BlockBackend")
    trace = made.box(60, 86, WIDE, 46, "`trace`", "~filter: prints what comes", kind="amber")
    cor = made.box(60, 164, WIDE, 46, "`copy-on-read`", "~filter: keeps what is read", kind="amber")
    qcow2 = made.box(60, 242, WIDE, 46, "`qcow2`", "~a format", kind="green")
    file = made.box(60, 334, WIDE, 44, "`file`", "~overlay.qcow2", kind="blue")
    delay = made.box(400, 242, WIDE, 46, "`delay`", "~filter: takes its time", kind="amber")
    base = made.box(400, 334, WIDE, 44, "`file`", "~base.raw", kind="blue")
    made.arrow(blk.bottom(), trace.top())
    for above, below in ((trace, cor), (cor, qcow2), (qcow2, file), (delay, base)):
        made.arrow(above.bottom(), below.top())
        made.text(above.x + WIDE / 2 + 10, above.y + above.height + 20, "`file`")
    made.arrow(qcow2.right(), delay.left())
    made.text(312, 258, "`backing`")
    notes = (
        (36, "~Above and below a filter there is the same disk:"),
        (54, "~the same bytes at the same offsets."),
        (108, "~A filter has one child that it filters. What it has no"),
        (126, "~opinion about, the child answers: block/core/filter.py."),
        (186, "~It can stand anywhere: above a format it sees what the guest"),
        (204, "~wants, below it what the format makes of that."),
    )
    for y, line in notes:
        made.text(400, y, line)
    return made


CELL = 88


def copy_on_read() -> Picture:
    """Draws a read of a few bytes that copies two clusters, and a write that waits for it."""
    made = Picture("copy-on-read", 860, 312, "A read that keeps what it had to fetch")
    made.text(16, 44, "the read", style="title")
    made.box(244, 22, 128, 34, "~bytes asked for", kind="violet")
    made.text(16, 118, "base", style="title")
    made.text(16, 236, "overlay", style="title")
    for n in range(6):
        x = 120 + CELL * n
        made.box(x, 92, CELL, 44, f"`cluster {n}`", kind="blue")
        held, fetched = n == 4, n in (1, 2)
        kind = "green" if held else "amber" if fetched else "none"
        line = "~written before" if held else "~the copy" if fetched else "~nothing"
        made.box(x, 210, CELL, 44, line, kind=kind)
    for n in (1, 2):
        x = 120 + CELL * n + CELL / 2
        made.arrow((x, 136), (x, 210))
        made.rule((120 + CELL * n, 56), (120 + CELL * n, 92))
    made.rule((120 + CELL * 3, 56), (120 + CELL * 3, 92))
    made.number(196, 74, 1)
    made.number(236, 172, 2)
    made.number(396, 42, 3)
    steps = (
        (1, "rounded to whole clusters, 1 and 2;"),
        (2, "fetched, and written to the overlay;"),
        (3, "the reader gets its bytes."),
    )
    for number, text in steps:
        made.number(26 + 272 * (number - 1), 292, number)
        made.text(44 + 272 * (number - 1), 296, f"~{text}")
    made.text(664, 110, "~All the time the read is")
    made.text(664, 128, "~serialising: a write to")
    made.text(664, 146, "~cluster 1 or 2 comes before")
    made.text(664, 164, "~it or after it, and a write")
    made.text(664, 182, "~to cluster 4 at any time.")
    return made


LEFT = 230


def preallocate() -> Picture:
    """Draws a file at four moments: before, with room, with more data in it, and closed."""
    made = Picture("preallocate", 860, 296, "A file that grows in steps")
    moments = (("before", 100, 100), ("one write beyond the end", 150, 590),
               ("many more writes", 480, 590), ("closed, or read-only", 480, 480))  # fmt: skip
    for number, (label, data, end) in enumerate(moments):
        y = 14 + 62 * number
        made.text(16, y + 25, label)
        made.box(LEFT, y, data, 40, "~data", kind="green")
        if end > data:
            made.box(LEFT + data, y, end - data, 40, "~room: zeroes", kind="amber")
    made.arrow((LEFT + 480, 266), (LEFT + 480, 240))
    made.text(LEFT + 492, 284, "~data_end: here the disk ends for everybody above", anchor="end")
    made.arrow((LEFT + 590, 266), (LEFT + 590, 178))
    made.text(LEFT + 590, 284, "~file_end", anchor="middle")
    return made
