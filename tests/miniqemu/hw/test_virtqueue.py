# SPDX-License-Identifier: GPL-2.0-only
"""Split rings: what the driver makes available is taken, in order, and given back."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import ClassVar

import pytest

from block.aio.world import the_world
from miniqemu.hw import virtio_blk, virtio_blk_request, virtqueue
from miniqemu.hw.virtio import F_EVENT_IDX, F_INDIRECT_DESC
from miniqemu.hw.virtqueue import BrokenRing, VirtQueue
from miniqemu.machine.memory import GuestMemory
from tests.support.ring_driver import DriverQueue, Pages


class Bench:
    """A queue without a device, and the driver's side of it; closed after the test."""

    made: ClassVar[list[Bench]] = []

    def __init__(self, num: int = 8, features: int = F_EVENT_IDX | F_INDIRECT_DESC) -> None:
        self.made.append(self)
        self.errors: list[str] = []
        self.memory = GuestMemory([(0, 1 << 20)])
        self.driver = DriverQueue(self.memory, Pages(0x1000), num, features)
        self.queue = VirtQueue(self, 0, 256, the_world().new_lock())
        self.queue.num = num
        self.queue.desc_addr = self.driver.desc
        self.queue.avail_addr = self.driver.avail
        self.queue.used_addr = self.driver.used
        self.queue.enable(self.memory, features)

    def error(self, message: str) -> None:
        self.errors.append(message)

    def serve(self) -> int:
        """Takes all there is and gives it back; returns how many."""
        count = 0
        while (chain := self.queue.pop()) is not None:
            self.queue.push(chain[0], 1)
            count += 1
        return count

    def close(self) -> None:
        """Ends all; BufferError if a view of guest memory is left (a leak)."""
        self.queue.reset()
        self.driver.close()
        self.memory.close()


@pytest.fixture(autouse=True)
def no_bench_stays() -> Iterator[None]:
    yield
    while Bench.made:
        Bench.made.pop().close()


def test_an_empty_ring_gives_nothing() -> None:
    assert Bench().queue.pop() is None


def test_a_chain_comes_as_windows_on_guest_memory() -> None:
    bench = Bench()
    bench.memory.write(0x8000, b"hello")
    head = bench.driver.submit([(0x8000, 5, False), (0x9000, 3, True)])
    chain = bench.queue.pop()
    assert chain is not None
    assert chain[0] == head
    assert [bytes(view) for view in chain[1]] == [b"hello"]
    chain[2][0][:] = b"abc"
    assert bench.memory.read(0x9000, 3) == b"abc"


def test_chains_come_in_the_order_in_which_they_were_made_available() -> None:
    bench = Bench()
    heads = [bench.driver.submit([(0x8000, 1, True)]) for _ in range(8)]
    taken = []
    while (chain := bench.queue.pop()) is not None:
        taken.append(chain[0])
    assert taken == heads


def test_they_may_be_given_back_in_any_order() -> None:
    bench = Bench()
    heads = [bench.driver.submit([(0x8000, 9, True)]) for _ in range(4)]
    while bench.queue.pop() is not None:
        pass
    for length, head in enumerate(reversed(heads)):
        bench.queue.push(head, length)
    assert bench.driver.reap() == [(head, n) for n, head in enumerate(reversed(heads))]
    assert bench.queue.in_use == 0


@pytest.mark.parametrize("num", [1, 2, 8, 256])
def test_indices_wrap_at_65536_without_a_slip(num: int) -> None:
    bench = Bench(num)
    driver = bench.driver
    for _ in range(66_000 // num + 2):
        for _ in range(num):
            driver.submit([(0x8000, 1, True)])
        assert bench.serve() == num
        assert len(driver.reap()) == num
    assert driver.avail_idx == bench.queue.used_idx == driver.used_idx
    assert not bench.errors


def test_an_indirect_chain_takes_one_descriptor_of_the_ring() -> None:
    bench = Bench(num=2)
    wanted = [(0x8000 + 16 * n, 16, False) for n in range(40)] + [(0x9000, 1, True)]
    bench.driver.submit(wanted, indirect=True)
    chain = bench.queue.pop()
    assert chain is not None
    assert len(chain[1]) == 40
    assert len(chain[2]) == 1


@pytest.mark.parametrize(("length", "fits"), [(1024, True), (1025, False)])
def test_a_chain_has_at_most_1024_descriptors(length: int, fits: bool) -> None:
    bench = Bench()
    table = 0x20000
    for number in range(length):
        flags = virtqueue.DESC_F_NEXT if number < length - 1 else virtqueue.DESC_F_WRITE
        bench.driver.write_desc(number, 0x8000, 1, flags, number + 1, table)
    bench.driver.write_desc(0, table, 16 * length, virtqueue.DESC_F_INDIRECT)
    bench.driver.make_available(0)
    assert (bench.queue.pop() is not None) == fits
    assert bool(bench.errors) != fits


def test_normal_descriptors_may_come_before_an_indirect_one() -> None:
    bench = Bench()
    driver = bench.driver
    driver.write_desc(0, 0x8000, 16, virtqueue.DESC_F_NEXT, 1)
    driver.write_desc(1, driver.tables[1], 32, virtqueue.DESC_F_INDIRECT)
    driver.write_desc(0, 0x8100, 16, virtqueue.DESC_F_NEXT, 1, driver.tables[1])
    driver.write_desc(1, 0x8200, 1, virtqueue.DESC_F_WRITE, 0, driver.tables[1])
    driver.make_available(0)
    chain = bench.queue.pop()
    assert chain is not None
    assert [len(view) for view in chain[1] + chain[2]] == [16, 16, 1]


def test_the_write_flag_of_an_indirect_descriptor_is_ignored() -> None:
    bench = Bench()
    driver = bench.driver
    flags = virtqueue.DESC_F_INDIRECT | virtqueue.DESC_F_WRITE
    driver.write_desc(0, driver.tables[0], 16, flags)
    driver.write_desc(0, 0x8000, 16, 0, 0, driver.tables[0])
    driver.make_available(0)
    chain = bench.queue.pop()
    assert chain is not None
    assert len(chain[1]) == 1


def test_without_event_idx_the_device_asks_not_to_be_rung_by_a_flag() -> None:
    bench = Bench(features=0)
    bench.queue.disable_notification()
    assert not bench.driver.must_kick(bench.driver.avail_idx)
    assert bench.queue.enable_notification()
    assert not bench.driver.wants_no_kick


def test_with_event_idx_the_device_asks_by_an_index() -> None:
    bench = Bench()
    driver = bench.driver
    driver.submit([(0x8000, 1, True)])
    assert driver.must_kick(0)  # the first one always rings
    bench.queue.disable_notification()
    bench.serve()
    old = driver.avail_idx
    driver.submit([(0x8000, 1, True)])
    assert driver.must_kick(0)  # seen from before the first
    assert not driver.must_kick(old)  # avail_event lags behind: no need
    bench.serve()
    assert bench.queue.enable_notification()
    old = driver.avail_idx
    driver.submit([(0x8000, 1, True)])
    assert driver.must_kick(old)


@pytest.mark.parametrize("features", [0, F_EVENT_IDX])
def test_what_came_before_the_ring_was_asked_for_again_is_seen(features: int) -> None:
    bench = Bench(features=features)
    bench.queue.disable_notification()
    bench.serve()
    bench.driver.submit([(0x8000, 1, True)])
    assert not bench.queue.enable_notification()


def test_the_no_interrupt_flag_is_obeyed() -> None:
    bench = Bench(features=0)
    assert bench.queue.needs_interrupt()
    assert bench.queue.waited_for()
    bench.driver.suppress_interrupts()
    assert not bench.queue.needs_interrupt()
    assert not bench.queue.waited_for()


def test_used_event_says_when_to_interrupt() -> None:
    bench = Bench()
    driver = bench.driver
    waited_for, wanted = [], []
    driver.set_used_event(3)  # when used.idx passes 3
    for _ in range(6):
        driver.submit([(0x8000, 1, True)])
        waited_for.append(bench.queue.waited_for())
        bench.serve()
        wanted.append(bench.queue.needs_interrupt())
    assert waited_for == [False, False, False, True, False, False]
    assert wanted == [True, False, False, True, False, False]  # the first one always


def test_used_event_works_for_batches_and_across_the_wrap() -> None:
    bench = Bench()
    driver = bench.driver
    for _ in range(65_530):
        driver.submit([(0x8000, 1, True)])
        bench.serve()
        driver.reap()
    bench.queue.needs_interrupt()
    driver.set_used_event(65_535)
    for _ in range(8):
        driver.submit([(0x8000, 1, True)])
    bench.serve()
    assert driver.used_idx == 2
    assert bench.queue.needs_interrupt()
    assert not bench.queue.needs_interrupt()


@pytest.mark.parametrize("module", [virtqueue, virtio_blk, virtio_blk_request])
def test_nothing_is_written_into_guest_memory_by_pack_into(module: ModuleType) -> None:
    """It zeroes a field before it writes it, and a driver that polls sees the zero (R3)."""
    tree = ast.parse(inspect.getsource(module))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "pack_into" not in names


def test_an_entry_is_written_before_the_index_that_shows_it() -> None:
    bench = Bench()
    stores: list[str] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def __setitem__(self, at: int, value: int) -> None:
            stores.append(self.name)

    bench.driver.submit([(0x8000, 1, True)])
    chain = bench.queue.pop()
    assert chain is not None
    bench.queue._used_ring = Recorder("entry")  # type: ignore[assignment]  # watches the stores
    bench.queue._used = Recorder("index")  # type: ignore[assignment]  # watches the stores
    bench.queue.push(chain[0], 1)
    assert stores == ["entry", "entry", "index"]


@pytest.mark.parametrize("num", [0, 3, 6, 255, 512, 65535, 0xFFFF_FFFF])
def test_a_size_that_is_no_power_of_two_or_too_large_is_refused(num: int) -> None:
    bench = Bench()
    bench.queue.disable()
    bench.queue.num = num
    with pytest.raises(BrokenRing, match="size"):
        bench.queue.enable(bench.memory, 0)


@pytest.mark.parametrize(
    ("name", "address"),
    [("desc_addr", 0x1008), ("avail_addr", 0x1001), ("used_addr", 0x1002)],
)
def test_a_misaligned_ring_is_refused(name: str, address: int) -> None:
    bench = Bench()
    bench.queue.disable()
    setattr(bench.queue, name, address)
    with pytest.raises(BrokenRing, match="aligned"):
        bench.queue.enable(bench.memory, 0)


def test_a_ring_may_end_at_the_last_byte_of_memory() -> None:
    bench = Bench()
    bench.queue.disable()
    bench.queue.used_addr = (1 << 20) - (4 + 8 * 8)
    bench.queue.enable(bench.memory, 0)
    assert bench.queue.ready
    bench.queue.disable()
    with pytest.raises(BrokenRing, match="used ring"):  # EVENT_IDX needs two bytes more
        bench.queue.enable(bench.memory, F_EVENT_IDX)


def test_a_forgotten_chain_frees_its_head() -> None:
    bench = Bench()
    bench.driver.submit([(0x8000, 1, True)])
    chain = bench.queue.pop()
    assert chain is not None
    bench.queue.detach(chain[0])
    assert bench.queue.in_use == 0
    assert bench.driver.used_idx == 0
