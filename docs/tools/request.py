# SPDX-License-Identifier: GPL-2.0-only
"""A read's way from the ring to the page cache and back (docs/images/request.svg)."""

from __future__ import annotations

import itertools

from docs.tools.draw import Box, Picture

LANES = (
    ("the guest: vCPU thread", "amber"),
    ("the host's kernel", "plain"),
    ("the IOThread", "green"),
)
WIDTH = 270
STEPS = (
    (0, "three descriptors, avail.idx", "`prepare, add, kick`"),
    (1, "the doorbell is an ioeventfd", "`eventfd + 1`"),
    (2, "epoll returns: the doorbell", "`AioContext.poll`"),
    (2, "chain to windows on memory", "`VirtQueue.pop`"),
    (2, "header, range, read-only?", "`VirtioBlk._take`"),
    (2, "the device's handle", "`BlockBackend.aio_preadv`"),
    (2, "raw, then file: at once?", "`try_preadv`"),
    (1, "page cache to guest memory", "`preadv2(RWF_NOWAIT)`"),
    (2, "next pass: a bottom half", "`BlkAIOCB.callback`"),
    (2, "status byte, used.idx", "`VirtioBlk.complete`"),
    (2, "one interrupt for the batch", "`NotifyBatch.callback`"),
    (1, "irqfd: an edge on the pin", "`eventfd + 1`"),
    (0, "interrupt: used.idx has moved", "`wait`"),
)
HEIGHT = 44
PITCH = 60


def picture() -> Picture:
    """Draws three lanes; time runs downwards, one numbered box a step."""
    height = 62 + PITCH * len(STEPS)
    made = Picture("request", 860, height, "One 4 KiB read, from the guest's ring and back")
    for lane, (name, kind) in enumerate(LANES):
        made.region(20 + lane * (WIDTH + 5), 10, WIDTH, height - 20, name, kind=kind)
    boxes = []
    for row, (lane, *lines) in enumerate(STEPS):
        x, y = 42 + lane * (WIDTH + 5), 50 + row * PITCH
        boxes.append(made.box(x, y, WIDTH - 44, HEIGHT, *lines, kind="none paper"))
    for before, after in itertools.pairwise(boxes):
        connect(made, before, after)
    for row, box in enumerate(boxes):
        made.number(box.x, box.y + HEIGHT / 2, row + 1)
    return made


def connect(made: Picture, before: Box, after: Box) -> None:
    """Draws the arrow to the next step: straight down, or over into another lane."""
    if before.x == after.x:
        made.arrow(before.bottom(), after.top())
        return
    start = before.right() if before.x < after.x else before.left()
    made.arrow(start, (after.top()[0], start[1]), after.top())
