# SPDX-License-Identifier: GPL-2.0-only
"""One pass of the event loop, and how a wake-up is not lost (loop.svg, wake-up.svg)."""

from __future__ import annotations

from itertools import pairwise

from docs.tools.draw import Box, Picture


def one_pass() -> Picture:
    """Draws what poll does, from left to right, and who brings work."""
    made = Picture("loop", 860, 290, "One pass of AioContext.poll")
    made.text(20, 18, "The thread at home", style="title")
    steps = (
        ("1 wait", "~if nothing is pending", "amber"),
        ("2 accept", "~the wake-ups so far", "violet"),
        ("3 bottom halves", "~those there now", "blue"),
        ("4 descriptors", "~what the wait found", "blue"),
        ("5 timers", "~what is due", "blue"),
    )
    boxes = [
        made.box(20 + 168 * number, 50, 138, 60, title, note, kind=kind)
        for number, (title, note, kind) in enumerate(steps)
    ]
    for left, right in pairwise(boxes):
        made.arrow(left.right(), right.left())
    made.arrow(boxes[-1].top(), (761, 34), (89, 34), boxes[0].top(), dashed=True)
    sources(made, boxes)
    return made


def sources(made: Picture, boxes: list[Box]) -> None:
    """Draws where the work comes from."""
    kernel = made.box(20, 200, 138, 60, "the kernel", "~sockets, eventfds", kind="green")
    clock = made.box(692, 200, 138, 60, "the clocks", "~real, virtual, host", kind="green")
    other = made.box(188, 200, 306, 60, "any thread", "`bh.schedule()`", kind="plain")
    made.arrow(kernel.top(), boxes[0].bottom())
    made.arrow(other.top(0.85), boxes[2].bottom(0.35))
    made.arrow(other.top(0.12), boxes[0].bottom(0.85))
    made.text(238, 160, "`notify()`")
    made.text(462, 160, "~into a queue")
    made.arrow(clock.top(), boxes[4].bottom())


def wake_up() -> Picture:
    """Draws the two orders in which a notify and a sleep can meet."""
    made = Picture("wake-up", 860, 330, "notify and poll: whoever comes second sees the other")
    made.region(20, 10, 400, 310, "the notify comes first", kind="none")
    made.region(440, 10, 400, 310, "the sleep comes first", kind="none")
    first(made, 20)
    second(made, 440)
    return made


def lanes(made: Picture, x: float) -> tuple[float, float]:
    return made.two_lanes(x, ("home, in poll", "another thread"), 300)


def first(made: Picture, x: float) -> None:
    home, other = lanes(made, x)
    made.box(other - 80, 80, 160, 30, "`_notified = True`", kind="violet")
    made.box(other - 80, 120, 160, 30, "~nobody sleeps: done", kind="plain")
    made.box(home - 80, 175, 160, 30, "`_notify_me += 2`", kind="amber")
    made.box(home - 80, 215, 160, 30, "`_notified? yes`", kind="violet")
    made.box(home - 80, 255, 160, 30, "does not sleep", kind="green")


def second(made: Picture, x: float) -> None:
    home, other = lanes(made, x)
    made.box(home - 80, 80, 160, 30, "`_notify_me += 2`", kind="amber")
    made.box(home - 80, 120, 160, 30, "`_notified? no: epoll`", kind="amber")
    made.box(other - 80, 175, 160, 30, "`_notified = True`", kind="violet")
    sets = made.box(other - 90, 215, 180, 30, "~somebody sleeps: eventfd", kind="amber")
    woken = made.box(home - 80, 255, 160, 30, "wakes up", kind="green")
    made.arrow(sets.left(), (home, 230), woken.top())
