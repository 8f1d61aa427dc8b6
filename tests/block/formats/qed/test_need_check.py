# SPDX-License-Identifier: GPL-2.0-only
"""The life of the NEED_CHECK bit, in virtual time: set, kept, cleared, moved, drained."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import block
from block.aio.context import AioContext
from block.aio.world import ClockType
from block.core import drain
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.reopen import set_read_only
from block.formats.qed.need_check import TIMEOUT_NS
from tests.support.drivers import Outcome
from tests.support.qcow2_disk import FLUSH, Tape
from tests.support.qed_disk import NEED_CHECK, field, new_image, opened, state_of
from tests.support.virtual_tree import elsewhere, world
from tests.support.virtual_world import VirtualWorld

__all__ = ["elsewhere", "world"]

SIZE = 1 << 20
CLUSTER = 4096
EIO = BlockError(errno.EIO, "gone")


@pytest.fixture
def tape(tmp_path: Path, world: VirtualWorld) -> Tape:
    return Tape(new_image(tmp_path, SIZE, cluster_size=CLUSTER))


def dirty(tape: Tape) -> bool:
    """Whether the file says: check me."""
    return bool(field(tape.data, "features") & NEED_CHECK)


def let_pass(blk: BlockBackend, ns: int, work: Callable[[], Any] = lambda: None) -> None:
    """Lets time go by, and what is due be done."""
    with blk.aio_context as ctx:
        end = ctx.clock_ns(ClockType.VIRTUAL) + ns
        alarm = ctx.timer_new(ClockType.VIRTUAL, work)
        alarm.mod(end)
        while alarm.pending:
            ctx.poll(True)
        while ctx.poll(False):
            pass
        alarm.delete()


def test_the_bit_is_safe_before_the_first_table_changes(tape: Tape) -> None:
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        header, flush, data, *_ = tape.writes
    assert (header[0], flush) == (0, FLUSH)
    assert field(header[1], "features") == NEED_CHECK
    assert len(data[1]) == CLUSTER


def test_five_seconds_after_the_last_allocation_it_is_cleared(tape: Tape) -> None:
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        let_pass(disk, TIMEOUT_NS - 1)
        assert dirty(tape)
        let_pass(disk, 1)
        assert not dirty(tape)
        assert tape.writes[-3][0] == FLUSH[0], "what was written is safe first"
        assert [write[0] for write in tape.writes[-2:]] == [0, FLUSH[0]]


def test_each_allocation_begins_the_five_seconds_anew(tape: Tape) -> None:
    with opened(tape) as disk:
        for cluster in range(3):
            disk.pwrite(cluster * CLUSTER, b"x")
            let_pass(disk, TIMEOUT_NS - 1)
            assert dirty(tape)
        headers = [write for write in tape.writes if write[0] == 0]
        assert len(headers) == 1, "the bit is set once"
        let_pass(disk, 1)
        assert not dirty(tape)


def test_writes_in_place_change_nothing(tape: Tape) -> None:
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        let_pass(disk, TIMEOUT_NS // 2)
        disk.pwrite(1, b"y")
        let_pass(disk, TIMEOUT_NS // 2)
        assert not dirty(tape)
        disk.pwrite(0, b"z")
        assert not dirty(tape)


def test_it_comes_back_with_the_next_allocation(tape: Tape) -> None:
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        let_pass(disk, TIMEOUT_NS)
        assert not dirty(tape)
        disk.pwrite_zeroes(CLUSTER, CLUSTER)
        assert dirty(tape)


def test_the_timer_does_not_fire_while_somebody_allocates(tape: Tape) -> None:
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        tape.parked = True
        written = Outcome()
        disk.aio_pwritev(CLUSTER, [memoryview(b"y" * CLUSTER)], written)
        let_pass(disk, 2 * TIMEOUT_NS)
        assert written.pending
        let_pass(disk, 1, tape.release)
        let_pass(disk, TIMEOUT_NS // 2)
        assert written.ret == 0
        assert dirty(tape), "its five seconds have just begun"


def test_a_write_waits_while_the_bit_is_being_cleared(tape: Tape) -> None:
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        tape.parked = True
        let_pass(disk, TIMEOUT_NS)
        written = Outcome()
        disk.aio_pwritev(CLUSTER, [memoryview(b"y" * CLUSTER)], written)
        let_pass(disk, 1)
        assert written.pending
        let_pass(disk, 1, tape.release)
        let_pass(disk, 1)
        assert written.ret == 0
        assert dirty(tape), "the write has set it again"
        assert disk.pread(CLUSTER, 2) == b"yy"


@pytest.mark.parametrize("how", [drain.drained_begin, drain.subtree_drained_begin])
def test_a_drain_does_not_wait_five_seconds(
    tape: Tape, world: VirtualWorld, how: Callable[[Any], None]
) -> None:
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        before = world.clock_ns(ClockType.VIRTUAL)
        how(disk.bs)
        assert not dirty(tape)
        assert world.clock_ns(ClockType.VIRTUAL) == before
        ends = {
            drain.drained_begin: drain.drained_end,
            drain.subtree_drained_begin: drain.subtree_drained_end,
        }
        ends[how](disk.bs)  # type: ignore[arg-type]  # a disk has a node


def test_what_ends_during_a_drain_is_clean_when_it_is_over(tape: Tape) -> None:
    with opened(tape) as disk:
        tape.parked = True
        written = Outcome()
        disk.aio_pwritev(0, [memoryview(b"x" * CLUSTER)], written)
        disk.aio_context.bh_schedule_oneshot(tape.release)
        disk.drain()
        assert written.ret == 0
        assert not dirty(tape)
        timer = state_of(disk).need_check_timer
        assert timer is not None
        assert not timer.pending


def test_an_image_that_is_closed_is_clean(tape: Tape) -> None:
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        assert dirty(tape)
    assert not dirty(tape)


def test_with_a_backing_file_there_is_no_bit_but_a_flush(tape: Tape) -> None:
    with opened(tape, backing={"driver": "null-co", "read-zeroes": True}) as disk:
        disk.pwrite(0, b"x")
        disk.pwrite(CLUSTER, b"y")
        assert not dirty(tape)
        *_, data, flush, table = tape.writes
        assert (len(data[1]), flush, len(table[1])) == (CLUSTER, FLUSH, 512)


# -- where clearing or setting fails


def test_a_failed_flush_leaves_the_bit_until_the_next_allocation(tape: Tape) -> None:
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        tape.errors["flush"] = EIO
        let_pass(disk, 2 * TIMEOUT_NS)
        tape.errors.clear()
        let_pass(disk, 2 * TIMEOUT_NS)
        assert dirty(tape)
        disk.pwrite(CLUSTER, b"y")
        let_pass(disk, TIMEOUT_NS)
        assert not dirty(tape)


@pytest.mark.parametrize("written", [False, True])
def test_where_the_header_cannot_be_written_nobody_relies_on_the_bit(
    tape: Tape, written: bool
) -> None:
    """It may be gone from the disk all the same. So the next allocation sets it."""
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        tape.writes_left, tape.keeps = 0, written
        let_pass(disk, TIMEOUT_NS)
        tape.writes_left = None
        assert dirty(tape) != written
        disk.pwrite(CLUSTER, b"y")
        assert dirty(tape)
        let_pass(disk, TIMEOUT_NS)
        assert not dirty(tape)


@pytest.mark.parametrize("what", ["pwritev", "flush"])
def test_without_the_bit_nothing_is_allocated(tape: Tape, what: str) -> None:
    with opened(tape) as disk:
        length = len(tape.data)
        tape.errors[what] = EIO
        with pytest.raises(BlockError, match="gone"):
            disk.pwrite(0, b"x" * CLUSTER)
        assert len(tape.data) == length
        tape.errors.clear()
        disk.pwrite(0, b"y" * CLUSTER)
        assert dirty(tape)
        assert disk.pread(0, 1) == b"y"


def test_a_close_that_cannot_flush_leaves_the_bit(
    tape: Tape, capfd: pytest.CaptureFixture[str]
) -> None:
    class Stubborn(dict[str, OSError]):
        """The helper clears errors before it closes; these stay."""

        def clear(self) -> None:
            return

    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        tape.errors = Stubborn({"flush": EIO})
    assert dirty(tape)
    assert "the image stays marked for a check: gone" in capfd.readouterr().err


# -- moving (patch 11)


def test_a_move_leaves_nothing_in_the_old_loop(
    tape: Tape, world: VirtualWorld, elsewhere: AioContext
) -> None:
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        assert timers_of(world.main_context, disk) == 1
        disk.set_aio_context(elsewhere)
        assert not dirty(tape), "the move drains, and that clears the bit"
        assert timers_of(world.main_context, disk) == 0
        with elsewhere:
            assert timers_of(elsewhere, disk) == 1
            disk.pwrite(CLUSTER, b"y")
            assert dirty(tape)
        let_pass(disk, TIMEOUT_NS)
        assert not dirty(tape)
        disk.set_aio_context(world.main_context)


def test_an_armed_timer_fires_in_the_new_loop(
    tape: Tape, world: VirtualWorld, elsewhere: AioContext
) -> None:
    """The drain of the move could not clear the bit; so the timer moves armed."""
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        tape.errors["flush"] = EIO
        disk.set_aio_context(elsewhere)
        tape.errors.clear()
        assert dirty(tape)
        while world.main_context.poll(False):
            pass
        world.advance(TIMEOUT_NS)
        while world.main_context.poll(False):
            pass
        assert dirty(tape), "the old loop has nothing to do with it"
        let_pass(disk, 0)
        assert not dirty(tape)
        disk.set_aio_context(world.main_context)


def timers_of(ctx: AioContext, disk: BlockBackend) -> int:
    return sum(r.kind == "timer" for r in ctx.registrations(disk.bs))


# -- read-only


def test_a_dirty_image_that_is_read_only_is_left_alone(tape: Tape, tmp_path: Path) -> None:
    with opened(tape) as disk:
        disk.pwrite(0, b"x" * CLUSTER)
        crashed = bytes(tape.data)
    path = tmp_path / "crashed.qed"
    path.write_bytes(crashed)
    with block.open(os.fspath(path), format="qed", read_only=True) as disk:
        assert disk.pread(0, 1) == b"x"
        let_pass(disk, 2 * TIMEOUT_NS)
        assert disk.bs is not None
        with pytest.raises(BlockError, match=r"left dirty.*header.features: 0x2"):
            set_read_only(disk.bs, False)
    assert path.read_bytes() == crashed


def test_an_image_that_becomes_read_only_is_clean_then(tape: Tape) -> None:
    with opened(tape) as disk:
        disk.pwrite(0, b"x")
        assert disk.bs is not None
        disk.set_perm(disk.root.perm & ~0x0E if disk.root is not None else 0, 0x1F)
        set_read_only(disk.bs, True)
        assert not dirty(tape)
        set_read_only(disk.bs, False)
