# SPDX-License-Identifier: GPL-2.0-only
"""A tree with its edges (docs/images/tree.svg), and who hears of a drain (drain.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture


def tree() -> Picture:
    """Draws two devices over an overlay, its file and its backing chain."""
    made = Picture("tree", 860, 430, "A tree: backends on top, nodes, and edges with names")
    guest = made.box(160, 20, 200, 46, "BlockBackend", "~what virtio-blk holds", kind="blue")
    export = made.box(600, 20, 200, 46, "BlockBackend", "~another user", kind="blue")
    top = made.box(160, 130, 200, 46, "overlay", "~format: what was written", kind="green")
    top_file = made.box(160, 240, 200, 46, "file", "~protocol: top.img", kind="amber")
    base = made.box(480, 240, 200, 46, "raw", "~format: the base image", kind="green")
    base_file = made.box(480, 360, 200, 46, "file", "~protocol: base.raw", kind="amber")
    made.arrow(guest.bottom(), top.top())
    made.text(272, 104, "~root: reads and writes")
    made.arrow(export.bottom(), base.top(0.7))
    made.text(688, 150, "~root: reads")
    made.arrow(top.bottom(), top_file.top())
    made.text(250, 214, "~file: DATA, METADATA", anchor="end")
    made.arrow(top.right(), base.top(0.3))
    made.text(430, 176, "~backing: COW, only read")
    made.arrow(base.bottom(), base_file.top())
    made.text(592, 328, "~file: FILTERED")
    return made


def drained() -> Picture:
    """Draws what drained_begin on the lowest node does, upwards."""
    made = Picture("drain", 860, 300, "drained_begin(file): the news goes up, then one waits")
    file = made.box(340, 230, 180, 46, "`file`", "~quiesce_counter = 1", kind="amber")
    raw = made.box(340, 130, 180, 46, "`raw`", "~quiesce_counter = 1", kind="green")
    blk = made.box(340, 30, 180, 46, "BlockBackend", "~parks new requests", kind="blue")
    made.arrow(file.top(), raw.bottom())
    made.arrow(raw.top(), blk.bottom())
    made.text(440, 208, "~drained_begin along the edge")
    made.text(440, 108, "~drained_begin along the edge")
    made.number(326, 253, 1)
    made.number(326, 153, 2)
    made.number(326, 53, 3)
    made.text(30, 258, "~external handlers of the loop rest")
    made.text(30, 158, "~its own parents are told")
    made.text(30, 58, "~BlockDevOps.drained_begin")
    made.text(590, 158, "~4  poll the node's own loop until")
    made.text(590, 176, "~nobody answers drained_poll with yes")
    return made
