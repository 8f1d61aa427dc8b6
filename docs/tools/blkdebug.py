# SPDX-License-Identifier: GPL-2.0-only
"""blkdebug: where it stands and what it hears (blkdebug-tree.svg), the machine that three rules
make (blkdebug-states.svg), and three writes at a break point (blkdebug-break.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture


def tree() -> Picture:
    """Draws a tree with blkdebug, the events and requests that pass, and the three reactions."""
    made = Picture("blkdebug-tree", 860, 318, "Where blkdebug stands, and what passes through it")
    qcow2 = made.box(40, 20, 300, 56, "`qcow2`", "~knows what each request is for", kind="green")
    filter_ = made.box(40, 142, 300, 56, "`blkdebug`", "~state, armed errors, break points",
                       kind="amber")  # fmt: skip
    file = made.box(40, 244, 300, 56, "`file`", "~serves what is left")
    made.arrow(qcow2.bottom(0.2), filter_.top(0.2), dashed=True)
    made.arrow(qcow2.bottom(0.6), filter_.top(0.6))
    made.text(108, 112, "~event")
    made.text(108, 128, "~l2_update")
    made.text(228, 112, "~request")
    made.text(228, 128, "~write 64 KiB")
    made.arrow(filter_.bottom(0.6), file.top(0.6))
    reactions(made)
    return made


def reactions(made: Picture) -> None:
    """Writes what an event and what a request can lead to."""
    made.text(400, 34, "An event (dashed) can", style="title")
    for number, (what, rule) in enumerate(
        (
            ("arm errors, for all requests from now on", "[inject-error]"),
            ("change the state", "[set-state]"),
            ("stop the coroutine, until somebody resumes it", "a break point"),
        )
    ):
        y = 46 + 30 * number
        made.box(400, y, 320, 26, what, kind="blue")
        made.text(732, y + 17, f"~{rule}")
    made.text(400, 164, "A request (solid) can", style="title")
    made.box(400, 176, 320, 26, "fail: an armed error fits it", kind="violet")
    made.text(732, 193, "~by a bottom half")
    made.box(400, 206, 320, 26, "pass", kind="none")
    made.text(
        400, 262, "~The event comes right before its request. blkdebug knows nothing of qcow2:"
    )
    made.text(400, 280, "~it compares names with those in its rules.")


def states() -> Picture:
    """Draws the machine of the rules that let the third write fail."""
    made = Picture("blkdebug-states", 860, 200, "A machine that lets the third write fail")
    boxes = [
        made.box(40 + 290 * n, 70, 180, 60, f"state {n + 1}", line, kind=kind)
        for n, (line, kind) in enumerate(
            (("~as it begins", "plain"), ("~one write was there", "plain"),
             ("~two writes were there", "amber"))
        )
    ]  # fmt: skip
    for left, right, number in ((boxes[0], boxes[1], 1), (boxes[1], boxes[2], 2)):
        made.arrow(left.right(), right.left(), label="~write_aio")
        made.text((left.x + left.width + right.x) / 2, 118, f"~rule {number}", anchor="middle")
    last = boxes[2]
    made.arrow(last.top(0.75), (last.x + 135, 34), (last.x + 45, 34), last.top(0.25))
    made.text(last.x + 90, 26, "~write_aio: rule 3 arms ENOSPC", anchor="middle")
    made.text(40, 166, "~Every other event changes nothing: no rule names it. Rule 3 says once:")
    made.text(
        40, 184, "~it is gone after the request that it made fail, and state 3 is a quiet one."
    )
    return made


def at_a_break_point() -> Picture:
    """Draws three writes in time: one stands, one waits for it, one passes by."""
    made = Picture("blkdebug-break", 860, 250, "Three writes, of which the first stands")
    writes = (
        ("1M", "~the first",
         ((170, 300, "gets a cluster", "green"), (300, 620, "stands at write_aio", "amber"),
          (620, 730, "writes", "green"))),
        ("1M + 512", "~the same cluster",
         ((380, 730, "waits for whoever fills its cluster", "none paper dashed"),
          (730, 830, "writes", "green"))),
        ("2M", "~another cluster", ((460, 590, "writes, is done", "green"),)),
    )  # fmt: skip
    for x, what in ((300, "`break write_aio A`"), (620, "`resume A`")):
        made.text(x, 22, what, anchor="middle")
        made.rule((x, 30), (x, 206))
    for number, (place, what, parts) in enumerate(writes):
        y = 44 + 56 * number
        made.text(16, y + 14, place)
        made.text(16, y + 31, what)
        for start, end, does, kind in parts:
            made.box(start, y, end - start, 38, does, kind=kind)
    made.arrow((170, 218), (830, 218))
    made.text(830, 238, "~time", anchor="end")
    return made
