# SPDX-License-Identifier: GPL-2.0-only
"""The three engines of `file`, and what waits where (docs/images/engines.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture

# title, kind, what the loop does, the call, who waits, where, how the answer comes
LANES = (
    (
        "aio=threads", "blue", ("worker threads", "`preadv, pwritev`"),
        "~work, by a queue", ("a worker waits", "~one for each request in flight"),
        "~bottom half",
    ),
    (
        "aio=native", "green", ("kernel: AIO context", "`1,024 x struct iocb`"),
        "~io_submit", ("nobody waits", "~O_DIRECT: the disk works alone"),
        "~eventfd",
    ),
    (
        "aio=io_uring", "violet", ("kernel: two rings", "`256 x sqe, cqe`"),
        "~io_uring_enter", ("a kernel worker waits,", "~where the disk cannot work alone"),
        "~eventfd",
    ),
)  # fmt: skip


def picture() -> Picture:
    """Draws the loop on top, one lane for each engine, and the disk below."""
    made = Picture("engines", 900, 430, "What waits where with each engine of the file driver")
    made.box(
        20, 20, 860, 56, "The event loop of the node's context",
        "~never waits for the disk: it hands requests over, sleeps for all events at once, "
        "and wakes coroutines", kind="amber",
    )  # fmt: skip
    for number, lane in enumerate(LANES):
        draw_lane(made, 20 + 290 * number, *lane)
    made.box(20, 366, 860, 44, "The disk", "~or another file system's server")
    return made


def draw_lane(
    made: Picture,
    x: float,
    title: str,
    kind: str,
    place: tuple[str, str],
    down: str,
    waits: tuple[str, str],
    up: str,
) -> None:
    """Draws the way of one engine's requests, down and up again."""
    made.region(x, 96, 280, 250, title, kind=kind)
    upper = made.box(x + 20, 176, 240, 48, *place)
    lower = made.box(x + 20, 272, 240, 48, *waits)
    made.arrow((x + 124, 76), (x + 124, 176))
    made.text(x + 130, 146, down)
    made.arrow((x + 252, 176), (x + 252, 76))
    made.text(x + 246, 166, up, anchor="end")
    made.arrow(upper.bottom(0.2), lower.top(0.2))
    made.arrow(lower.top(0.8), upper.bottom(0.8))
    made.arrow(lower.bottom(0.2), (x + 20 + 48, 366))
    made.arrow((x + 20 + 192, 366), lower.bottom(0.8))
