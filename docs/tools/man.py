# SPDX-License-Identifier: GPL-2.0-only
"""Manual pages, made from the pages of the documentation and the programs' own help.

    python -m docs.tools.man [FOLDER]      make man

    NAME         here
    DESCRIPTION  how the page begins
    OPTIONS      what --help prints, in lines of a terminal
    the rest     the page, section by section; without pictures and quoted code

R1  Nothing is written twice: a manual page is another view of what there is.
R2  What roff would take for its own (a dot at the start of a line, a backslash) is disarmed by
    `plain` and `line`.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from miniqemu import VERSION
from miniqemu.cli import help as machine_help
from miniqemu.cli.img import help as img_help
from miniqemu.cli.io import texts as io_texts

ROOT = Path(__file__).parents[2]
WIDTH = 71  # what man's margins leave of 80 columns


class Page(NamedTuple):
    """A program, the page that it is described on, what it is, and its help."""

    program: str
    source: str
    what: str
    help: Callable[[str], str]


PAGES = (
    Page(
        "miniqemu",
        "command-line.md",
        "a tiny hypervisor with QEMU's block layer",
        machine_help.usage,
    ),
    Page("miniqemu-img", "img.md", "QEMU's tool for disk images, in Python", img_help.help_text),
    Page("miniqemu-io", "io.md", "requests to a disk image, by hand", io_texts.usage),
)


# -- words


def plain(text: str) -> str:
    """Text that roff prints as it stands, within a line (R2)."""
    return text.replace("\\", "\\e").replace("-", "\\-")


def line(text: str) -> str:
    """A line that is none of roff's own, whatever it begins with (R2)."""
    return f"\\&{text}" if not text or text[0] in ".'" else text


FONTS = {"strong_open": "\\fB", "em_open": "\\fI", "strong_close": "\\fR", "em_close": "\\fR"}


def words(tokens: Iterable[Token]) -> str:
    """A line of a page: bold is bold, code is bold, a link is its text."""
    made = ""
    for token in tokens:
        if token.type == "text":
            made += plain(token.content)
        elif token.type == "code_inline":
            made += f"\\fB{plain(token.content)}\\fR"
        elif token.type in ("softbreak", "hardbreak"):
            made += " "
        else:
            made += FONTS.get(token.type, "")
    return made


# -- blocks


def cleaned(text: str) -> str:
    """A page without what only the site understands: pictures, quoted code, keys, notes."""
    text = re.sub(r"<figure.*?</figure>\n", "", text, flags=re.S)
    # A sentence that announced code ends where that was.
    text = re.sub(r"(:?)\n\n\[\[.*\]\](?=\n)", lambda code: code[1] and ".", text)
    text = re.sub(r"\+\+([a-z0-9+]+)\+\+", lambda key: f"**{key[1].replace('+', '-')}**", text)
    return re.sub(
        r'^!!! \w+ "(.*)"\n((?:(?:    .*)?\n)+)',
        lambda note: f"**{note[1]}.** {re.sub('^    ', '', note[2], flags=re.M).strip()}\n\n",
        text,
        flags=re.M,
    )


class Roff:
    """A page as roff, its title apart; each method is for the token of its name."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.heading = ""  # of what kind the text is that comes now
        self.cells: list[str] | None = None  # of a row of a table
        self.in_head = False

    def run(self, tokens: Iterable[Token]) -> str:
        """Goes through all tokens; the text."""
        for token in tokens:
            handler = getattr(self, token.type, None)
            if handler is not None:
                handler(token)
        return "\n".join(filter(None, self.lines)) + "\n"

    def heading_open(self, token: Token) -> None:
        self.heading = {"h1": "title", "h2": ".SH"}.get(token.tag, ".SS")

    def heading_close(self, token: Token) -> None:
        self.heading = ""

    def inline(self, token: Token) -> None:
        said = words(token.children or ())
        if self.cells is not None:
            self.cells.append(said)
        elif self.heading == ".SH":
            self.lines.append(f".SH {plain(token.content.upper())}")
        elif self.heading == ".SS":
            self.lines.append(f".SS {said}")
        elif not self.heading:
            self.lines.append(line(said))

    def paragraph_open(self, token: Token) -> None:
        if not token.level:
            self._paragraph()

    def _paragraph(self) -> None:
        if not (self.lines and self.lines[-1].startswith((".SH", ".SS"))):
            self.lines.append(".PP")

    def list_item_open(self, token: Token) -> None:
        self.lines.append(f".IP {token.info}. 4" if token.info else ".IP \\(bu 2")

    def thead_open(self, token: Token) -> None:
        self.in_head = True

    def thead_close(self, token: Token) -> None:
        self.in_head = False

    def table_close(self, token: Token) -> None:
        self.cells = None

    def tr_open(self, token: Token) -> None:
        self.cells = []

    def tr_close(self, token: Token) -> None:
        """A row: what it is about stands alone, the rest below."""
        first, *rest = self.cells or [""]
        if not self.in_head:
            self.lines += [".TP", first or "\\ ", " \\(en ".join(filter(None, rest)) or "\\ "]

    def fence(self, token: Token) -> None:
        self._paragraph()
        self.lines += [".EX", *map(line, map(plain, token.content.splitlines())), ".EE"]


def body(text: str) -> str:
    """A page as roff."""
    return Roff().run(MarkdownIt("commonmark").enable("table").parse(cleaned(text)))


def folded(text: str) -> str:
    """A line of --help, in several where it is too long for a terminal.

    They go on in the column where what is explained stands, or a little to the right. What
    stands in brackets stays together.
    """
    if len(text) <= WIDTH:
        return text
    two_columns = re.match(r" *\S.*?  +(?=\S)", text)
    indent = len(text) - len(text.lstrip())
    column = len(two_columns[0]) if two_columns else indent if indent > 8 else indent + 4
    hanging = textwrap.TextWrapper(
        WIDTH, subsequent_indent=" " * column, break_long_words=False, break_on_hyphens=False
    )
    whole = re.sub(r"\[[^][]*\]", lambda part: part[0].replace(" ", "\0"), text)
    return hanging.fill(whole).replace("\0", " ")


def manual(page: Page) -> str:
    """A whole manual page."""
    name = plain(page.program)
    others = ", ".join(f"\\fB{plain(it.program)}\\fR(1)" for it in PAGES if it is not page)
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(seconds))
    head = f'.TH {page.program.upper()} 1 "{date}" "miniqemu {VERSION}" "miniqemu"\n'
    lines = "\n".join(map(folded, page.help(page.program).splitlines())).splitlines()
    usage = "\n".join(map(line, map(plain, lines)))
    text = body((ROOT / "docs" / page.source).read_text()).removeprefix(".PP\n")
    first, heading, rest = text.partition(".SH ")
    return (
        f"{head}.SH NAME\n{name} \\- {plain(page.what)}\n"
        f".SH DESCRIPTION\n{first}.SH OPTIONS\n.EX\n{usage}\n.EE\n{heading}{rest}"
        f".SH SEE ALSO\n{others}, \\fBqemu\\fR(1), \\fBqemu\\-img\\fR(1)\n"
    )


def main(argv: list[str]) -> int:
    """Writes the pages below a folder; the exit status."""
    folder = Path(argv[1]) if len(argv) > 1 else ROOT / "build" / "man" / "man1"
    folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        (folder / f"{page.program}.1").write_text(manual(page))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
