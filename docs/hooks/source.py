# SPDX-License-Identifier: GPL-2.0-only
"""Quotes functions from the source by their names, and counts its lines (mkdocs hook).

A line `[[source:block/aio/context.py:AioContext.poll]]` becomes the function as it stands in
the file at the moment of the build, under its path; of a C file, with the comment above it.
`[[lines:guest/*.c]]` becomes the number of lines in these files. No markers in the source, no
stale copies in the pages; a name that no longer exists is a warning, which ends the strict build.
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
LINES = re.compile(r"\[\[lines:([^\]]+)\]\]")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces every mark of a page."""
    counted = LINES.sub(lambda found: f"{lines(found.group(1)):,}", markdown)
    return MARK.sub(lambda found: quoted(found.group(1), found.group(2)), counted)


def lines(patterns: str) -> int:
    """Returns how many lines the files have that the patterns, separated by spaces, match."""
    files = [file for pattern in patterns.split() for file in ROOT.glob(pattern)]
    if not files:
        log.warning("no file to count: %s", patterns)
    return sum(len(file.read_text().splitlines()) for file in files)


def quoted(path: str, name: str) -> str:
    """Returns the named function or class as a block of code."""
    try:
        text = find(ROOT / path, name)
    except (OSError, LookupError) as error:
        log.warning("cannot quote %s from %s: %s", name, path, error)
        return ""
    language = "python" if path.endswith(".py") else "c"
    return f'```{language} title="{path}"\n{text}\n```'


def find(file: Path, name: str) -> str:
    """Returns the source of a function or class, by its dotted name; LookupError if absent."""
    text = file.read_text()
    if file.suffix != ".py":
        return find_in_c(text.splitlines(), name)
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        node = member(node, part)
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def find_in_c(text: list[str], name: str) -> str:
    """Returns the source of a C function and the comment above it; LookupError if absent."""
    head = re.compile(rf"\w.*\b{re.escape(name)}\(.*\) {{$")
    first = next((at for at, line in enumerate(text) if head.match(line)), None)
    if first is None:
        raise LookupError(f"no {name} there")
    end = text.index("}", first)
    while text[first - 1].startswith(("//", "__attribute__")):
        first -= 1
    return "\n".join(text[first : end + 1])


def member(node: ast.AST, name: str) -> ast.AST:
    """Returns the function or class `name` in the body of another."""
    body: list[ast.AST] = getattr(node, "body", [])
    for child in body:
        if getattr(child, "name", None) == name:
            return child
    raise LookupError(f"no {name} there")
