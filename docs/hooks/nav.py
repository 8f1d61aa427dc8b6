# SPDX-License-Identifier: GPL-2.0-only
"""Takes those pages into the navigation that exist (mkdocs hook).

mkdocs.yml lists the whole course of the documentation in its order. A page that is not
written yet would break the strict build; here it is left out instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Filters the navigation by the files in docs/."""
    config.nav = existing(config.nav or [], Path(config.docs_dir))
    return config


def existing(entries: list[Any], docs: Path) -> list[Any]:
    """Returns the entries whose page exists; sections that lost all pages go too."""
    kept = []
    for entry in entries:
        [(title, target)] = entry.items()
        if isinstance(target, str):
            if (docs / target).exists():
                kept.append(entry)
        elif inner := existing(target, docs):
            kept.append({title: inner})
    return kept
