# SPDX-License-Identifier: GPL-2.0-only
"""Disk errors under a guest: the right status, and nothing lost when the machine stops for them."""

from __future__ import annotations

import errno

import pytest

from block.aio.iothread import IOThread
from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw.virtio_blk_layout import (
    S_IOERR,
    S_OK,
    SEGMENT,
    T_DISCARD,
    T_FLUSH,
    T_IN,
    T_OUT,
    T_WRITE_ZEROES,
)
from tests.support.drivers import Disk, Ram, backend_on, ram_node
from tests.support.virtio_rig import Rig, disk, rig

REQUESTS = {
    "read": {"kind": T_IN, "into": 512},
    "write": {"kind": T_OUT, "out": b"w" * 512},
    "flush": {"kind": T_FLUSH},
    "discard": {"kind": T_DISCARD, "out": SEGMENT.pack(0, 1, 0)},
    "zeroes": {"kind": T_WRITE_ZEROES, "out": SEGMENT.pack(0, 1, 0) * 2},
}


def set_policy(bench: Rig, policy: str) -> None:
    disk(bench).on_read_error = disk(bench).on_write_error = policy


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(
    ("policy", "error", "status"),
    [
        ("report", errno.EIO, S_IOERR),
        ("report", errno.ENOSPC, S_IOERR),
        ("ignore", errno.EIO, S_OK),
        ("enospc", errno.EIO, S_IOERR),
        ("auto", errno.EIO, S_IOERR),
    ],
)
def test_the_policy_says_what_the_driver_sees(
    name: str, policy: str, error: int, status: int
) -> None:
    with rig() as bench:
        bench.driver.start()
        set_policy(bench, policy)
        disk(bench).fail_next = [error]
        answer = bench.request(**REQUESTS[name])
        assert answer.status == status
        assert len(answer.used) == 1
        assert not bench.vm_stops


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(("policy", "error"), [("stop", errno.EIO), ("enospc", errno.ENOSPC)])
def test_a_stopped_request_runs_again_when_the_machine_goes_on(
    name: str, policy: str, error: int
) -> None:
    with rig() as bench:
        ring = bench.driver.start()
        set_policy(bench, policy)
        disk(bench).fail_next = [error]
        chain = bench.chain(**REQUESTS[name])
        ring.submit(chain)
        bench.driver.kick()
        bench.run()
        assert bench.vm_stops == ["io-error"]
        assert bench.status_of(chain) == 0xFF
        assert ring.used_idx == 0
        assert disk(bench).io_status != "ok"
        bench.transport.vm_state_changed(False)
        bench.transport.vm_state_changed(True)
        bench.run()
        assert bench.status_of(chain) == S_OK
        assert len(ring.reap()) == 1
        assert disk(bench).io_status == "ok"


def test_all_of_a_merged_run_is_stopped_and_runs_again_in_order() -> None:
    with rig() as bench:
        ring = bench.driver.start(num=64)
        set_policy(bench, "stop")
        disk(bench).fail_next = [errno.EIO]
        chains = [bench.chain(T_OUT, n, out=bytes([n + 1]) * 512) for n in range(4)]
        for chain in chains:
            ring.submit(chain)
        bench.driver.kick()
        bench.run()
        assert [call[0] for call in disk(bench).calls] == ["write"]
        assert len(bench.device.stopped) == 4
        bench.transport.vm_state_changed(False)
        bench.transport.vm_state_changed(True)
        bench.run()
        assert [offset for _, offset, _ in disk(bench).calls[1:]] == [0, 512, 1024, 1536]
        assert all(bench.status_of(chain) == S_OK for chain in chains)


def test_a_reset_forgets_what_was_stopped() -> None:
    with rig() as bench:
        ring = bench.driver.start()
        set_policy(bench, "stop")
        disk(bench).fail_next = [errno.EIO]
        ring.submit(bench.chain(T_OUT, out=bytes(512)))
        bench.driver.kick()
        bench.run()
        bench.driver.set_reg(mmio.STATUS, 0)
        assert not bench.device.stopped
        bench.driver.start()
        assert bench.request(T_IN, into=512).status == S_OK
        assert [name for name, _, _ in disk(bench).calls] == ["write", "read"]


def test_a_queue_that_is_taken_out_forgets_only_its_own() -> None:
    with rig(num_queues=2) as bench:
        bench.driver.start(queues=2)
        set_policy(bench, "stop")
        disk(bench).fail_next = [errno.EIO, errno.EIO]
        chains = [bench.chain(T_OUT, n, out=bytes(512)) for n in range(2)]
        for n, chain in enumerate(chains):
            bench.driver.queues[n].submit(chain)
            bench.driver.kick(n)
            bench.run()
        bench.driver.set_reg(mmio.QUEUE_SEL, 0)
        bench.driver.set_reg(mmio.QUEUE_READY, 0)
        bench.run()
        assert [bench.status_of(chain) for chain in chains] == [0xFF, S_OK]


@pytest.mark.parametrize("iothread", [False, True])
def test_a_full_disk_stops_the_machine_and_loses_nothing(iothread: bool) -> None:
    thread = IOThread("full") if iothread else None
    ram = Disk()
    blk = backend_on(ram_node(ram, "", Ram))
    bench = Rig(blk, iothread=thread)
    ring = bench.driver.start(num=64)
    ram.errors["pwritev"] = OSError(errno.ENOSPC, "full")
    chains = [bench.chain(T_OUT, 4 * n, out=bytes([n + 1]) * 512) for n in range(8)]
    for chain in chains:
        ring.submit(chain)
    bench.driver.kick()
    bench.run_until(lambda: len(bench.vm_stops) == 8)
    bench.transport.vm_state_changed(False)
    assert ring.used_idx == 0
    ram.errors.clear()
    bench.transport.vm_state_changed(True)
    bench.run_until(lambda: ring.used_idx == 8)
    assert all(bench.status_of(chain) == S_OK for chain in chains)
    assert all(ram.data[2048 * n] == n + 1 for n in range(8))
    bench.close()
    blk.close()
    if thread is not None:
        thread.close()
