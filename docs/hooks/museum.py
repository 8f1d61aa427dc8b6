# SPDX-License-Identifier: GPL-2.0-only
"""Makes a page for each piece of the bug museum when the site is built (mkdocs hook).

`[[museum:hall]]` in docs/museum/index.md is the table of all pieces; their pages are not files,
but come from docs/tools/museum.py, and stand in the navigation behind the hall.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))  # mkdocs does not

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

HALL = "museum/index.md"
MARK = "[[museum:hall]]"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the pieces to the navigation."""
    add_pieces(config.nav or [])
    return config


def add_pieces(entries: list[Any]) -> None:
    """Adds the pieces to the section that the hall is in."""
    from docs.tools import museum

    for entry in entries:
        [section] = entry.values()
        if isinstance(section, list) and any(HALL in each.values() for each in section):
            section += [{museum.title(each.name): address(each.name)} for each in museum.pieces()]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    from mkdocs.structure.files import File

    from docs.tools import museum

    for piece in museum.pieces():
        files.append(File.generated(config, address(piece.name), content=museum.page(piece)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the table into the hall."""
    if MARK not in markdown:
        return markdown
    from docs.tools import museum

    return markdown.replace(MARK, museum.hall())


def address(name: str) -> str:
    """Returns where the page of a piece is in docs/."""
    return f"museum/{name}.md"
