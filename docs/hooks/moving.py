# SPDX-License-Identifier: GPL-2.0-only
"""Puts the table of drivers, their hooks, and what moves, into its page (mkdocs hook).

`[[moving:table]]` is what tests/conformance/hooks.py finds out by opening a node of each registered
driver; `[[moving:trees]]` lists the trees in which each is moved, `[[moving:moves]]` is how often.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))  # mkdocs does not

MARK = re.compile(r"\[\[moving:(table|trees|moves)\]\]")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces every mark of a page."""
    return MARK.sub(lambda found: replacement(found.group(1)), markdown)


def replacement(what: str) -> str:
    """Returns the text for one mark."""
    from tests.conformance import cells, hooks, trees

    if what == "table":
        return hooks.as_markdown()
    if what == "moves":
        return f"{cells.ALL_MOVES:,}"
    return "\n".join(f"* **{tree.name}**: {tree.build.__doc__}" for tree in trees.TREES)
