# SPDX-License-Identifier: GPL-2.0-only
"""Every case of the table, in each way of serving a disk: the answer, and nothing besides."""

from __future__ import annotations

import pytest

from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw import virtio_status as status
from miniqemu.hw.virtio import F_EVENT_IDX, ISR_CONFIG
from miniqemu.hw.virtio_blk_layout import S_OK, T_IN
from tests.miniqemu.hw.hostile.bench import FILLING, WAYS, Bench, bench
from tests.miniqemu.hw.hostile.case import RESET, STATUS_BYTES, Case
from tests.miniqemu.hw.hostile.table import CASES


def assert_asks_for_a_reset(machine: Bench, case: Case) -> None:
    """NEEDS_RESET, one word to the person, an interrupt if the driver is there, and then rest."""
    driver = machine.driver
    assert driver.status & status.NEEDS_RESET
    if driver.status & status.DRIVER_OK:
        assert driver.reg(mmio.INTERRUPT_STATUS) & ISR_CONFIG
        assert machine.irqs.edges
    assert len(machine.reports) == 1
    assert case.word in machine.reports[0]
    machine.kick()
    assert len(machine.reports) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("deed", CASES)
def test_the_device_answers_as_the_standard_asks(deed: str, way: str) -> None:
    case = CASES[deed]
    with bench(way, serial="hostile") as machine:
        features = machine.driver.offered()
        if way == "vCPU":  # the older way to ask for silence, too
            features &= ~F_EVENT_IDX
        machine.driver.start(features)
        machine.remember()
        chain = case.act(machine)
        if case.answer is RESET:
            assert_asks_for_a_reset(machine, case)
        else:
            assert not machine.device.broken
            assert not machine.reports
        if case.answer in STATUS_BYTES:
            assert chain is not None
            assert machine.status_of(chain) == STATUS_BYTES[case.answer]
        machine.check_untouched(case.writes)
        machine.disk.data[:] = FILLING
        if machine.can_go_on():
            machine.check_alive()
        machine.driver.start(features)  # a reset mends everything
        machine.check_alive()
        assert not machine.exceptions


def test_requests_that_were_in_flight_when_a_ring_broke_still_end() -> None:
    with bench("main loop") as machine:
        machine.driver.start()
        machine.disk.parked = True
        chain = machine.chain(T_IN, into=512)
        machine.ring.submit(chain)
        machine.kick()
        machine.ring.make_available(0xFFFF)
        machine.kick()
        assert machine.device.broken
        machine.let_go()
        assert machine.status_of(chain) == S_OK


def test_the_table_is_as_long_as_the_page_says() -> None:
    assert len(CASES) >= 60
    assert all(case.standard.count(": ") for case in CASES.values())
