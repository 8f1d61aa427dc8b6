# SPDX-License-Identifier: GPL-2.0-only
"""A read's way from the ring to the page cache and back (docs/images/request.svg)."""

from __future__ import annotations

import itertools

from docs.tools.draw import Picture

LANES = (
    ("the guest (vCPU thread)", "amber"),
    ("the host's kernel", "plain"),
    ("the IOThread", "green"),
)
WIDTH = 270
STEPS = (
    (0, "writes the chain, avail.idx", "`store to QueueNotify`"),
    (1, "KVM: the address is an ioeventfd's", "`eventfd += 1`"),
    (2, "epoll wakes up, fd handler", "`AioContext.poll`"),
    (2, "takes the chain off the ring", "`VirtQueue.pop`"),
    (2, "checks the header and the range", "`VirtioBlk.handle_request`"),
    (2, "the device's handle", "`BlockBackend.aio_preadv`"),
    (2, "the tree's fast path", "`try_preadv`: raw, file"),
    (1, "page cache to guest memory", "`preadv2(RWF_NOWAIT)`"),
    (2, "completion, one pass later: a BH", "`AIOCB -> callback`"),
    (2, "status byte, used.idx", "`VirtQueue.push`"),
    (1, "irqfd: interrupt to the IOAPIC", "`KVM`"),
    (0, "handler reads used.idx", "`the data is there`"),
)
HEIGHT = 44
PITCH = 62


def picture() -> Picture:
    """Draws three lanes; time runs downwards, one numbered box a step."""
    height = 70 + PITCH * len(STEPS)
    made = Picture("request", 860, height, "One 4 KiB read, from the guest's ring and back")
    for lane, (name, kind) in enumerate(LANES):
        made.region(20 + lane * (WIDTH + 5), 10, WIDTH, height - 20, name, kind=kind)
    boxes = []
    for row, (lane, *lines) in enumerate(STEPS):
        x, y = 42 + lane * (WIDTH + 5), 50 + row * PITCH
        boxes.append(made.box(x, y, WIDTH - 36, HEIGHT, *lines, kind="none paper"))
        made.number(x, y, row + 1)
    lanes = [step[0] for step in STEPS]
    for row, (before, after) in enumerate(itertools.pairwise(boxes)):
        if lanes[row] == lanes[row + 1]:
            made.arrow(before.bottom(), after.top())
        elif lanes[row] < lanes[row + 1]:
            made.arrow(before.right(), (after.top()[0], before.right()[1]), after.top())
        else:
            made.arrow(before.left(), (after.top()[0], before.left()[1]), after.top())
    return made
