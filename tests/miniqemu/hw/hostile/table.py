# SPDX-License-Identifier: GPL-2.0-only
"""The table of what a bad guest tries, and of the answers that the standard asks for.

One row a case: what the guest does; what virtio 1.2 says about it, with its section; the answer
that our device must give; how the deed is done (acts); and a word that must be in what the
person who runs the machine is told. test_table.py plays every row in each way of serving a disk;
the page docs/hostile-guests.md prints the table.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from miniqemu.hw import virtio_mmio as mmio
from miniqemu.hw.virtio import F_VERSION_1
from miniqemu.hw.virtio_blk_layout import (
    F_DISCARD,
    F_WRITE_ZEROES,
    S_IOERR,
    S_OK,
    S_UNSUPP,
    SEGMENT,
    T_BARRIER,
    T_FLUSH,
    T_GET_ID,
    T_IN,
    T_OUT,
)
from tests.miniqemu.hw.hostile import acts
from tests.miniqemu.hw.hostile import register_acts as regs
from tests.miniqemu.hw.hostile.bench import DATA, HIGH, LOW, RAM_END, SECTORS
from tests.miniqemu.hw.hostile.makers import (
    ALL_ONES,
    DISCARD,
    INDIRECT,
    MANY,
    NEXT,
    OVER_THE_END,
    WRITE,
    ZEROES,
    Act,
    avail,
    buffers,
    desc,
    features,
    load,
    placed,
    register,
    request,
    request_without,
    segments,
    step,
    table,
)
from tests.support.virtio_rig import BASE

W = (DATA, 1, WRITE, 0)  # a good last descriptor: room for a status byte
TOP = 1 << 64
LAST = SECTORS - 1


class Answer(enum.Enum):
    """What the device does; a number is the status byte of the request."""

    RESET = "NEEDS_RESET"
    IGNORED = "ignored"
    REFUSED = "refused"  # a register keeps its old value
    OK = "served"
    IOERR = "IOERR"
    UNSUPP = "UNSUPP"


RESET, IGNORED, REFUSED, OK, IOERR, UNSUPP = Answer
STATUS_BYTES = {OK: S_OK, IOERR: S_IOERR, UNSUPP: S_UNSUPP}


class Case(NamedTuple):
    """One row."""

    deed: str
    standard: str
    answer: Answer
    act: Act
    word: str = ""
    writes: bool = False  # it may write to the disk


LOOPS = "2.7.5.2: a chain has no loop"
RANGE = "2.7.5: an address is that of guest memory"
ORDER = "2.7.4.2: writable descriptors come last"
FRAMING = "2.7.4.1: no assumption about the framing"
LENGTH = "2.7.5: a descriptor describes a buffer"
INDIRECTS = "2.7.5.3.1: "
AVAIL = "2.7.6: the index counts what was added"
ALIGNED = "2.7: parts are aligned to 16, 2 and 4 bytes"
SIZES = "2.7: a size is a power of 2, up to the maximum"
BEYOND = "5.2.6.1: no place beyond the capacity"
WHOLE = "5.2.6.1: data is a multiple of 512 bytes"
STEPS = "3.1.1: the steps are taken in order"
WIDTH = "4.2.2.2: registers are 32 bits wide"
CONFIG = "4.2.2.2: fields are accessed at their width"
READY = "4.2.2.2: no access while QueueReady is not 0"
UNKNOWN = "5.2.6: UNSUPP for what is not supported"
FLAGS = "5.2.6.2: UNSUPP for an unknown flag"
SEGMENTS = "5.2.6.1: data is whole segments"
ONE_USE = "2.7.13: a chain is the device's until it is used"

# fmt: off
CHAINS = (
    Case("a descriptor that is its own next", LOOPS, RESET, desc((DATA, 16, NEXT, 0)), "loop"),
    Case("two that follow each other", LOOPS, RESET,
         desc((DATA, 16, NEXT, 1), (DATA, 16, NEXT, 0)), "loop"),
    Case("a loop of writable ones", LOOPS, RESET, desc((DATA, 16, NEXT | WRITE, 0)), "loop"),
    Case("a loop through the whole table", LOOPS, RESET, acts.loop_of_the_whole_table, "loop"),
    Case("a chain as long as the queue", "2.7.5.3.1: that is the longest", OK,
         acts.chain_as_long_as_the_queue),
    Case("next is the table's size", "2.7.5: next is in the table", RESET,
         desc((DATA, 16, NEXT, 8)), "next"),
    Case("next is 65535", "2.7.5: next is in the table", RESET,
         desc((DATA, 16, NEXT, 0xFFFF)), "next"),
    Case("readable after writable", ORDER, RESET,
         desc((DATA, 16, NEXT | WRITE, 1), (DATA, 16, 0, 0)), "after"),
    Case("readable, writable, readable, writable", ORDER, RESET,
         desc((DATA, 16, NEXT, 1), (DATA, 1, NEXT | WRITE, 2), (DATA, 16, NEXT, 3), W), "after"),
    Case("flags that are not defined", "2.7.5: three flags", RESET,
         desc((DATA, 16, 0x8 | WRITE, 0)), "header"),
    Case("all flags at once", INDIRECTS + "not INDIRECT and NEXT", RESET,
         desc((DATA, 16, 0xFFFF, 0)), "goes on"),
    Case("all bytes of a descriptor are ones", RANGE, RESET,
         desc((TOP - 1, ALL_ONES, 0xFFFF, 0xFFFF)), "indirect"),
    Case("descriptors change in flight", ONE_USE, OK, acts.descriptors_change_in_flight),
    Case("the header changes in flight", ONE_USE, OK, acts.header_changes_in_flight),
)

ADDRESSES = (
    Case("length 0, readable", LENGTH, RESET, desc((DATA, 0, NEXT, 1), W), "length 0"),
    Case("length 0, writable", LENGTH, RESET,
         desc((DATA, 16, NEXT, 1), (DATA, 0, WRITE, 0)), "length 0"),
    Case("length 0 at address 0", LENGTH, RESET, desc((0, 0, NEXT, 1), W), "length 0"),
    Case("4 GiB less 1", RANGE, RESET, desc((0, ALL_ONES, NEXT, 1), W), "RAM"),
    Case("address behind the end of RAM", RANGE, RESET, desc((RAM_END, 16, NEXT, 1), W), "RAM"),
    Case("the last byte behind the end of RAM", RANGE, RESET,
         desc((OVER_THE_END, 16, NEXT, 1), W), "RAM"),
    Case("address in the hole between two RAMs", RANGE, RESET,
         desc((LOW, 16, NEXT, 1), W), "RAM"),
    Case("a buffer from RAM into the hole", RANGE, RESET,
         desc((LOW - 8, 16, NEXT, 1), W), "RAM"),
    Case("a buffer across the hole", RANGE, RESET,
         desc((LOW - 8, HIGH - LOW + 16, NEXT, 1), W), "RAM"),
    Case("address and length wrap at 2^64", RANGE, RESET,
         desc((TOP - 8, 16, NEXT, 1), W), "RAM"),
    Case("length 4 GiB less 1 wraps at 2^64", RANGE, RESET,
         desc((TOP - ALL_ONES, ALL_ONES, NEXT, 1), W), "RAM"),
    Case("address 2^63", RANGE, RESET, desc((1 << 63, 16, NEXT, 1), W), "RAM"),
    Case("the header is the device's own registers", RANGE, RESET,
         desc((BASE, 16, NEXT, 1), W), "RAM"),
    Case("the status byte is a doorbell", RANGE, RESET,
         desc((DATA, 16, NEXT, 1), (BASE + mmio.QUEUE_NOTIFY, 4, WRITE, 0)), "RAM"),
    Case("the data is the registers of another device", RANGE, RESET,
         desc((DATA, 16, NEXT, 1), (BASE + mmio.SIZE, 512, NEXT | WRITE, 2), W), "RAM"),
    Case("data at address 0", RANGE, OK, buffers(T_IN, (0, 512, True))),
    Case("data that ends with RAM", RANGE, OK, buffers(T_IN, (RAM_END - 512, 512, True))),
    Case("more data than there is memory", BEYOND, IOERR, regs.eight_times_all_memory),
)

HEADERS = (
    Case("no writable descriptor", "5.2.6: a request ends with its status", RESET,
         desc((DATA, 16, 0, 0)), "status"),
    Case("no readable descriptor", "5.2.6: a request begins with its header", RESET,
         desc((DATA, 16, WRITE, 0)), "header"),
    Case("a writable header", "5.2.6: the header is readable", RESET,
         desc((DATA, 16, NEXT | WRITE, 1), W), "header"),
    Case("a header of 15 bytes", "5.2.6: 16 bytes", RESET,
         desc((DATA, 15, NEXT, 1), W), "short"),
    Case("a header of 1 byte", "5.2.6: 16 bytes", RESET, desc((DATA, 1, NEXT, 1), W), "short"),
    Case("a header in 16 descriptors of 1 byte", FRAMING, OK, request(T_IN, cut=1)),
    Case("everything in pieces of 7 bytes", FRAMING, OK, request(T_IN, into=512, cut=7)),
    Case("header and data in one descriptor", FRAMING, OK,
         request(T_OUT, out=bytes(512), cut=528), writes=True),
    Case("data and status in one descriptor", FRAMING, OK, request(T_IN, into=512, cut=513)),
    Case("the header lies in the used ring", RANGE, OK, acts.header_in_the_used_ring),
    Case("a read whose buffer is only readable", "2.7.5.1: such a buffer is not written", OK,
         acts.data_only_readable),
    Case("a write whose buffer is only writable", "2.7.5.1: such a buffer is not read", OK,
         buffers(T_OUT, (DATA, 512, True))),
    Case("a read into the descriptor table", "2.7.5.1: the table is the driver's", RESET,
         acts.read_into_the_descriptors),
    Case("a status byte in the available index", AVAIL, RESET,
         acts.status_into_the_available_index, "jumped"),
)

INDIRECT_TABLES = (
    Case("an indirect table in an indirect table", INDIRECTS + "only one level", RESET,
         table((DATA, 16, INDIRECT, 0)), "in an indirect"),
    Case("the descriptor table as an indirect table", INDIRECTS + "only one level", RESET,
         acts.table_is_the_descriptor_table, "in an indirect"),
    Case("a loop in an indirect table", LOOPS, RESET, table((DATA, 16, NEXT, 0)), "loop"),
    Case("next behind an indirect table", INDIRECTS + "next is in the table", RESET,
         table((DATA, 16, NEXT, 1)), "next"),
    Case("INDIRECT and NEXT", INDIRECTS + "not INDIRECT and NEXT", RESET,
         table((DATA, 16, 0, 0), flags=INDIRECT | NEXT), "goes on"),
    Case("an indirect table of 0 bytes", "2.7.5.3: 16 bytes each", RESET,
         desc((DATA, 0, INDIRECT, 0)), "table of 0"),
    Case("an indirect table of 15 bytes", "2.7.5.3: 16 bytes each", RESET,
         desc((DATA, 15, INDIRECT, 0)), "table of 15"),
    Case("an indirect table of 17 bytes", "2.7.5.3: 16 bytes each", RESET,
         desc((DATA, 17, INDIRECT, 0)), "table of 17"),
    Case("an indirect table behind RAM", RANGE, RESET, desc((RAM_END, 16, INDIRECT, 0)), "RAM"),
    Case("an indirect table from RAM into the hole", RANGE, RESET,
         desc((LOW - 16, 32, INDIRECT, 0)), "RAM"),
    Case("an indirect table of 4 GiB", RANGE, RESET,
         desc((0, 0xFFFF_FFF0, INDIRECT, 0)), "RAM"),
    Case("an indirect table that wraps at 2^64", RANGE, RESET,
         desc((TOP - 16, 32, INDIRECT, 0)), "RAM"),
    Case("a chain of 1025 descriptors", INDIRECTS + "not longer than the queue", RESET,
         acts.table_of(1025), "too long"),
    Case("a chain of 514, longer than the queue", INDIRECTS + "not longer than the queue", OK,
         acts.table_of(514)),
    Case("an indirect table at an odd address", "2.7.5.3: no alignment is asked for", OK,
         acts.good_table(0, misaligned=1)),
    Case("WRITE with INDIRECT", "2.7.5.3.2: WRITE is ignored there", OK, acts.good_table(WRITE)),
    Case("normal descriptors, then an indirect table", "2.7.5.3.2: that is allowed", OK,
         acts.good_table(0, before=True)),
    Case("INDIRECT without the feature", INDIRECTS + "only if negotiated", RESET,
         acts.indirect_without_the_feature, "not negotiated"),
)

RINGS = (
    Case("a head that is the table's size", "2.7.6: a head is in the table", RESET,
         avail(8), "head 8"),
    Case("head 65535", "2.7.6: a head is in the table", RESET, avail(0xFFFF), "head 65535"),
    Case("a ring full of bad heads", "2.7.6: a head is in the table", RESET,
         avail(*range(0x100, 0x108)), "head 256"),
    Case("the index jumps by the ring and one", AVAIL, RESET, avail(index=9), "jumped"),
    Case("the index jumps by 2^15", AVAIL, RESET, avail(index=0x8000), "jumped"),
    Case("the index goes back", "2.7.6.1: it never goes back", RESET,
         avail(index=0xFFFF), "jumped"),
    Case("the same head again while it is in flight", ONE_USE, RESET,
         acts.same_head_twice, "twice"),
    Case("a ring full of one head", ONE_USE, RESET, acts.ring_full_of_one_head, "twice"),
    Case("unknown flags in the available ring", "2.7.6: one flag", OK,
         acts.flags_of_the_available_ring),
    Case("used_event is anything", "2.7.7.2: only when to interrupt", OK,
         acts.used_event_of_any_value),
    Case("the guest writes the used ring", "2.7.8: the device alone writes it", OK,
         acts.used_ring_written_by_the_guest),
    Case("a doorbell without a buffer", "2.7.13: the index says what is new", IGNORED,
         acts.doorbell_without_a_buffer),
    Case("two queues share their rings", "2.6: each has its own", OK,
         acts.two_queues_with_the_same_rings),
    Case("the used ring lies over the descriptors", "2.7: three separate parts", OK,
         acts.used_ring_over_the_descriptors),
    Case("all three parts at one address", "2.7: three separate parts", RESET,
         acts.all_rings_at_one_address),
)

QUEUES = (
    Case("size 0", SIZES, RESET, placed(0), "size 0"),
    Case("size 3", SIZES, RESET, placed(3), "size 3"),
    Case("twice the maximum", "4.2.2.2: up to QueueNumMax", RESET, placed(512), "size 512"),
    Case("size 2^31", "4.2.2.2: up to QueueNumMax", RESET, placed(1 << 31), "size 2147483648"),
    Case("size 2^32 - 1", "4.2.2.2: up to QueueNumMax", RESET, placed(ALL_ONES), "size"),
    Case("misaligned descriptor table", ALIGNED, RESET, placed(desc=0x1008), "16-aligned"),
    Case("misaligned available ring", ALIGNED, RESET, placed(avail=0x2001), "2-aligned"),
    Case("misaligned used ring", ALIGNED, RESET, placed(used=0x3002), "4-aligned"),
    Case("descriptors in the device's registers", RANGE, RESET, placed(desc=BASE), "RAM"),
    Case("descriptors at 2^64 - 16", RANGE, RESET, placed(desc=TOP - 16), "RAM"),
    Case("descriptors in the hole", RANGE, RESET, placed(desc=LOW), "RAM"),
    Case("available ring behind RAM", RANGE, RESET, placed(avail=RAM_END), "RAM"),
    Case("available ring ends behind RAM", RANGE, RESET, placed(avail=RAM_END - 20), "RAM"),
    Case("used ring in another device", RANGE, RESET, placed(used=BASE + mmio.SIZE), "RAM"),
    Case("used ring ends in the hole", RANGE, RESET, placed(used=LOW - 64), "RAM"),
    Case("rings move while the queue runs", READY, IGNORED, acts.rings_move_while_running),
    Case("rings move in mid-request", READY, OK, acts.rings_move_in_mid_request),
    Case("a queue is taken away in mid-request", "4.2.2.2: QueueReady 0 is read back", OK,
         acts.queue_not_ready_in_mid_request),
    Case("a queue of a broken device is taken away", "4.2.2.2: QueueReady 0 is read back", RESET,
         acts.queue_not_ready_after_the_end, "head"),
    Case("a doorbell of a queue that was taken away", "4.2.2.1: no access at QueueReady 0",
         IGNORED, acts.doorbell_of_a_queue_that_was_taken_away),
    Case("a doorbell of a queue that is not ready", "4.2.2.1: no access at QueueReady 0",
         IGNORED, acts.doorbell_of_a_queue_that_is_not_ready),
    Case("a queue that does not exist", "4.2.2: QueueNumMax is 0 there", REFUSED,
         acts.queue_that_does_not_exist),
    Case("a queue is made ready before FEATURES_OK", STEPS, REFUSED,
         acts.queue_before_features_ok),
    Case("QueueReady is 2", "4.2.2: 1 or 0", REFUSED, acts.queue_ready_of_2),
)

STATUS = (
    Case("DRIVER_OK without FEATURES_OK", STEPS, REFUSED, step(7, 1, 3, shows=3)),
    Case("DRIVER_OK first of all", STEPS, REFUSED, step(0xF, shows=0)),
    Case("FEATURES_OK without DRIVER", STEPS, REFUSED, step(9, 1, shows=1)),
    Case("a status bit is cleared", "2.1.1: none is", IGNORED, register(mmio.STATUS, 3)),
    Case("reserved status bits", "2.1: six bits", IGNORED, register(mmio.STATUS, 0x3F)),
    Case("NEEDS_RESET written by the driver", "2.1: the device sets it", IGNORED,
         register(mmio.STATUS, 0x4F)),
    Case("DRIVER_OK a second time", STEPS, IGNORED, register(mmio.STATUS, 0xF)),
    Case("a status write of 1 byte", WIDTH, IGNORED, register(mmio.STATUS, 0, 1)),
    Case("a status write of 8 bytes", WIDTH, IGNORED, register(mmio.STATUS, 0, 8)),
    Case("FAILED, and then a doorbell", "2.1.1: then comes a reset", IGNORED, regs.given_up),
    Case("a feature that was not offered", "2.2.2: FEATURES_OK stays clear", REFUSED,
         features(F_VERSION_1 | 1 << 63)),
    Case("every feature there may be", "2.2.2: FEATURES_OK stays clear", REFUSED,
         features(TOP - 1)),
    Case("no VERSION_1", "6.2: FEATURES_OK may stay clear", REFUSED, features(0)),
    Case("features beyond the 64th", "2.2: there are none", IGNORED,
         regs.features_beyond_the_64th),
    Case("features change after FEATURES_OK", "3.1.1: no new ones after this step", IGNORED,
         regs.features_change_afterwards),
    Case("a doorbell before DRIVER_OK", "2.1.2: no buffer is used before", OK,
         regs.doorbell_before_driver_ok),
    Case("a reset in mid-request", "2.4.1: no access after the reset", IGNORED,
         regs.reset_in_mid_request),
    Case("a doorbell after a reset", "2.4.1: no access after the reset", IGNORED,
         regs.doorbell_after_a_reset),
    Case("a hundred resets with a request in each", "2.4.1: status 0 when it is done", IGNORED,
         regs.hundred_resets),
)

REGISTERS = (
    Case("the doorbell of queue 77", "4.2.2: a queue's index", IGNORED,
         register(mmio.QUEUE_NOTIFY, 77)),
    Case("the doorbell of queue 2^32 - 1", "4.2.2: a queue's index", IGNORED,
         register(mmio.QUEUE_NOTIFY, ALL_ONES)),
    Case("a doorbell of 8 bytes", WIDTH, IGNORED, register(mmio.QUEUE_NOTIFY, 0, 8)),
    Case("a doorbell of 1 byte", WIDTH, IGNORED, register(mmio.QUEUE_NOTIFY, 0, 1)),
    Case("a doorbell across two registers", WIDTH, IGNORED,
         register(mmio.QUEUE_NOTIFY - 2, 0, 4)),
    Case("stores to read-only registers", "4.2.2.2: not written", IGNORED,
         regs.read_only_registers),
    Case("loads from write-only registers", "4.2.2.2: not read", IGNORED,
         regs.write_only_registers),
    Case("each register at each wrong width", WIDTH, IGNORED, regs.every_odd_access),
    Case("QueueReset, which was not offered", "2.6.1: needs RING_RESET", IGNORED,
         register(mmio.QUEUE_RESET, 1)),
    Case("the length of a shared memory there is not", "4.2.2.1: all ones", REFUSED,
         load(mmio.SHM_LEN_LOW, 4, ALL_ONES)),
    Case("a storm of doorbells", "2.3: a doorbell may find nothing", IGNORED,
         regs.storm_of_doorbells),
    Case("a storm of acknowledges", "4.2.2.2: no undefined bits", IGNORED,
         regs.storm_of_acknowledges),
    Case("interrupts that nobody acknowledges", "4.2.2.1: the bit stays until then", OK,
         regs.storm_without_an_acknowledge),
    Case("a store to the capacity", "5.2.4: read-only", IGNORED,
         register(mmio.CONFIG, ALL_ONES)),
    Case("the write cache set to any byte", "5.2.4: writeback is a byte", IGNORED,
         regs.write_cache),
    Case("the write cache as 2 bytes", CONFIG, IGNORED, regs.write_cache_too_wide(2)),
    Case("the write cache as 4 bytes", CONFIG, IGNORED, regs.write_cache_too_wide(4)),
    Case("the write cache as 8 bytes", CONFIG, IGNORED, regs.write_cache_too_wide(8)),
    Case("the write cache without CONFIG_WCE", "5.2.4: only with the feature", IGNORED,
         regs.write_cache_without_the_feature),
    Case("the write cache before FEATURES_OK", "3.1.1: not written before", IGNORED,
         regs.write_cache_before_features_ok),
    Case("a write cache without FLUSH", "5.2.5.2: writeback begins as 0", IGNORED,
         regs.write_cache_without_flush),
    Case("a load behind the configuration", CONFIG, IGNORED,
         load(mmio.CONFIG + 0x60, 4, ALL_ONES)),
    Case("a store behind the configuration", CONFIG, IGNORED,
         register(mmio.CONFIG + 0xF8, 0, 8)),
    Case("a store behind the window", "4.2.2.2: no other place", IGNORED,
         register(2 * mmio.SIZE, 1)),
)

REQUESTS = (
    Case("sector = capacity", BEYOND, IOERR, request(T_IN, SECTORS, into=512)),
    Case("the last sector and one more", BEYOND, IOERR, request(T_IN, LAST, into=1024)),
    Case("a write, half of it behind the end", BEYOND, IOERR,
         request(T_OUT, LAST, out=bytes(1024))),
    Case("sector 2^64 - 1", BEYOND, IOERR, request(T_IN, TOP - 1, into=512)),
    Case("a sector whose byte offset wraps to 0", BEYOND, IOERR,
         request(T_OUT, 1 << 55, out=bytes(512))),
    Case("a read of 1 byte", WHOLE, IOERR, request(T_IN, into=1)),
    Case("a write of 513 bytes", WHOLE, IOERR, request(T_OUT, out=bytes(513))),
    Case("a read of no bytes", WHOLE, OK, request(T_IN)),
    Case("a write of no bytes", WHOLE, OK, request(T_OUT)),
    Case("a write to a read-only disk", "5.2.6.2: IOERR", IOERR,
         regs.write_to_a_read_only_disk),
    Case("type 2 (a SCSI command)", UNKNOWN, UNSUPP, request(2, out=bytes(16), into=16)),
    Case("type 3", UNKNOWN, UNSUPP, request(3)),
    Case("type 10 (GET_LIFETIME), not offered", UNKNOWN, UNSUPP, request(10, into=8)),
    Case("type 14 (SECURE_ERASE), not offered", UNKNOWN, UNSUPP,
         request(14, out=SEGMENT.pack(0, 1, 0))),
    Case("type 2^31 - 1", UNKNOWN, UNSUPP, request(0x7FFF_FFFF)),
    Case("the old barrier flag", "5.2.6: no such flag any more", OK,
         request(T_BARRIER | T_IN, into=512)),
    Case("the header's reserved field", "5.2.6: reserved", OK, regs.reserved_field_of_the_header),
    Case("a flush of a sector, with data", "5.2.6.1: neither belongs there", OK,
         request(T_FLUSH, 1 << 60, out=bytes(512))),
    Case("GET_ID into 19 bytes", "5.2.6.1: 20 bytes", OK, request(T_GET_ID, into=19)),
    Case("GET_ID into 4096 bytes", "5.2.6.1: 20 bytes", OK, request(T_GET_ID, into=4096)),
    Case("GET_ID into nothing", "5.2.6.1: 20 bytes", OK, request(T_GET_ID)),
    Case("GET_ID into a readable buffer", "2.7.5.1: such a buffer is not written", OK,
         buffers(T_GET_ID, (DATA, 20, False))),
)

RANGES = (
    Case("a discard of no segment", SEGMENTS, IOERR, segments(DISCARD)),
    Case("a discard of 15 bytes", SEGMENTS, IOERR, segments(DISCARD, (0, 1, 0), cut_off=1)),
    Case("a discard of 17 bytes", SEGMENTS, IOERR,
         request(DISCARD, out=SEGMENT.pack(0, 1, 0) + b"\0")),
    Case("a discard of 33 segments", "5.2.6.1: up to max_discard_seg", UNSUPP,
         segments(DISCARD, *MANY)),
    Case("a discard with UNMAP", "5.2.6.2: UNSUPP", UNSUPP, segments(DISCARD, (0, 1, 1))),
    Case("a discard with an unknown flag", FLAGS, UNSUPP, segments(DISCARD, (0, 1, 2))),
    Case("a discard at the capacity", BEYOND, IOERR, segments(DISCARD, (SECTORS, 1, 0))),
    Case("a discard whose sector wraps", BEYOND, IOERR, segments(DISCARD, (TOP - 1, 2, 0))),
    Case("a discard of 2^32 - 1 sectors", BEYOND, IOERR, segments(DISCARD, (0, ALL_ONES, 0))),
    Case("one bad segment after two good ones", BEYOND, IOERR,
         regs.one_bad_segment_among_good_ones(ZEROES)),
    Case("an unknown flag on a range that is not there", FLAGS, UNSUPP,
         segments(ZEROES, (TOP - 1, 1, 0), (0, 1, 4))),
    Case("zeroes with unknown flags", FLAGS, UNSUPP, segments(ZEROES, (0, 1, 0xFFFF_FFFE))),
    Case("zeroes behind the capacity", BEYOND, IOERR, segments(ZEROES, (LAST, 2, 0))),
    Case("zeroes on no sector", "5.2.6: a range may be empty", OK, segments(ZEROES, (0, 0, 0))),
    Case("zeroes on ranges that overlap", "5.2.6: in any order", OK,
         segments(ZEROES, (8, 4, 0), (9, 8, 1)), writes=True),
    Case("a discard without the feature", "2.2.1: only what was accepted", UNSUPP,
         request_without(F_DISCARD, DISCARD, SEGMENT.pack(0, 1, 0))),
    Case("zeroes without the feature", "2.2.1: only what was accepted", UNSUPP,
         request_without(F_WRITE_ZEROES, ZEROES, SEGMENT.pack(0, 1, 0))),
)

# fmt: on

GROUPS = {
    "Chains of descriptors": CHAINS,
    "Addresses and lengths": ADDRESSES,
    "Headers and buffers": HEADERS,
    "Indirect tables": INDIRECT_TABLES,
    "The rings": RINGS,
    "Setting up queues": QUEUES,
    "Status and features": STATUS,
    "Registers, configuration, interrupts": REGISTERS,
    "Requests": REQUESTS,
    "Discards and zeroes": RANGES,
}
CASES = {case.deed: case for group in GROUPS.values() for case in group}
assert len(CASES) == sum(map(len, GROUPS.values())), "two cases of one name"


def as_markdown() -> str:
    """The table as the docs show it."""
    lines: list[str] = []
    for title, group in GROUPS.items():
        lines += [f"### {title}", "", "| The guest's deed | virtio 1.2 | answer |", "|---|---|---|"]
        for case in group:
            section, _, text = case.standard.partition(": ")
            lines.append(f"| {case.deed} | {section}: {text} | {case.answer.value} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())
