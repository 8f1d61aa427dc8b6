# SPDX-License-Identifier: GPL-2.0-only
"""When requests are taken from the rings, which of them become one, and when the driver is told."""

from __future__ import annotations

import pytest

from miniqemu.hw.virtio import F_VERSION_1
from miniqemu.hw.virtio_blk_io import MERGE_MAX_READ
from miniqemu.hw.virtio_blk_layout import S_OK, T_GET_ID, T_IN, T_OUT
from tests.support.ring_driver import DriverQueue
from tests.support.virtio_rig import Rig, disk, rig

NEVER = 30_000  # a used index that no test comes to


def test_several_queues_serve_at_once() -> None:
    with rig(num_queues=4) as bench:
        bench.driver.start(queues=4)
        disk(bench).park = True
        chains = [bench.chain(T_IN, n, into=512) for n in range(4)]
        for n, chain in enumerate(chains):
            bench.driver.queues[n].submit(chain)
            bench.driver.kick(n)
        bench.run()
        assert [offset for _, offset, _ in disk(bench).calls] == [0, 512, 1024, 1536]
        disk(bench).release()
        bench.run()
        assert [len(queue.reap()) for queue in bench.driver.queues] == [1, 1, 1, 1]
        assert bench.irqs.edges == 1


def test_one_doorbell_takes_all_and_one_interrupt_tells_of_all() -> None:
    with rig() as bench:
        ring = bench.driver.start(num=256)
        for n in range(0, 128, 2):  # every other sector: nothing to merge
            ring.submit(bench.chain(T_IN, n, into=512))
        bench.driver.kick()
        bench.run()
        assert len(disk(bench).calls) == 64
        assert len(ring.reap()) == 64
        assert bench.irqs.edges == 1


def test_neighbours_are_written_as_one() -> None:
    with rig() as bench:
        ring = bench.driver.start(num=64)
        order = [5, 3, 4, 9, 10, 20]
        chains = [bench.chain(T_OUT, sector, out=bytes([sector]) * 512) for sector in order]
        for chain in chains:
            ring.submit(chain)
        bench.driver.kick()
        bench.run()
        assert disk(bench).calls == [
            ("write", 3 * 512, 3 * 512),
            ("write", 9 * 512, 2 * 512),
            ("write", 20 * 512, 512),
        ]
        for sector in order:
            start = sector * 512
            assert disk(bench).disk[start : start + 512] == bytes([sector]) * 512
        assert len(ring.reap()) == 6
        assert disk(bench).stats.merged[1] == 3


def test_a_stream_is_read_as_one_also_over_doorbells() -> None:
    with rig() as bench:
        ring = bench.driver.start(num=64)
        disk(bench).disk[:4096] = bytes(range(256)) * 16
        chains = [bench.chain(T_IN, n, into=512) for n in range(8)]
        for half in chains[:4], chains[4:]:
            for chain in half:
                ring.submit(chain)
            bench.driver.kick()
            bench.run()
        assert disk(bench).calls == [("read", 0, 2048), ("read", 2048, 2048)]
        assert b"".join(map(bench.data_of, chains)) == disk(bench).disk[:4096]
        assert disk(bench).stats.merged[0] == 6


def submit_scattered(bench: Rig, count: int, used_event: int = NEVER) -> DriverQueue:
    """Rings once for reads that have no neighbours; asks for no interrupt, as if it polled."""
    ring = bench.driver.start(num=256)
    ring.set_used_event(used_event)
    for n in range(count):
        ring.submit(bench.chain(T_IN, 2 * n + 1, into=512))
    bench.driver.kick()
    return ring


def test_the_driver_has_the_first_answers_while_the_rest_is_taken() -> None:
    with rig() as bench:
        ring = submit_scattered(bench, 16)
        steps = []
        while bench.ctx.poll(False):
            steps.append((len(disk(bench).calls), ring.used_idx))
        begun = [begun for begun, _ in steps]
        assert list(dict.fromkeys(begun)) == [1, 5, 16]
        assert all(answered for begun, answered in steps if begun > 1)
        assert len(ring.reap()) == 16


def test_a_driver_that_waits_for_an_interrupt_gets_all_answers_with_it() -> None:
    with rig() as bench:
        ring = submit_scattered(bench, 16, used_event=0)
        told = []
        while bench.ctx.poll(False):
            told.append((len(disk(bench).calls), ring.used_idx, bench.irqs.edges))
        assert {begun for begun, _, _ in told} == {16}
        assert {used for _, used, edges in told if edges} == {16}
        assert bench.irqs.edges == 1


def test_a_read_that_is_alone_needs_no_second_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with rig() as bench:
        turns: list[int] = []
        monkeypatch.setattr(bench.device.service, "go_on", lambda queue, jumps: turns.append(jumps))
        submit_scattered(bench, 1)
        bench.run()
        assert turns == []


def test_the_driver_is_told_of_a_turn_before_the_next_one_begins() -> None:
    with rig() as bench:
        submit_scattered(bench, 3)
        edges: dict[int, int] = {}
        while bench.ctx.poll(False):
            edges.setdefault(len(disk(bench).calls), bench.irqs.edges)
        assert edges == {1: 0, 3: 1}


def test_reads_that_take_their_time_are_all_begun_at_once() -> None:
    with rig() as bench:
        disk(bench).park = True
        submit_scattered(bench, 16)
        begun = []
        while bench.ctx.poll(False):
            begun.append(len(disk(bench).calls))
        assert list(dict.fromkeys(begun)) == [1, 16]
        bench.device.drain()


def test_a_drained_section_between_two_turns_holds_the_rest_back() -> None:
    with rig() as bench:
        ring = submit_scattered(bench, 16)
        bench.run_until(lambda: len(disk(bench).calls) == 5)
        bench.device.drained_begin()
        bench.run()
        assert len(disk(bench).calls) == ring.used_idx == 5
        bench.device.drained_end()
        bench.run()
        assert len(ring.reap()) == 16


def test_a_turn_that_is_due_after_a_stop_takes_nothing() -> None:
    with rig() as bench:
        ring = submit_scattered(bench, 16)
        bench.run_until(lambda: len(disk(bench).calls) == 5)
        bench.device.service.stop()
        bench.run()
        assert len(disk(bench).calls) == ring.used_idx == 5
        bench.device.service.start()
        bench.run()
        assert len(ring.reap()) == 16


def test_merged_reads_stay_short() -> None:
    with rig() as bench:
        ring = bench.driver.start(num=256)
        for n in range(32):
            ring.submit(bench.chain(T_IN, 8 * n, into=4096))
        bench.driver.kick()
        bench.run()
        assert [size for _, _, size in disk(bench).calls] == [MERGE_MAX_READ, MERGE_MAX_READ]


def test_request_merging_off_keeps_them_apart() -> None:
    with rig(request_merging=False) as bench:
        ring = bench.driver.start(num=64)
        for n in range(4):
            ring.submit(bench.chain(T_OUT, n, out=bytes(512)))
        bench.driver.kick()
        bench.run()
        assert len(disk(bench).calls) == 4


def test_a_driver_that_polls_gets_no_interrupt() -> None:
    with rig() as bench:
        ring = bench.driver.start(F_VERSION_1)
        ring.suppress_interrupts()
        assert bench.request(T_IN, into=512).status == S_OK
        assert bench.irqs.edges == 0


def test_buffers_are_not_touched_before_driver_ok() -> None:
    with rig() as bench:
        bench.driver.negotiate()
        ring = bench.driver.set_up_queue(0, 8)
        ring.submit(bench.chain(T_IN, into=512))
        bench.driver.kick()
        bench.run()
        assert ring.used_idx == 0
        bench.driver.add_status(4)  # DRIVER_OK: what waits in the ring is taken at once
        bench.run()
        assert len(ring.reap()) == 1


def test_nothing_is_taken_in_a_drained_section_and_all_of_it_after() -> None:
    for ioeventfd in (False, True):
        with rig(ioeventfd=ioeventfd) as bench:
            ring = bench.driver.start()
            bench.device.drained_begin()
            chain = bench.chain(T_IN, into=512)
            ring.submit(chain)
            bench.driver.kick()
            bench.run()
            assert ring.used_idx == 0
            bench.device.drained_end()
            bench.run()
            assert bench.status_of(chain) == S_OK


def test_a_driver_that_adds_for_ever_does_not_hold_the_loop() -> None:
    with rig() as bench:
        ring = bench.driver.start(num=8)
        chain = bench.chain(T_GET_ID, into=20)
        head = ring.write_chain(chain)
        queue = bench.device.queues[0]
        push = queue.push
        pushed = []

        class Greedy(type(queue)):  # type: ignore[misc]  # a queue that is refilled as it empties
            __slots__ = ()

            def push(self, head: int, length: int) -> None:
                pushed.append(head)
                push(head, length)
                ring.make_available(head)

        queue.__class__ = Greedy
        ring.make_available(head)
        bench.device.handle_queue(queue)
        assert len(pushed) == 8  # one round, and then it is the others' turn
        queue.__class__ = Greedy.__mro__[1]
