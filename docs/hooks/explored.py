# SPDX-License-Identifier: GPL-2.0-only
"""Puts what the explorer finds, and how much it tries, into the page about it (mkdocs hook).

`[[explored:spaces]]` is the table of tests/explore, from the counts that `pytest tests/explore
--keep-spaces` has kept. `[[explored:museum]]` is how many orders some pieces of the museum take,
and `[[explored:picture]]` an order that goes wrong; these are searched when the site is built.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))  # mkdocs does not

MARK = re.compile(r"\[\[explored:(spaces|museum|picture)\]\]")
SPACES = ROOT / "tests/explore/spaces.json"
PICTURED = "dispatching"
COUNTED = ("bh_ctx", "dispatching", "lost_notify")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces every mark of a page."""
    made = {"spaces": spaces, "museum": museum, "picture": picture}
    return MARK.sub(lambda found: made[found.group(1)](), markdown)


def spaces() -> str:
    """Returns what tests/explore has tried, as a table in Markdown."""
    kept: dict[str, dict[str, Any]] = json.loads(SPACES.read_text())
    lines = ["| what must hold | threads | preemptions | orders |", "|---|--:|--:|--:|"]
    for name, space in kept.items():
        what = name.removeprefix("test_").replace("_", " ")
        tried = space["orders"] + space["beginnings"]
        lines.append(f"| {what} | {space['threads']} | {space['preemptions']} | {tried:,} |")
    return "\n".join(lines)


def museum() -> str:
    """Returns how many orders were tried for some pieces, as a table in Markdown."""
    from docs.tools.museum import title
    from tutorials.museum.pieces import Piece

    lines = [
        "| mistake | preemptions it needs | orders until it is found | orders of the mended code |",
        "|---|--:|--:|--:|",
    ]
    for name in COUNTED:
        piece = Piece(name)
        mistaken, mended = piece.search(True), piece.search(False)
        assert mistaken.failure is not None, name
        lines.append(
            f"| [{title(name)}](museum/{name}.md) | {mistaken.failure.preemptions} "
            f"| {mistaken.tried:,} | {mended.tried:,}, all with at most {mended.preemptions} |"
        )
    return "\n".join(lines)


def picture() -> str:
    """Returns an order that goes wrong, drawn."""
    from docs.tools.museum import interleaving
    from tutorials.museum.pieces import Piece

    return interleaving(Piece(PICTURED))
