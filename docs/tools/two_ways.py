# SPDX-License-Identifier: GPL-2.0-only
"""The two ways to serve a disk, side by side (docs/images/two-ways.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture


def picture() -> Picture:
    """Draws a doorbell's way on the main loop (left) and by data-plane (right)."""
    made = Picture("two-ways", 860, 430, "A doorbell served by the main loop, and by an IOThread")
    half(made, 20, "main loop, under the big lock", "blue", "main loop", True)
    half(made, 440, "data-plane", "green", "IOThread", False)
    return made


def half(made: Picture, x: float, title: str, kind: str, thread: str, locked: bool) -> None:
    """Draws one of the two ways, from the guest's store to its interrupt."""
    made.region(x, 10, 400, 410, title, kind=kind)
    guest = made.box(x + 16, 50, 152, 44, "guest: vCPU thread", "`store: QueueNotify`")
    kvm = made.box(x + 16, 142, 152, 44, "KVM", "~matches the address")
    made.arrow(guest.bottom(0.3), kvm.top(0.3))
    loop = made.box(x + 232, 142, 152, 44, thread, "`ctx.poll()`")
    made.arrow(kvm.right(), loop.left())
    made.text(x + 200, 156, "~eventfd", anchor="middle")
    device = made.box(x + 232, 226, 152, 44, "virtio-blk", "~pops the ring")
    made.arrow(loop.bottom(), device.top())
    tree = made.box(x + 232, 310, 152, 44, "raw, file", "`preadv`")
    made.arrow(device.bottom(0.35), tree.top(0.35))
    made.arrow(tree.top(0.65), device.bottom(0.65))
    made.arrow(device.left(), (x + 60, 248), (x + 60, 186))
    made.text(x + 146, 240, "~interrupt line" if locked else "~irqfd", anchor="middle")
    made.arrow(kvm.top(0.7), guest.bottom(0.7))
    made.text(x + 130, 123, "~interrupt")
    words = (
        ("~one thread for all devices;", "~it holds the big lock while it works")
        if locked
        else ("~a thread for this disk;", "~it takes the big lock nowhere")
    )
    for line, word in enumerate(words):
        made.text(x + 16, 384 + 17 * line, word)
