# SPDX-License-Identifier: GPL-2.0-only
"""Rules as a user writes them: in a file, or as options of the node.

    [inject-error]                   inject-error.0.event=write_aio
    event = "write_aio"              inject-error.0.errno=28
    errno = "28"

A file has the form of QEMU's -readconfig: sections, and in each lines of `name = "value"`. A line
that begins with '#', and an empty one, mean nothing.

R1  Both forms become Sections, and Sections become rules: first those of the file, and of both
    inject-error before set-state.
R2  A message names what is wrong: the option with its number, or the file and its line.
R3  What makes no sense is refused although QEMU lets it pass: a negative errno or sector, which
    would wrap around, and a value without quotation marks, which would count as empty.

Called in the main thread, while the node is opened. Source: util/qemu-config.c,
block/blkdebug.c (read_config, add_rule).
"""

from __future__ import annotations

import errno
import os
import re

from block.core import flags as f
from block.core.debug import EVENTS
from block.core.error import BlockError
from block.core.options import (
    crumple,
    invalid,
    listify,
    parse_bool,
    parse_enum,
    parse_number,
    parse_string,
    take_sub_options,
)
from block.filters.blkdebug.rules import (
    ANY_PLACE,
    ANY_STATE,
    DEFAULT_IO_TYPES,
    IO_TYPES,
    InjectError,
    Rule,
    SetState,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

GROUPS = {
    "inject-error": ("event", "state", "iotype", "errno", "sector", "once", "immediately"),
    "set-state": ("event", "state", "new_state"),
}
PERMISSIONS = {
    "consistent-read": f.BLK_PERM_CONSISTENT_READ,
    "write": f.BLK_PERM_WRITE,
    "write-unchanged": f.BLK_PERM_WRITE_UNCHANGED,
    "resize": f.BLK_PERM_RESIZE,
    "graph-mod": f.BLK_PERM_GRAPH_MOD,
}
MAX_ERRNO = 4095
MAX_STATE = f.INT_MAX
MAX_SECTOR = f.INT64_MAX >> f.SECTOR_BITS

GROUP_LINE = re.compile(r'\[([^]\s]+)(?:\s+"[^"]*")?\]')
VALUE_LINE = re.compile(r'\s*(\S+)\s+=\s*"([^"]*)"')


class Section:
    """One rule as it was written.

    `where` says where: 'inject-error.0' of options, the path of a file. `line` is the number of
    the section's line there, 0: these are options.
    """

    def __init__(self, group: str, where: str, line: int = 0) -> None:
        self.group = group
        self.where = where
        self.line = line
        self.values: dict[str, object] = {}
        self.lines: dict[str, int] = {}

    def read(self, name: str, parse: Callable[[str, object], T], default: T) -> T:
        """The value of an option, parsed; a failure says where it stands (R2)."""
        if name not in self.values:
            return default
        try:
            return parse(name if self.line else f"{self.where}.{name}", self.values[name])
        except BlockError as error:
            raise self.wrong(str(error), name) from None

    def wrong(self, message: str, name: str = "") -> BlockError:
        """An error in this section, or in one of its options."""
        if not self.line:
            return invalid(message)
        return _in_file(self.where, self.lines.get(name, self.line), message)


def _in_file(path: str, line: int, message: str) -> BlockError:
    return invalid(f"{path}:{line}: {message}")


# -- the two forms


def read_file(path: str) -> list[Section]:
    """The sections of a file (qemu_config_parse). Raises BlockError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError as error:
        code = error.errno or 0
        message = f"Could not read blkdebug config file '{path}': {os.strerror(code)}"
        raise BlockError(code, message, driver="blkdebug") from None
    sections: list[Section] = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            _read_line(path, number, line, sections)
    return sections


def _read_line(path: str, number: int, line: str, sections: list[Section]) -> None:
    group = GROUP_LINE.match(line)
    value = VALUE_LINE.match(line)
    if group is not None:
        if group[1] not in GROUPS:
            raise _in_file(path, number, f"There is no option group '{group[1]}'")
        sections.append(Section(group[1], path, number))
    elif value is None:
        raise _in_file(path, number, 'parse error: neither [section] nor name = "value"')
    elif not sections:
        raise _in_file(path, number, "no group defined")
    elif value[1] not in GROUPS[sections[-1].group]:
        raise _in_file(path, number, f"Invalid parameter '{value[1]}'")
    else:
        sections[-1].values[value[1]] = value[2]
        sections[-1].lines[value[1]] = number


def take_sections(options: dict[str, object]) -> list[Section]:
    """The sections that are among a node's flat options (qemu_config_parse_qdict)."""
    return [section for group in GROUPS for section in _take_group(options, group)]


def _take_group(options: dict[str, object], group: str) -> list[Section]:
    trees = _take_list(options, group)
    sections = []
    for index, tree in enumerate(trees):
        if not isinstance(tree, dict):
            raise invalid(f"[{group}] section (index {index}) does not consist of keys")
        section = Section(group, f"{group}.{index}")
        section.values.update(tree)
        for name in tree:
            if name not in GROUPS[group]:
                raise invalid(f"[{group}] section doesn't support the option '{name}'")
        sections.append(section)
    return sections


def _take_list(options: dict[str, object], key: str) -> list[object]:
    """A list among flat options. One element may stand there without its number."""
    if options.get(key) == []:
        del options[key]
    tree = listify(crumple(take_sub_options(options, key)), (key,))
    if isinstance(tree, list):
        return tree
    return [tree] if tree else []


def take_permissions(options: dict[str, object], key: str) -> int:
    """A list of permissions among flat options, as BLK_PERM_* (blkdebug_parse_perm_list)."""
    perm = 0
    for index, name in enumerate(_take_list(options, key)):
        perm |= PERMISSIONS[parse_enum(f"{key}.{index}", name, PERMISSIONS, "")]
    return perm


# -- from a section to a rule


def rules_from(sections: list[Section]) -> list[Rule]:
    """The rules that sections describe, errors first (R1)."""
    errors = [_inject_error(s) for s in sections if s.group == "inject-error"]
    return [*errors, *(_set_state(s) for s in sections if s.group == "set-state")]


def _inject_error(section: Section) -> InjectError:
    event, state = _event(section)
    io_type = section.read("iotype", _one_of(IO_TYPES), "")
    sector = section.read("sector", _between(0, MAX_SECTOR), ANY_PLACE)
    return InjectError(
        event,
        state,
        section.read("errno", _between(0, MAX_ERRNO), errno.EIO),
        frozenset((io_type,)) if io_type else DEFAULT_IO_TYPES,
        sector if sector == ANY_PLACE else sector << f.SECTOR_BITS,
        section.read("once", parse_bool, False),
        section.read("immediately", parse_bool, False),
    )


def _set_state(section: Section) -> SetState:
    event, state = _event(section)
    return SetState(event, state, section.read("new_state", _between(0, MAX_STATE), ANY_STATE))


def _event(section: Section) -> tuple[str, int]:
    event = section.read("event", _one_of(EVENTS), "")
    if not event:
        name = "" if section.line else f" '{section.where}'"
        raise section.wrong(f"Missing event name for rule{name}")
    return event, section.read("state", _between(0, MAX_STATE), ANY_STATE)


def _one_of(choices: tuple[str, ...]) -> Callable[[str, object], str]:
    return lambda name, value: parse_enum(name, parse_string(name, value), choices, "")


def _between(low: int, high: int) -> Callable[[str, object], int]:
    def parse(name: str, value: object) -> int:
        number = parse_number(name, value)
        if not low <= number <= high:
            raise invalid(f"Parameter '{name}' expects a number between {low} and {high}")
        return number

    return parse
