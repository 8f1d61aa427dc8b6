# SPDX-License-Identifier: GPL-2.0-only
"""What a person can type is told somewhere: options of drivers and programs, commands, words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from block.core.registry import TABLE
from miniqemu.cli.img import help as img_help
from miniqemu.cli.io.commands import COMMANDS
from miniqemu.cli.options import GROUPS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ALL = "\n".join(page.read_text() for page in sorted(DOCS.rglob("*.md")))
ROOMS = ("block", "miniqemu", "guest", "tests", "benchmarks", "tutorials")
# QEMU's and virtio's own, which no source of ours needs to name.
THEIRS = {
    "bdrv_io_plug", "BlockAIOCB", "DEVICE_NEEDS_RESET", "host_cdrom", "notify_me", "QueueNotify",
}  # fmt: skip
OF_NAMES = "x-"  # what a name such as blkdebug:CONFIG:IMAGE becomes; nobody types it


def is_told(name: str, text: str) -> bool:
    """Whether a name stands in the text as code, or as a part of a line of code."""
    return re.search(rf"[`\s.,=\"]{re.escape(name)}[`\s.,=\"]", text) is not None


@pytest.mark.parametrize("driver", [row.name for row in TABLE if row.module])
def test_every_option_of_a_driver_is_told(driver: str) -> None:
    (row,) = (row for row in TABLE if row.name == driver)
    drv = row.load()
    names = {option.name for option in (*drv.runtime_opts, *drv.create_opts, *drv.amend_opts)}
    # `encrypt.` and `overlap-check.` stand before names that are told without it.
    last = {name.rpartition(".")[2] for name in names if not name.startswith(OF_NAMES)}
    assert sorted(name for name in last if not is_told(name, ALL)) == []


def test_every_option_of_the_program_is_told() -> None:
    page = (DOCS / "command-line.md").read_text()
    names = [f"-{row.names[-1]}" for rows in GROUPS.values() for row in rows]
    assert [name for name in names if not is_told(name, page)] == []


def test_every_command_of_the_tool_for_images_is_told() -> None:
    page = (DOCS / "img.md").read_text()
    names = [line.split()[0] for line in img_help.SYNTAX]
    assert [name for name in names if not is_told(name, page)] == []


def test_every_command_of_the_tool_for_requests_is_told() -> None:
    page = (DOCS / "io.md").read_text().partition("## The commands")[2].partition("\n## ")[0]
    assert [command.name for command in COMMANDS if f"`{command.name}`" not in page] == []


def test_the_glossary_is_in_alphabetical_order_and_explains_each_word() -> None:
    entries = (DOCS / "glossary.md").read_text().split("\n\n")[2:]
    words = [entry.partition("\n")[0] for entry in entries]
    assert words == sorted(words, key=str.lower)
    assert all(entry.partition("\n")[2].startswith(":   ") for entry in entries)


def test_every_name_in_code_style_is_one_of_the_sources() -> None:
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.*")]
    texts = [path.read_text() for path in paths if path.suffix in (".py", ".c", ".h", ".S")]
    known = set(re.findall(r"\w+", "\n".join(texts))) | {path.stem for path in paths} | THEIRS
    prose = re.sub(r"^```.*?^```$", "", ALL, flags=re.M | re.S)
    named = {
        word
        for code in re.findall(r"`([^`\n]+)`", prose)
        if "*" not in code
        for word in re.findall(r"\b[A-Za-z]\w*_\w+|\b[A-Z][a-z]+[A-Z]\w+", code)
    }
    assert sorted(named - known) == []
