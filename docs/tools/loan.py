# SPDX-License-Identifier: GPL-2.0-only
"""loan.svg: data on their way from file to file, copied twice, and copied once."""

from __future__ import annotations

from docs.tools.draw import Picture


def loan() -> Picture:
    """Draws a copy by read and write over a copy of lent pages."""
    made = Picture("loan", 860, 318, "A read copies what the page cache has; a loan only maps it")
    made.text(18, 24, "read, and write", style="title")
    cached = made.box(18, 40, 230, 56, "the source's pages", "~in the page cache", kind="amber")
    buffer = made.box(316, 40, 230, 56, "a buffer", "~memory of the program", kind="blue")
    written = made.box(612, 40, 230, 56, "the target's pages", "~in the page cache", kind="amber")
    made.arrow(cached.right(), buffer.left(), label="`preadv`")
    made.arrow(buffer.right(), written.left(), label="`pwritev`")
    made.text(282, 86, "~copied", anchor="middle")
    made.text(579, 86, "~copied", anchor="middle")
    made.text(18, 168, "lent, and written", style="title")
    lent = made.box(18, 184, 230, 56, "the source's pages", "~in the page cache", kind="amber")
    view = made.box(316, 254, 230, 48, "a view of them", "~entries of a page table", kind="blue")
    target = made.box(612, 184, 230, 56, "the target's pages", "~in the page cache", kind="amber")
    made.arrow(lent.right(), target.left())
    made.text(430, 206, "`pwritev(the view)`", anchor="middle")
    made.text(579, 232, "~copied", anchor="middle")
    made.arrow(view.left(), (133, 278), lent.bottom(), dashed=True)
    made.text(146, 270, "~shows")
    return made
