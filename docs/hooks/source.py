# SPDX-License-Identifier: GPL-2.0-only
"""Quotes functions from the source by their names (mkdocs hook).

A line `[[source:block/aio/context.py:AioContext.poll]]` becomes the function as it stands in
the file at the moment of the build, under its path. No markers in the source, no stale copies
in the pages; a name that no longer exists is a warning, which ends the strict build.
"""

from __future__ import annotations

import ast
import logging
import re
import textwrap
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.source")

ROOT = Path(__file__).parent.parent.parent
MARK = re.compile(r"^\[\[source:([^:\]]+):([\w.]+)\]\]$", re.M)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces every mark of a page."""
    return MARK.sub(lambda found: quoted(found.group(1), found.group(2)), markdown)


def quoted(path: str, name: str) -> str:
    """Returns the named function or class as a block of code."""
    try:
        text = find(ROOT / path, name)
    except (OSError, LookupError) as error:
        log.warning("cannot quote %s from %s: %s", name, path, error)
        return ""
    return f'```python title="{path}"\n{text}\n```'


def find(file: Path, name: str) -> str:
    """Returns the source of a function or class, by its dotted name; LookupError if absent."""
    text = file.read_text()
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        node = member(node, part)
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def member(node: ast.AST, name: str) -> ast.AST:
    """Returns the function or class `name` in the body of another."""
    body: list[ast.AST] = getattr(node, "body", [])
    for child in body:
        if getattr(child, "name", None) == name:
            return child
    raise LookupError(f"no {name} there")
