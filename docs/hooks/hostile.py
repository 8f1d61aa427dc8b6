# SPDX-License-Identifier: GPL-2.0-only
"""Puts the table of hostile deeds into its page when it is built (mkdocs hook).

`[[hostile:table]]` is the whole table of tests/miniqemu/hw/hostile/table.py; `[[hostile:count]]` is
how many rows it has, and `[[hostile:count NEEDS_RESET]]` how many have that answer.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))  # mkdocs does not

MARK = re.compile(r"\[\[hostile:(table|count)(?: (\w+))?\]\]")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces every mark of a page."""
    return MARK.sub(lambda found: replacement(found.group(1), found.group(2)), markdown)


def replacement(what: str, answer: str | None) -> str:
    """Returns the text for one mark."""
    from tests.miniqemu.hw.hostile import table

    if what == "table":
        return table.as_markdown()
    wanted = [case for case in table.CASES.values() if answer in (None, case.answer.value)]
    assert wanted, f"no deed has the answer {answer}"
    return str(len(wanted))
