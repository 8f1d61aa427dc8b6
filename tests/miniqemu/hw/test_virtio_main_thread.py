# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU's register write moves the tree in the main thread, and waits for it."""

from __future__ import annotations

import pytest

from block.aio.iothread import IOThread
from block.aio.world import the_world
from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw.virtio_blk_layout import S_OK, T_IN
from miniqemu.hw.virtio_main_thread import MainThread
from miniqemu.machine.biglock import BigLock
from tests.support.drivers import Disk, FastRam, backend_on, ram_node
from tests.support.virtio_rig import Rig


def test_work_of_another_thread_runs_in_the_main_thread_without_the_big_lock() -> None:
    world = the_world()
    ctx, lock = world.main_context, BigLock()
    main = MainThread(ctx, lock)
    ran: list[tuple[int, bool]] = []
    after: list[bool] = []

    def vcpu() -> None:
        with lock:
            main.run(lambda: ran.append((world.current(), lock.held())))
            after.append(lock.held())

    thread = world.start_thread("vcpu", vcpu)
    while not ran:
        ctx.poll(False)
    thread.join()
    assert ran == [(world.current(), False)]
    assert after == [True]  # the vCPU has it back when its store completes


def test_an_error_of_the_work_is_raised_where_it_was_asked_for() -> None:
    world = the_world()
    main = MainThread(world.main_context, BigLock())
    caught: list[BaseException] = []

    def fail() -> None:
        raise OSError("no irqfd")

    def vcpu() -> None:
        try:
            main.run(fail)
        except OSError as error:
            caught.append(error)

    thread = world.start_thread("vcpu", vcpu)
    while not caught:
        world.main_context.poll(False)
    thread.join()
    with pytest.raises(OSError, match="no irqfd"):
        main.run(fail)


def test_work_that_is_asked_for_during_work_waits_for_its_turn() -> None:
    main = MainThread(the_world().main_context, BigLock())
    order: list[str] = []

    def outer() -> None:
        main.run(lambda: order.append("inner"))
        order.append("outer")

    main.run(outer)
    assert order == ["outer", "inner"]


@pytest.mark.parametrize("iothread", [False, True])
def test_two_vcpus_that_start_and_reset_at_once_leave_a_sane_device(iothread: bool) -> None:
    world = the_world()
    thread = IOThread("plane") if iothread else None
    blk = backend_on(ram_node(Disk(), "", FastRam))
    bench = Rig(blk, iothread=thread)
    bench.driver.start()
    ended: list[int] = []

    def vcpu(value: int) -> None:
        for _ in range(40):
            with bench.big_lock:
                bench.transport.write(mmio.STATUS, 4, value)
        ended.append(value)

    vcpus = [
        world.start_thread("vcpu 0", lambda: vcpu(0)),
        world.start_thread("vcpu 1", lambda: vcpu(15)),
    ]
    bench.run_until(lambda: len(ended) == 2)
    for one in vcpus:
        one.join()
    ring = bench.driver.start()
    chain = bench.chain(T_IN, into=512)
    ring.submit(chain)
    bench.driver.kick()
    bench.run_until(lambda: bench.status_of(chain) == S_OK)
    bench.close()
    blk.close()
    if thread is not None:
        thread.close()


def test_a_vcpu_without_ioeventfd_takes_requests_in_its_own_thread() -> None:
    world = the_world()
    disk = Disk()
    blk = backend_on(ram_node(disk, "", FastRam))
    bench = Rig(blk, ioeventfd=False)
    ring = bench.driver.start()
    bench.run()
    chain = bench.chain(T_IN, into=512)
    ring.submit(chain)
    rung: list[bool] = []

    def vcpu() -> None:
        with bench.big_lock:
            bench.driver.kick()
        rung.append(bool(disk.log))

    thread = world.start_thread("vcpu", vcpu)
    thread.join()
    assert rung == [True]  # the read was begun before the store completed
    assert ring.used_idx == 1  # and answered: what completes at once does not wake the main loop
    assert bench.status_of(chain) == S_OK
    bench.close()
    blk.close()
