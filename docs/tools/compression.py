# SPDX-License-Identifier: GPL-2.0-only
"""How compressed clusters are packed (compression-packed.svg), and who does what when they are
written (compression-write.svg)."""

from __future__ import annotations

from docs.tools.draw import Picture

PACKED = (  # guest cluster, where its packed data begin and end, in thousandths of two clusters
    ("A", 0, 190, "green"),
    ("B", 190, 420, "blue"),
    ("C", 420, 640, "violet"),
    ("D", 640, 730, "amber"),
)
SHARES = (  # of each worker: which clusters it packs, and how long that takes
    (("0", 70), ("2", 50), ("3", 74), ("6", 66)),
    (("1", 104), ("4", 46), ("5", 40), ("7", 78)),
)
LEFT, WIDTH = 30, 800


def packed() -> Picture:
    """Draws two clusters of a file with four guest clusters in them."""
    made = Picture("compression-packed", 860, 350, "Four compressed clusters in two of the file")
    for number, (name, *_, kind) in enumerate(PACKED):
        x = 150 + 150 * number
        made.box(x, 14, 120, 40, f"guest cluster {name}", kind=kind)
        middle = (PACKED[number][1] + PACKED[number][2]) / 2
        made.arrow((x + 60, 54), (at(middle), 118))
    made.text(LEFT, 38, "~64 KiB each")
    for name, start, end, kind in PACKED:
        made.box(at(start), 120, at(end) - at(start), 56, name, kind=kind)
    made.box(at(730), 120, at(1000) - at(730), 56, "~free_byte: the next goes here", kind="none")
    made.rule((at(500), 86), (at(500), 214))
    made.text(at(0), 204, "cluster 5 of the file, refcount 3: A, B, C")
    made.text(at(500) + 10, 204, "cluster 6, refcount 2: C, D")
    ruler(made)
    made.text(
        LEFT, 316, "~The entry of C says: begins at this byte, and reaches into so many sectors."
    )
    made.text(
        LEFT, 336, "~Its last sector holds the beginning of D, too. The unpacker stops by itself."
    )
    return made


def at(thousandth: float) -> float:
    """Returns the x of a place in the file."""
    return LEFT + WIDTH * thousandth / 1000


def ruler(made: Picture) -> None:
    """Draws sectors, and which of them the entry of C names."""
    for sector in range(41):
        x = at(25 * sector)
        made.rule((x, 226), (x, 238))
    made.text(LEFT, 258, "~sectors of 512 bytes")
    made.arrow((at(420), 272), (at(420), 242))
    made.text(at(420), 286, "~offset", anchor="middle")
    made.arrow((at(432), 256), (at(650), 256))
    made.text(at(541), 272, "~sectors", anchor="middle")


def write() -> Picture:
    """Draws the loop and two workers, and what each does for a request of eight clusters."""
    made = Picture("compression-write", 860, 222, "A compressed write of eight clusters")
    made.text(LEFT, 40, "the loop", style="title")
    for worker, clusters in enumerate(SHARES):
        y = 72 + 44 * worker
        made.text(LEFT, y + 20, f"worker {worker + 1}")
        x = 220
        for name, width in clusters:
            made.box(x, y, width, 32, f"~{name}", kind="green")
            x += width
        made.arrow((170, 54), (170, y + 16), (220, y + 16))
        made.arrow((x, y + 16), (533, y + 16), (533, 54))
    for x, width, line, kind in (
        (130, 80, "~hand out", "plain"),
        (490, 86, "~place", "blue"),
        (596, 100, "~one write", "amber"),
        (716, 110, "~8 entries", "blue"),
    ):
        made.box(x, 20, width, 34, line, kind=kind)
    made.text(556, 92, "~place and entries: with the image's lock")
    made.text(556, 110, "~the write: without it")
    made.text(LEFT, 186, "~Packing takes nearly all of the time. The libraries let other threads")
    made.text(LEFT, 204, "~run meanwhile, so it takes half as long on two processors.")
    return made
