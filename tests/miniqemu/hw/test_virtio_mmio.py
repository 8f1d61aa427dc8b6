# SPDX-License-Identifier: GPL-2.0-only
"""The window of registers does what section 4.2.2 of the standard says."""

from __future__ import annotations

import pytest

from block.aio.world import the_world
from miniqemu.hw import virtio_blk_layout as layout
from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw.virtio import F_VERSION_1, ISR_CONFIG, ISR_QUEUE
from miniqemu.hw.virtio_mmio import VirtioMmioTransport
from miniqemu.machine.biglock import BigLock
from miniqemu.machine.irq import IrqLine
from miniqemu.machine.memory import AddressSpace, GuestMemory
from tests.support.ring_driver import RingDriver
from tests.support.virtio_rig import IrqCounter, ParkingBlk, Rig, rig

READ_ONLY = (
    mmio.MAGIC_VALUE, mmio.VERSION_REGISTER, mmio.DEVICE_ID, mmio.VENDOR_ID, mmio.DEVICE_FEATURES,
    mmio.QUEUE_NUM_MAX, mmio.INTERRUPT_STATUS, mmio.CONFIG_GENERATION, mmio.SHM_LEN_LOW,
)  # fmt: skip
WRITE_ONLY = (
    mmio.DEVICE_FEATURES_SEL, mmio.DRIVER_FEATURES, mmio.DRIVER_FEATURES_SEL, mmio.QUEUE_SEL,
    mmio.QUEUE_NUM, mmio.QUEUE_NOTIFY, mmio.INTERRUPT_ACK, *mmio.QUEUE_ADDRESSES,
)  # fmt: skip


def test_the_identity_is_that_of_qemus_machine() -> None:
    with rig() as bench:
        driver = bench.driver
        assert driver.reg(mmio.MAGIC_VALUE).to_bytes(4, "little") == b"virt"
        assert driver.reg(mmio.VERSION_REGISTER) == 2
        assert driver.reg(mmio.DEVICE_ID) == 2
        assert driver.reg(mmio.VENDOR_ID).to_bytes(4, "little") == b"QEMU"


def test_an_empty_slot_has_device_id_0_and_ignores_writes() -> None:
    memory = GuestMemory([(0, 1 << 16)])
    ctx = the_world().main_context
    slot = VirtioMmioTransport(
        0, IrqLine(5, IrqCounter()), AddressSpace(memory), ctx, BigLock(), None
    )
    assert slot.read(mmio.MAGIC_VALUE, 4) == mmio.MAGIC
    assert slot.read(mmio.VERSION_REGISTER, 4) == 2
    for offset in range(mmio.DEVICE_ID, mmio.SIZE, 4):
        if offset != mmio.VENDOR_ID:
            slot.write(offset, 4, 0xFFFF_FFFF)
            assert slot.read(offset, 4) == 0
    slot.reset()
    slot.vm_state_changed(False)
    slot.close()
    memory.close()


@pytest.mark.parametrize("offset", READ_ONLY)
def test_a_read_only_register_ignores_writes(offset: int) -> None:
    with rig() as bench:
        before = bench.driver.reg(offset)
        bench.driver.set_reg(offset, 0x5A5A_5A5A)
        assert bench.driver.reg(offset) == before


@pytest.mark.parametrize("offset", WRITE_ONLY)
def test_a_write_only_register_reads_as_zero(offset: int) -> None:
    with rig() as bench:
        bench.driver.set_reg(offset, 1)
        assert bench.driver.reg(offset) == 0


@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize("offset", [mmio.MAGIC_VALUE, mmio.STATUS, mmio.QUEUE_SEL, 0x71])
def test_registers_answer_to_32_bits_only(offset: int, size: int) -> None:
    with rig() as bench:
        bench.driver.set_reg(mmio.STATUS, 1)
        bench.transport.write(offset, size, 0)
        assert bench.transport.read(offset, size) == 0
        assert bench.driver.status == 1


@pytest.mark.parametrize("offset", [0x028, 0x03C, 0x040, 0x0F8, 0x0C0, 0x002])
def test_what_is_no_register_reads_as_zero_and_ignores_writes(offset: int) -> None:
    with rig() as bench:
        bench.driver.set_reg(offset, 0xFFFF_FFFF)
        assert bench.driver.reg(offset) == 0


def test_features_come_in_halves_and_there_is_no_third() -> None:
    with rig() as bench:
        driver = bench.driver
        assert driver.offered() == bench.device.host_features
        driver.set_reg(mmio.DEVICE_FEATURES_SEL, 2)
        assert driver.reg(mmio.DEVICE_FEATURES) == 0
        driver.set_reg(mmio.DRIVER_FEATURES_SEL, 0xFFFF_FFFF)
        driver.set_reg(mmio.DRIVER_FEATURES, 0xFFFF_FFFF)
        assert bench.device.features == 0


def test_shared_memory_regions_do_not_exist() -> None:
    with rig() as bench:
        for offset in (mmio.SHM_LEN_LOW, mmio.SHM_LEN_HIGH, mmio.SHM_BASE_LOW, mmio.SHM_BASE_HIGH):
            assert bench.driver.reg(offset) == 0xFFFF_FFFF


def test_a_queue_that_does_not_exist_has_size_0_and_cannot_be_ready() -> None:
    with rig(num_queues=2, queue_size=64) as bench:
        driver = bench.driver
        driver.negotiate()
        driver.set_reg(mmio.QUEUE_SEL, 1)
        assert driver.reg(mmio.QUEUE_NUM_MAX) == 64
        for index in (2, 0xFFFF_FFFF):
            assert driver.place_queue(index, 8, 0x1000, 0x2000, 0x3000) == 0
            assert driver.reg(mmio.QUEUE_NUM_MAX) == 0


def test_a_queue_waits_for_the_features() -> None:
    with rig() as bench:
        assert bench.driver.place_queue(0, 8, 0x1000, 0x2000, 0x3000) == 0
        bench.driver.negotiate()
        assert bench.driver.place_queue(0, 8, 0x1000, 0x2000, 0x3000) == 1


def test_the_numbers_of_a_ready_queue_are_fixed() -> None:
    with rig() as bench:
        bench.driver.start()
        queue = bench.device.queues[0]
        before = (queue.num, queue.desc_addr, queue.avail_addr, queue.used_addr)
        for offset in (mmio.QUEUE_NUM, *mmio.QUEUE_ADDRESSES):
            bench.driver.set_reg(offset, 0x40)
        assert (queue.num, queue.desc_addr, queue.avail_addr, queue.used_addr) == before


def test_64_bit_addresses_are_put_together_from_both_halves() -> None:
    with rig() as bench:
        bench.driver.negotiate()
        bench.driver.set_reg(mmio.QUEUE_DESC_HIGH, 0x12)
        bench.driver.set_reg(mmio.QUEUE_DESC_LOW, 0x8000_0000)
        assert bench.device.queues[0].desc_addr == 0x12_8000_0000


def test_a_queue_may_be_taken_out_and_put_back_while_the_device_runs() -> None:
    with rig() as bench:
        driver = bench.driver
        ring = driver.start()
        assert bench.request(0, into=512).status == 0
        driver.set_reg(mmio.QUEUE_READY, 0)
        assert driver.reg(mmio.QUEUE_READY) == 0
        driver.kick(0)
        bench.run()
        ring.close()
        driver.queues[0] = driver.set_up_queue(0, 16)
        assert bench.request(0, into=512).status == 0


def test_the_configuration_space_is_read_at_any_width() -> None:
    with rig(num_queues=3, logical_block_size=4096, physical_block_size=16384) as bench:
        read = bench.transport.read
        space = bytes(read(mmio.CONFIG + at, 1) for at in range(layout.CONFIG.size))
        for size in (1, 2, 4, 8):
            for at in range(layout.CONFIG.size - size + 1):
                value = read(mmio.CONFIG + at, size)
                assert value == int.from_bytes(space[at : at + size], "little")
        config = layout.unpack_config(space)
        assert config["capacity"] == 2048
        assert config["blk_size"] == 4096
        assert config["physical_block_exp"] == 2
        assert config["num_queues"] == 3
        assert config["discard_sector_alignment"] == 8


def test_beyond_the_configuration_space_there_is_nothing() -> None:
    with rig() as bench:
        end = mmio.CONFIG + layout.CONFIG.size
        assert bench.transport.read(end, 4) == 0xFFFF_FFFF
        assert bench.transport.read(end - 1, 2) == 0xFFFF
        bench.transport.write(end, 4, 0)
        bench.transport.write(mmio.SIZE - 1, 8, 0)


def test_the_write_cache_is_the_only_field_a_driver_may_write() -> None:
    with rig() as bench:
        bench.driver.start()
        before = bytes(bench.device.config)
        writeback = layout.CONFIG_OFFSETS["writeback"]
        for size in (1, 2, 4, 8):
            for at in range(layout.CONFIG.size):
                if (at, size) != (writeback, 1):
                    bench.transport.write(mmio.CONFIG + at, size, 0)
        assert bytes(bench.device.config) == before
        assert bench.blk.enable_write_cache
        bench.transport.write(mmio.CONFIG + writeback, 1, 0)
        assert not bench.blk.enable_write_cache
        assert bench.transport.read(mmio.CONFIG + writeback, 1) == 0


def test_a_driver_without_config_wce_gets_a_cache_if_it_can_flush() -> None:
    for features, cache in ((F_VERSION_1 | layout.F_FLUSH, True), (F_VERSION_1, False)):
        with rig() as bench:
            bench.driver.start(features)
            assert bench.blk.enable_write_cache is cache
            bench.transport.write(mmio.CONFIG + layout.CONFIG_OFFSETS["writeback"], 1, not cache)
            assert bench.blk.enable_write_cache is cache
            bench.transport.reset()
            assert bench.blk.enable_write_cache


def test_an_acknowledged_interrupt_lowers_the_wire() -> None:
    with rig() as bench:
        bench.driver.start()
        bench.request(0, into=512)
        assert bench.irqs.level
        assert bench.driver.acknowledge() == ISR_QUEUE
        assert not bench.irqs.level
        assert bench.driver.reg(mmio.INTERRUPT_STATUS) == 0


def test_a_bit_that_was_not_acknowledged_gives_a_new_edge() -> None:
    with rig() as bench:
        bench.driver.start()
        bench.request(0, into=512)
        bench.device.config_changed()
        edges = bench.irqs.edges
        bench.driver.set_reg(mmio.INTERRUPT_ACK, ISR_QUEUE)
        assert bench.driver.reg(mmio.INTERRUPT_STATUS) == ISR_CONFIG
        assert bench.irqs.edges == edges + 1


def test_another_size_of_the_disk_reaches_a_running_driver() -> None:
    with rig() as bench:
        bench.driver.start()
        blk = bench.blk
        assert isinstance(blk, ParkingBlk)
        generation = bench.driver.reg(mmio.CONFIG_GENERATION)
        blk.disk.extend(bytes(512))
        bench.device.resize()
        bench.run()
        assert bench.driver.acknowledge() == ISR_CONFIG
        assert bench.driver.reg(mmio.CONFIG_GENERATION) != generation
        assert bench.transport.read(mmio.CONFIG, 8) == 2049
        assert bench.request(0, 2048, into=512).status == 0


def test_a_driver_that_does_not_run_hears_of_no_change() -> None:
    with rig() as bench:
        bench.driver.negotiate()
        bench.device.config_changed()
        assert bench.irqs.edges == 0


def test_a_reset_of_the_machine_brings_everything_back() -> None:
    with rig() as bench:
        bench.driver.start()
        bench.request(0, into=512)
        bench.driver.set_reg(mmio.QUEUE_SEL, 5)
        bench.transport.reset()
        assert bench.driver.status == 0
        assert not bench.irqs.level
        assert bench.driver.reg(mmio.QUEUE_READY) == 0
        assert bench.device.features == 0
        assert bench.device.queues[0].num == 256


def test_nothing_of_guest_memory_is_held_after_close() -> None:
    bench = Rig()
    bench.driver.start()
    bench.request(0, into=4096)
    bench.close()  # BufferError if a view were left


def test_two_slots_do_not_hear_each_others_doorbells() -> None:
    with rig() as bench:
        other = ParkingBlk(bench.ctx)
        second = Rig(other)
        ring = bench.driver.start()
        second.driver.start()
        assert isinstance(second.driver, RingDriver)
        second.request(0, into=512)
        assert ring.used_idx == 0
        assert other.calls
        second.close()
