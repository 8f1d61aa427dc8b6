# SPDX-License-Identifier: GPL-2.0-only
"""The orders of detach and attach in a tree with a backing file (docs/images/moving.svg).

A test moves such a tree and compares.
"""

from __future__ import annotations

from docs.tools.draw import Box, Picture

DETACH = ("throttle", "qcow2", "top.qcow2", "raw", "base.raw")
ATTACH = ("base.raw", "raw", "top.qcow2", "qcow2", "throttle")

PLACES = {
    "throttle": (110, 76, "~filter", "violet"),
    "qcow2": (110, 160, "~format", "green"),
    "top.qcow2": (28, 270, "~protocol", "amber"),
    "raw": (202, 270, "~format", "green"),
    "base.raw": (202, 370, "~protocol", "amber"),
}
EDGES = (("throttle", "qcow2"), ("qcow2", "top.qcow2"), ("qcow2", "raw"), ("raw", "base.raw"))
WIDTH, HEIGHT = 150, 46


def picture() -> Picture:
    """Draws the tree twice: in which order its nodes leave a loop, and come into one."""
    made = Picture("moving", 860, 476, "Parents leave before their children, and come after them")
    made.region(16, 14, 388, 420, "leaving the old loop: detach", kind="blue")
    made.region(456, 14, 388, 420, "coming into the new one: attach", kind="green")
    one_tree(made, 0, DETACH)
    one_tree(made, 440, ATTACH)
    made.arrow((404, 224), (456, 224))
    made.text(
        430,
        460,
        "~between the two the nodes are in no loop at all: nobody may use them, and nobody does",
        anchor="middle",
    )
    return made


def one_tree(made: Picture, dx: float, order: tuple[str, ...]) -> None:
    """Draws the nodes with their numbers in an order."""
    boxes: dict[str, Box] = {}
    for name, (x, y, what, kind) in PLACES.items():
        boxes[name] = made.box(x + 24 + dx, y, WIDTH, HEIGHT, f"`{name}`", what, kind=kind)
        made.number(x + 24 + dx, y, order.index(name) + 1)
    for parent, child in EDGES:
        made.arrow(boxes[parent].bottom(), boxes[child].top())
