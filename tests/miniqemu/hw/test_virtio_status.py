# SPDX-License-Identifier: GPL-2.0-only
"""The status register follows its table, cell by cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw import virtio_status as status
from miniqemu.hw.virtio import F_VERSION_1
from miniqemu.hw.virtio_status import TABLE, Action, Asked, State
from tests.support.virtio_rig import Rig, rig

# One value that asks for each thing.
WRITES = {asked: asked.value for asked in Asked} | {Asked.NONSENSE: 0x06, Asked.FAILED: 0x83}
CELLS = [(state, asked) for state, row in TABLE.items() for asked in row]


def walk_to(bench: Rig, state: State) -> None:
    """Brings a fresh device into a state, the way a driver would."""
    driver = bench.driver
    if state is State.RESET:
        return
    if state is State.GIVEN_UP:
        driver.add_status(status.ACKNOWLEDGE)
        driver.add_status(status.FAILED)
    elif state is State.BROKEN:
        driver.negotiate()
        driver.place_queue(0, 3, 0x1000, 0x2000, 0x3000)  # 3 is no power of 2
    else:
        for bits in (status.ACKNOWLEDGE, status.DRIVER, status.FEATURES_OK, status.DRIVER_OK):
            if bits == status.FEATURES_OK:
                driver.accept(driver.offered())
            if driver.status != state.value:
                driver.add_status(bits)
    assert bench.device.state is state


@pytest.mark.parametrize(("state", "asked"), CELLS, ids=[f"{s.name}-{a.name}" for s, a in CELLS])
def test_each_cell_of_the_table_is_what_a_write_does(state: State, asked: Asked) -> None:
    with rig() as bench:
        walk_to(bench, state)
        before = bench.driver.status
        bench.driver.set_reg(mmio.STATUS, WRITES[asked])
        after = bench.driver.status
        action = TABLE[state][asked]
        if action is Action.IGNORE:
            assert after == before
        elif action is Action.RESET:
            assert after == 0
        elif action is Action.GIVE_UP:
            assert after == before | status.FAILED
        else:
            assert after == asked.value
        assert bench.device.started == (bench.device.state is State.RUNNING)


def test_every_state_has_a_cell_for_everything_a_driver_can_ask() -> None:
    assert TABLE.keys() == set(State)
    assert all(row.keys() == set(Asked) for row in TABLE.values())


@pytest.mark.parametrize("value", range(256))
def test_every_byte_asks_for_exactly_one_thing(value: int) -> None:
    asked = status.asked_by(value)
    if value & status.FAILED:
        assert asked is Asked.FAILED
    elif value & ~status.NEEDS_RESET in (0, 1, 3, 11, 15):
        assert asked.value == value & ~status.NEEDS_RESET
    else:
        assert asked is Asked.NONSENSE


def test_the_docs_show_the_table_as_it_is() -> None:
    page = Path(__file__).parents[3] / "docs" / "two-ways.md"
    assert status.as_markdown() in page.read_text()


def test_features_that_were_not_offered_are_refused() -> None:
    with rig(discard=False) as bench:
        shown = bench.driver.negotiate((1 << 13) | F_VERSION_1)
        assert not shown & status.FEATURES_OK
        assert bench.device.state is State.DRIVER


def test_a_driver_that_does_not_know_version_1_is_refused() -> None:
    with rig() as bench:
        driver = bench.driver
        driver.add_status(status.ACKNOWLEDGE)
        driver.add_status(status.DRIVER)
        driver.accept(1 << 9)
        assert not driver.add_status(status.FEATURES_OK) & status.FEATURES_OK


def test_a_refused_driver_may_try_again_with_fewer_features() -> None:
    with rig() as bench:
        driver = bench.driver
        assert not driver.negotiate(1 << 40) & status.FEATURES_OK
        driver.accept(F_VERSION_1)
        assert driver.add_status(status.FEATURES_OK) & status.FEATURES_OK


def test_needs_reset_written_back_changes_nothing() -> None:
    with rig() as bench:
        walk_to(bench, State.BROKEN)
        before = bench.driver.status
        bench.driver.set_reg(mmio.STATUS, before | status.DRIVER_OK)
        assert bench.driver.status == before
        assert not bench.device.started


def test_a_reset_mends_a_broken_device() -> None:
    with rig() as bench:
        walk_to(bench, State.BROKEN)
        bench.driver.start()
        assert bench.request(0, into=512).status == 0


def test_the_upper_bits_of_the_register_are_no_status() -> None:
    with rig() as bench:
        bench.driver.set_reg(mmio.STATUS, 0x101)
        assert bench.driver.status == 0
