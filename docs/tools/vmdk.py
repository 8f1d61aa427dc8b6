# SPDX-License-Identifier: GPL-2.0-only
"""vmdk: the files of a disk (vmdk-files.svg), from an offset to a grain (vmdk-tables.svg), and who
walks which file when the disk moves (vmdk-moving.svg)."""

from __future__ import annotations

from docs.tools.draw import Box, Picture


def files() -> Picture:
    """Draws what each subformat makes of one disk of 5 GiB."""
    made = Picture("vmdk-files", 860, 396, "One disk of 5 GiB as files, subformat by subformat")
    made.text(20, 46, "monolithicSparse")
    made.text(20, 64, "streamOptimized")
    one = made.region(210, 20, 470, 74, "", kind="none")
    for n, (words, kind, width) in enumerate(
        (("header", "violet", 74), ("descriptor", "green", 92), ("tables", "blue", 74))
    ):
        made.box(222 + (0, 80, 178)[n], 32, width, 34, words, kind=kind)
    made.box(480, 32, 188, 34, "grains", kind="amber")
    made.text(one.x + 12, 86, "`disk.vmdk`")
    made.text(20, 147, "monolithicFlat")
    flat = descriptor(made, 122)
    bytes_of = made.box(380, 122, 300, 40, "the bytes", kind="amber")
    made.text(692, 147, "`disk-flat.vmdk`")
    made.arrow(flat.right(), bytes_of.left())
    made.text(20, 227, "twoGbMaxExtentFlat")
    many(made, 202, "f", ("bytes",), ("amber",))
    made.text(20, 307, "twoGbMaxExtentSparse")
    many(made, 282, "s", ("header", "tables", "grains"), ("violet", "blue", "amber"))
    made.text(
        20, 364, "~An extent is a part of the disk in a file. A flat one is nothing but bytes,"
    )
    made.text(20, 382, "~a sparse one has tables of its own, and holds what was written.")
    return made


def descriptor(made: Picture, y: float) -> Box:
    """Draws a file that is the descriptor."""
    box = made.box(210, y, 108, 40, "descriptor", kind="green")
    made.text(210, y + 56, "`disk.vmdk`")
    return box


def many(
    made: Picture, y: float, letter: str, words: tuple[str, ...], kinds: tuple[str, ...]
) -> None:
    """Draws a descriptor and its three extents."""
    top = descriptor(made, y)
    for n, size in enumerate(("2 GiB", "2 GiB", "1 GiB")):
        x = 380 + 160 * n
        width = 146 / len(words)
        for part, (word, kind) in enumerate(zip(words, kinds, strict=True)):
            label = word if len(words) > 1 else f"{word}: {size}"
            made.box(
                x + part * width, y, width, 40, label if len(words) == 1 else f"~{word}", kind=kind
            )
        made.text(x, y + 56, f"`disk-{letter}00{n + 1}.vmdk`")
    made.arrow(top.right(), (378, y + 20))


def tables() -> Picture:
    """Draws the way from an offset in an extent to a grain, and the second set of tables."""
    made = Picture("vmdk-tables", 860, 356, "From an offset in an extent to a grain in its file")
    made.text(18, 30, "offset", style="title")
    first = made.box(160, 12, 220, 34, "~index in the directory", kind="green")
    second = made.box(380, 12, 220, 34, "~index in the table: 512 entries", kind="green")
    third = made.box(600, 12, 240, 34, "~byte in the grain: 64 KiB", kind="amber")
    directory = made.box(160, 104, 220, 54, "grain directory", "~all in memory", kind="blue")
    table = made.box(380, 184, 220, 54, "grain table", "~16 of them in memory", kind="blue")
    grain = made.box(600, 264, 240, 46, "the grain in the file", kind="amber")
    made.arrow(first.bottom(), directory.top())
    made.arrow(second.bottom(), table.top())
    made.arrow(third.bottom(), grain.top(0.5))
    made.arrow(directory.right(), (410, 131), (410, 184))
    made.text(416, 152, "~its sector")
    made.arrow(table.right(), (680, 211), (680, 264))
    made.text(606, 202, "~its sector")
    spare = made.box(160, 264, 150, 46, "redundant", "directory", kind="none")
    copy = made.box(380, 264, 150, 46, "redundant", "tables", kind="none")
    made.arrow(spare.right(), copy.left(), dashed=True)
    made.arrow(table.bottom(0.34), copy.top(0.5), dashed=True)
    made.text(18, 340, "~Each change goes to both sets of tables. Only the first is ever read.")
    return made


def moving() -> Picture:
    """Draws the tree of a disk in three files, and who takes which node out of its loop."""
    made = Picture("vmdk-moving", 860, 250, "Who walks the files of a disk when it moves")
    top = made.box(345, 24, 170, 48, "vmdk", kind="violet")
    names = (
        ("file", "`disk.vmdk`", "plain"),
        ("extents.0", "`disk-s001.vmdk`", "amber"),
        ("extents.1", "`disk-s002.vmdk`", "amber"),
        ("backing", "`base.vmdk`", "plain"),
    )
    for n, (edge, name, kind) in enumerate(names):
        box = made.box(24 + 208 * n, 134, 186, 48, edge, name, kind=kind)
        made.arrow(top.bottom((n + 1) / 5), box.top(), dashed=kind == "amber")
    made.text(24, 212, "~solid: the core walks it, for every driver")
    made.text(
        24, 232, "~dashed: the driver's own children. It walks them in its hooks, or nobody does"
    )
    made.text(24, 44, "~1. detach: the driver, its own children,")
    made.text(24, 62, "~    then file and backing")
    made.text(545, 44, "~2. attach: backing and file,")
    made.text(545, 62, "~    then the driver's own children")
    return made
