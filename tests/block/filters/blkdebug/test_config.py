# SPDX-License-Identifier: GPL-2.0-only
"""Rules as a user writes them: two forms of one thing, and a message for each mistake."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from block.core.error import BlockError
from block.core.options import flatten
from block.filters.blkdebug.config import read_file, rules_from, take_permissions, take_sections
from block.filters.blkdebug.rules import ANY_PLACE, DEFAULT_IO_TYPES, InjectError, Rule, SetState

FILE = """
# two errors, and a way from one to the other
[inject-error]
event = "l2_load"
iotype = "read"
errno = "28"
state = "2"
sector = "3"
once = "on"
immediately = "on"

[set-state "id"]
  event = "write_aio"
state = "1"
new_state = "2"

[inject-error]
event = "flush_to_disk"
"""
OPTIONS: dict[str, object] = {
    "inject-error": [
        {"event": "l2_load", "iotype": "read", "errno": 28, "state": 2, "sector": 3,
         "once": True, "immediately": True},
        {"event": "flush_to_disk"},
    ],
    "set-state": [{"event": "write_aio", "state": 1, "new_state": 2}],
}  # fmt: skip


def from_text(folder: Path, text: str) -> list[Rule]:
    path = folder / "rules.conf"
    path.write_text(text)
    return rules_from(read_file(os.fspath(path)))


def from_options(options: dict[str, object]) -> list[Rule]:
    flat = flatten(options)
    rules = rules_from(take_sections(flat))
    assert flat == {}, "what it understood is taken"
    return rules


def written_out(rule: Rule) -> dict[str, object]:
    names = [name for klass in type(rule).__mro__ for name in getattr(klass, "__slots__", ())]
    return {name: getattr(rule, name) for name in names}


def test_a_file_and_options_make_the_same_rules(tmp_path: Path) -> None:
    ours = [written_out(rule) for rule in from_text(tmp_path, FILE)]
    assert ours == [written_out(rule) for rule in from_options(OPTIONS)]


def test_every_option_of_an_error_arrives(tmp_path: Path) -> None:
    first, second, third = from_text(tmp_path, FILE)
    assert isinstance(first, InjectError)
    assert written_out(first) == {
        "event": "l2_load", "state": 2, "errno": errno.ENOSPC, "io_types": {"read"},
        "offset": 3 * 512, "once": True, "immediately": True,
    }  # fmt: skip
    assert isinstance(second, InjectError)
    assert written_out(second) == {
        "event": "flush_to_disk", "state": 0, "errno": errno.EIO, "io_types": DEFAULT_IO_TYPES,
        "offset": ANY_PLACE, "once": False, "immediately": False,
    }  # fmt: skip
    assert isinstance(third, SetState)
    assert (third.event, third.state, third.new_state) == ("write_aio", 1, 2)


def test_a_single_rule_needs_no_number() -> None:
    (rule,) = from_options({"inject-error": {"event": "none", "errno": "5"}})
    assert rule.event == "none"


def test_no_rules_at_all(tmp_path: Path) -> None:
    assert from_text(tmp_path, "") == []
    assert from_options({"inject-error": [], "set-state": []}) == []


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('event = "none"', 1, "no group defined"),
        ("[inject-eror]", 1, "There is no option group 'inject-eror'"),
        ("[inject-error]\nevent = none", 2, 'parse error: neither [section] nor name = "value"'),
        ('[inject-error]\nevent="none"', 2, 'parse error: neither [section] nor name = "value"'),
        ('[inject-error]\n\nevnt = "none"', 3, "Invalid parameter 'evnt'"),
        ('[set-state]\nevent = "none"\nerrno = "5"', 3, "Invalid parameter 'errno'"),
        ('[set-state]\nstate = "5"', 1, "Missing event name for rule"),
        ('# c\n[inject-error]\nevent = "wrte"', 3,
         "Parameter 'event' does not accept value 'wrte'"),
        ('[inject-error]\nevent = "none"\niotype = "x"', 3,
         "Parameter 'iotype' does not accept value 'x'"),
        ('[inject-error]\nevent = "none"\nerrno = "EIO"', 3, "Parameter 'errno' expects a number"),
        ('[inject-error]\nevent = "none"\nerrno = "-5"', 3,
         "Parameter 'errno' expects a number between 0 and 4095"),
        ('[inject-error]\nevent = "none"\nonce = "1"', 3,
         "Parameter 'once' expects 'on' or 'off'"),
        ('[inject-error]\nevent = "none"\n[inject-error]\nsector = "-1"\nevent = "none"', 4,
         "Parameter 'sector' expects a number between 0 and 18014398509481983"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    with pytest.raises(BlockError) as failure:
        from_text(tmp_path, text)
    assert str(failure.value) == f"{tmp_path / 'rules.conf'}:{line}: {message}"
    assert failure.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inject-error": [{"errno": 5}]}, "Missing event name for rule 'inject-error.0'"),
        ({"inject-error": [{"event": "none"}, {"event": "wrte"}]},
         "Parameter 'inject-error.1.event' does not accept value 'wrte'"),
        ({"inject-error": [{"event": "none", "iotype": "x"}]},
         "Parameter 'inject-error.0.iotype' does not accept value 'x'"),
        ({"inject-error": [{"event": "none", "errno": -5}]},
         "Parameter 'inject-error.0.errno' expects a number between 0 and 4095"),
        ({"inject-error": [{"event": "none", "errno": 4096}]},
         "Parameter 'inject-error.0.errno' expects a number between 0 and 4095"),
        ({"inject-error": [{"event": "none", "sector": -1}]},
         "Parameter 'inject-error.0.sector' expects a number between 0 and 18014398509481983"),
        ({"inject-error": [{"event": "none", "x": 1}]},
         "[inject-error] section doesn't support the option 'x'"),
        ({"set-state": [{"event": "none", "once": True}]},
         "[set-state] section doesn't support the option 'once'"),
        ({"set-state": [{"event": "none", "new_state": "two"}]},
         "Parameter 'set-state.0.new_state' expects a number"),
        ({"set-state": ["none"]}, "[set-state] section (index 0) does not consist of keys"),
        ({"inject-error.1.event": "none"}, "Parameter 'inject-error.0' missing"),
        ({"inject-error.0.event": "none", "inject-error.event": "none"},
         "Parameters 'inject-error.*' used inconsistently"),
    ],
)  # fmt: skip
def test_a_mistake_in_options_is_told_with_its_name(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(BlockError) as failure:
        from_options(options)
    assert str(failure.value) == message
    assert failure.value.errno == errno.EINVAL


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(BlockError) as failure:
        read_file("/nowhere/rules.conf")
    assert failure.value.errno == errno.ENOENT
    assert str(failure.value) == (
        "Could not read blkdebug config file '/nowhere/rules.conf': No such file or directory"
    )


def test_permissions_are_a_list_of_names() -> None:
    flat = flatten({"take-child-perms": ["write", "graph-mod"], "other": 1})
    assert take_permissions(flat, "take-child-perms") == 0x12
    assert flat == {"other": 1}
    assert take_permissions(flat, "take-child-perms") == 0
    with pytest.raises(BlockError, match=r"'take-child-perms\.1' does not accept value 'x'"):
        take_permissions(flatten({"take-child-perms": ["write", "x"]}), "take-child-perms")
