# SPDX-License-Identifier: GPL-2.0-only
"""How a request reaches an IOThread that sleeps, and one that looks (looking.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture


def looking() -> Picture:
    """Draws both ways, and under them how a loop finds out which one is better."""
    made = Picture("looking", 860, 400, "A thread that sleeps until it is rung, and one that looks")
    made.region(20, 10, 400, 240, "it sleeps: the guest rings", kind="none")
    made.region(440, 10, 400, 240, "it looks: nobody rings", kind="none")
    asleep(made, 20)
    awake(made, 440)
    trial(made)
    return made


def lanes(made: Picture, x: float) -> tuple[float, float]:
    return made.two_lanes(x, ("the guest", "the IOThread"), 240)


def asleep(made: Picture, x: float) -> None:
    guest, thread = lanes(made, x)
    made.box(guest - 80, 80, 160, 30, "adds a read", kind="blue")
    rings = made.box(guest - 80, 120, 160, 30, "~rings: an exit", kind="amber")
    made.box(thread - 80, 80, 160, 30, "~asleep in epoll", kind="plain")
    woken = made.box(thread - 80, 160, 160, 30, "~woken by the kernel", kind="amber")
    made.box(thread - 80, 200, 160, 30, "takes the read", kind="green")
    made.arrow(rings.right(), (thread, 135), woken.top())


def awake(made: Picture, x: float) -> None:
    guest, thread = lanes(made, x)
    adds = made.box(guest - 80, 120, 160, 30, "adds a read", kind="blue")
    made.box(thread - 80, 80, 160, 30, "~looks: nothing new", kind="violet")
    sees = made.box(thread - 80, 120, 160, 30, "~looks: it has moved", kind="violet")
    made.box(thread - 80, 160, 160, 30, "takes the read", kind="green")
    made.arrow(adds.right(), sees.left())


def trial(made: Picture) -> None:
    measure = made.box(20, 300, 200, 60, "sleep a round", "~32 waits: what is usual?", kind="plain")
    look = made.box(330, 300, 200, 60, "look, round by round", "~a tenth shorter?", kind="violet")
    pause = made.box(640, 300, 200, 60, "sleep some rounds", "~1, 4, 16, 64, 128", kind="plain")
    made.arrow(measure.right(), look.left())
    made.arrow(look.right(), pause.left())
    made.text(585, 322, "~no", anchor="middle")
    made.arrow(look.bottom(0.4), (410, 384), (120, 384), measure.bottom())
    made.text(265, 378, "~after 128 good ones", anchor="middle")
    made.arrow(pause.top(), (740, 276), (120, 276), measure.top())
