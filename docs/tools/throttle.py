# SPDX-License-Identifier: GPL-2.0-only
"""Throttling: the bucket (throttle-bucket.svg), a burst (throttle-burst.svg) and a group that two
threads share (throttle-group.svg).

The burst is not drawn by hand: the limits' own code runs here, with a clock that is a number.
"""

from __future__ import annotations

from block.objects.throttle_bucket import READ, SECOND_NS, ThrottleState
from block.objects.throttle_options import config_of
from docs.tools.draw import Picture, Point

LIMITS = {"iops-total": 100, "iops-total-max": 1000, "iops-total-max-length": 5}
SECONDS = 30
REST = range(15, 24)  # the guest does nothing in these seconds
# Where the plot is: its left and right end, and the lower and upper end of its two scales.
LEFT, RIGHT = 80.0, 800.0
RATE_FOOT, RATE_HEIGHT, LEVEL_FOOT, LEVEL_HEIGHT = 200.0, 120.0, 380.0, 120.0


def bucket() -> Picture:
    """Draws what pours in, what leaks, and how full is too full."""
    made = Picture("throttle-bucket", 860, 340, "A leaky bucket: requests pour in, the limit leaks")
    request = made.box(60, 24, 190, 44, "a request", "~1 operation, or its bytes", kind="blue")
    made.parts.append(
        '<path class="none" stroke-width="2" d="M80,110 L110,290 L240,290 L270,110"/>'
    )
    made.parts.append('<path class="blue" d="M92,180 L110,290 L240,290 L258,180 Z"/>')
    made.arrow(request.bottom(), (155, 172))
    made.text(175, 240, "level", anchor="middle", style="title")
    made.rule((60, 130), (420, 130))
    made.text(430, 127, "full")
    made.text(430, 144, "~max times burst length; without a max a tenth of a second of avg")
    made.arrow((175, 290), (175, 328))
    made.text(190, 318, "leaks avg a second, always")
    made.box(430, 170, 180, 52, "level ≤ full", "the next one runs", kind="green")
    made.box(640, 170, 200, 52, "level > full", "wait (level - full) / avg", kind="amber")
    made.text(430, 252, "~A request is let in first and poured then. So the one that overfills the")
    made.text(430, 269, "~bucket runs, whatever its size, and those after it wait.")
    return made


def run() -> tuple[list[int], list[Point]]:
    """Lets a guest read as fast as it may; returns the reads of each half second, and the bucket's
    level over the seconds."""
    state = ThrottleState()
    state.configure(config_of(LIMITS), 0)
    total = state.config.buckets[3]
    reads = [0] * (2 * SECONDS)
    levels: list[Point] = [(0, 0)]
    now = 0
    while True:
        now += state.compute_wait(READ, now)
        if now // SECOND_NS in REST:
            now = REST.stop * SECOND_NS
            levels.append((REST.start, total.level))
            state.compute_wait(READ, now)
        if now >= SECONDS * SECOND_NS:
            return reads, levels
        state.account(READ, 4096)
        reads[2 * now // SECOND_NS] += 1
        if now - levels[-1][0] * SECOND_NS >= SECOND_NS / 4:
            levels.append((now / SECOND_NS, total.level))


def burst() -> Picture:
    """Plots what `run` returns."""
    limits = ", ".join(f"{name}={value}" for name, value in LIMITS.items())
    made = Picture("throttle-burst", 860, 436, f"Two bursts: {limits}")
    reads, levels = run()
    made.text(LEFT, 28, "reads a second", style="title")
    for rate in (100, 1000):
        scale(made, RATE_FOOT - RATE_HEIGHT * rate / 1000, f"{rate:,}")
    width = (RIGHT - LEFT) / len(reads)
    for number, count in enumerate(reads):
        height = RATE_HEIGHT * 2 * count / 1000
        if count:
            made.parts.append(
                f'<rect class="blue" x="{LEFT + number * width:.1f}" y="{RATE_FOOT - height:.1f}" '
                f'width="{width - 1:.1f}" height="{height:.1f}"/>'
            )
    made.text(LEFT, 238, "level of the bucket", style="title")
    scale(made, LEVEL_FOOT - LEVEL_HEIGHT, "5,000")
    points = " L".join(
        f"{across(at):.1f},{LEVEL_FOOT - LEVEL_HEIGHT * level / 5000:.1f}" for at, level in levels
    )
    made.parts.append(f'<path class="arrow" d="M{points}"/>')
    for foot in (RATE_FOOT, LEVEL_FOOT):
        made.parts.append(f'<path class="none" d="M{LEFT:g},{foot:g} L{RIGHT:g},{foot:g}"/>')
    for second in range(0, SECONDS + 1, 5):
        made.text(across(second), LEVEL_FOOT + 20, f"~{second} s", anchor="middle")
    made.text(across(3), LEVEL_FOOT + 42, "the first burst", anchor="middle")
    made.text(across(10.5), LEVEL_FOOT + 42, "throttled", anchor="middle")
    made.text(across(19.5), LEVEL_FOOT + 42, "the guest rests: it leaks", anchor="middle")
    made.text(across(25.5), LEVEL_FOOT + 42, "a short one", anchor="middle")
    return made


def across(second: float) -> float:
    """Returns where a moment is."""
    return LEFT + (RIGHT - LEFT) * second / SECONDS


def scale(made: Picture, y: float, label: str) -> None:
    """Draws a line across the plot with its value."""
    made.rule((LEFT, y), (RIGHT, y))
    made.text(LEFT - 8, y + 4, f"~{label}", anchor="end")


def group() -> Picture:
    """Draws two members in two threads, and what they share."""
    made = Picture("throttle-group", 860, 420, "One group, two disks in two IOThreads")
    for x, name in ((20, "io0"), (580, "io1")):
        made.region(x, 10, 260, 270, f"IOThread {name}")
        made.box(x + 20, 50, 220, 34, "throttle node", kind="blue")
        made.box(x + 20, 96, 220, 34, "reads: 3 wait", kind="plain")
        made.box(x + 20, 142, 220, 34, "writes: none waits", kind="plain")
        timers, half = (x + 20, x + 135) if x < 300 else (x + 145, x + 20)
        made.box(timers, 188, 95, 70, "read timer", "write timer", kind="amber")
        made.box(half, 188, 105, 70, "bottom half", "~arms a timer", kind="violet")
    shared = made.region(320, 50, 220, 230, "the group", kind="green")
    for number, line in enumerate(
        ("one lock, around all this:", "limits and levels", "whose turn it is", "until when")
    ):
        made.text(430, 106 + 34 * number, line, anchor="middle")
    made.text(430, 242, "~one turn for reads,", anchor="middle")
    made.text(430, 259, "~one for writes", anchor="middle")
    made.arrow((260, 113), shared.left(0.275))
    made.arrow((540, 223), (600, 223))
    made.arrow((705, 223), (725, 223))
    steps = (
        "A read of io0 asks, with the lock held: the bucket is too full. It waits in its queue.",
        "The turn is io1's. Only io1 may touch its timer, so its bottom half is scheduled.",
        "The bottom half arms the timer. It fires, one read of io1 runs and is poured in.",
        "That read, on its way, gives the next turn: round and round, to who has reads waiting.",
    )
    for number, line in enumerate(steps, start=1):
        made.number(34, 304 + 28 * (number - 1), number)
        made.text(54, 308 + 28 * (number - 1), line)
    made.number(300, 94, 1)
    made.number(560, 204, 2)
    made.number(716, 204, 3)
    return made
