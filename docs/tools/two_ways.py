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
    guest = made.box(x + 20, 50, 160, 44, "guest: vCPU thread", "`store to QueueNotify`")
    kvm = made.box(x + 20, 142, 160, 44, "KVM", "~matches the address")
    made.arrow(guest.bottom(0.3), kvm.top(0.3))
    loop = made.box(x + 220, 142, 160, 44, thread, "`ctx.poll()`")
    made.arrow(kvm.right(), loop.left())
    made.text(x + 200, 132, "~eventfd", anchor="middle")
    device = made.box(x + 220, 226, 160, 44, "virtio-blk", "~pops the ring")
    made.arrow(loop.bottom(), device.top())
    tree = made.box(x + 220, 310, 160, 44, "raw, file", "`preadv`")
    made.arrow(device.bottom(0.35), tree.top(0.35))
    made.arrow(tree.top(0.65), device.bottom(0.65))
    made.arrow(device.left(), (x + 60, 248), (x + 60, 186))
    made.text(x + 140, 240, "~big lock, IRQ line" if locked else "~irqfd, no lock", anchor="middle")
    made.arrow(kvm.top(0.7), guest.bottom(0.7))
    made.text(x + 140, 123, "~interrupt")
    words = (
        ("~one thread for all devices;", "~waits while a vCPU holds the lock")
        if locked
        else ("~a thread of its own;", "~takes the big lock nowhere")
    )
    for line, word in enumerate(words):
        made.text(x + 20, 382 + 17 * line, word)
