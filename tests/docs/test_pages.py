# SPDX-License-Identifier: GPL-2.0-only
"""What the pages name exists: modules, functions, quoted files, pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.hooks import source

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ROOMS = "block|miniqemu|guest|benchmarks|tests|docs"
NAMED_PATH = re.compile(rf"`((?:{ROOMS})/[\w./-]+)(?::([\w.]+))?`")
SNIPPET = re.compile(r'--8<-- "([^":]+)')
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@each_page
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    named = [found[0] for found in NAMED_PATH.findall(page.read_text())]
    built = {"guest/guest.elf"}
    assert [name for name in named if not (ROOT / name).exists() and name not in built] == []


@each_page
def test_every_function_that_a_page_names_is_in_its_file(page: Path) -> None:
    for path, name in NAMED_PATH.findall(page.read_text()):
        if name:
            assert source.find(ROOT / path, name)


@each_page
def test_every_snippet_and_quotation_resolves(page: Path) -> None:
    text = page.read_text()
    for path in SNIPPET.findall(text):
        assert (ROOT / path).exists(), path
    for path, name in source.MARK.findall(text):
        assert source.find(ROOT / path, name)


@each_page
def test_a_picture_stands_in_a_figure_and_so_fits_its_page(page: Path) -> None:
    text = page.read_text()
    framed = re.findall(r'<figure class="mq" markdown="0">\n--8<-- "([^"]+)"\n', text)
    assert [name for name in SNIPPET.findall(text) if name.endswith(".svg")] == framed


@each_page
def test_a_page_has_one_title_and_closed_code_blocks(page: Path) -> None:
    text = page.read_text()
    assert text.startswith("# ")
    assert text.count("\n```") % 2 == 0
    assert "```mermaid" not in text, "needs the network at view time; draw it with docs/tools"
