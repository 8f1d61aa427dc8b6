# SPDX-License-Identifier: GPL-2.0-only
"""The machine of rules: events move it, requests ask it."""

from __future__ import annotations

import errno

import pytest

from block.filters.blkdebug.rules import (
    DEFAULT_IO_TYPES,
    IO_TYPES,
    BreakPoint,
    InjectError,
    Machine,
    Rule,
    SetState,
)


def machine(*rules: Rule) -> Machine:
    made = Machine()
    for rule in rules:
        made.add(rule)
    return made


def error(
    event: str = "write_aio", state: int = 0, number: int = errno.EIO, **more: object
) -> InjectError:
    return InjectError(event, state, number, **more)  # type: ignore[arg-type]  # by name


def answer(m: Machine, io_type: str = "write", offset: int = 0, nbytes: int = 512) -> int:
    """The errno that a request meets, 0 for none."""
    found = m.error_for(io_type, offset, nbytes)
    return found.errno if found else 0


def test_an_error_is_not_armed_before_its_event() -> None:
    m = machine(error())
    assert answer(m) == 0
    m.happen("read_aio")
    assert answer(m) == 0
    m.happen("write_aio")
    assert answer(m) == errno.EIO


def test_an_armed_error_stays_armed_until_an_event_arms_others() -> None:
    m = machine(error(), error("read_aio", number=errno.ENOSPC))
    m.happen("write_aio")
    m.happen("flush_to_os")
    assert [answer(m), answer(m, "read"), answer(m)] == [errno.EIO] * 3
    m.happen("read_aio")
    assert [answer(m), answer(m)] == [errno.ENOSPC] * 2


def test_an_error_is_for_its_state_only() -> None:
    m = machine(error(state=2), SetState("flush_to_os", 0, 2))
    m.happen("write_aio")
    assert answer(m) == 0
    m.happen("flush_to_os")
    m.happen("write_aio")
    assert answer(m) == errno.EIO


def test_all_rules_of_an_event_see_the_state_from_before_it() -> None:
    m = machine(SetState("write_aio", 1, 2), error(state=1), error(state=2, number=errno.ENOSPC))
    m.happen("write_aio")
    assert (answer(m), m.state) == (errno.EIO, 2)
    m.happen("write_aio")
    assert (answer(m), m.state) == (errno.ENOSPC, 2)


def test_states_count_requests() -> None:
    m = machine(
        *(SetState("write_aio", number, number + 1) for number in (1, 2, 3)),
        error(state=3, once=True),
    )
    failed = []
    for _ in range(5):
        m.happen("write_aio")
        failed.append(answer(m))
    assert failed == [0, 0, errno.EIO, 0, 0]


def test_of_two_new_states_the_one_written_first_counts() -> None:
    m = machine(SetState("write_aio", 0, 7), SetState("write_aio", 0, 8))
    m.happen("write_aio")
    assert m.state == 7


def test_of_two_errors_the_one_written_first_is_looked_at_first() -> None:
    m = machine(error(once=True), error(number=errno.ENOSPC))
    m.happen("write_aio")
    assert [answer(m), answer(m), answer(m)] == [errno.EIO, errno.ENOSPC, errno.ENOSPC]


def test_once_is_once_for_all_times() -> None:
    m = machine(error(once=True))
    for expected in (errno.EIO, 0):
        m.happen("write_aio")
        assert answer(m) == expected
    assert m.rules["write_aio"] == []


def test_errno_0_switches_errors_off() -> None:
    m = machine(error(), error("flush_to_os", number=0))
    m.happen("write_aio")
    assert answer(m) == errno.EIO
    m.happen("flush_to_os")
    assert m.error_for("write", 0, 512) is None


@pytest.mark.parametrize(
    ("offset", "nbytes", "fits"),
    [(0, 512, False), (512, 512, True), (0, 1024, True), (1024, 512, False), (600, 8, False),
     (0, 0, False), (512, 1, True), (1023, 1, False)],
)  # fmt: skip
def test_a_sector_is_the_byte_that_it_begins_with(offset: int, nbytes: int, fits: bool) -> None:
    """As in QEMU: a request for the rest of that sector does not meet it."""
    m = machine(error(offset=512))
    m.happen("write_aio")
    assert bool(answer(m, "write", offset, nbytes)) == fits


@pytest.mark.parametrize("io_type", IO_TYPES)
def test_without_an_iotype_all_but_block_status_fail(io_type: str) -> None:
    m = machine(error())
    m.happen("write_aio")
    assert bool(answer(m, io_type)) == (io_type != "block-status") == (io_type in DEFAULT_IO_TYPES)


@pytest.mark.parametrize("io_type", IO_TYPES)
def test_with_an_iotype_nothing_else_fails(io_type: str) -> None:
    m = machine(error(io_types=frozenset((io_type,))))
    m.happen("write_aio")
    assert [other for other in IO_TYPES if answer(m, other)] == [io_type]


def test_a_break_point_is_met_once() -> None:
    m = machine(BreakPoint("write_aio", "A"), BreakPoint("write_aio", "B"))
    assert [point.tag for point in m.happen("write_aio")] == ["B", "A"]
    assert m.happen("write_aio") == []


def test_break_points_are_found_by_their_name() -> None:
    m = machine(BreakPoint("write_aio", "A"), error(), BreakPoint("read_aio", "B"))
    assert [point.event for point in m.break_points("B")] == ["read_aio"]
    assert m.break_points("C") == []
