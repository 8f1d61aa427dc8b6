# SPDX-License-Identifier: GPL-2.0-only
"""Requests of a quorum beyond the vote: side by side, first come, comparing, mending, status."""

from __future__ import annotations

import errno

import pytest

from block.aio.context import AioContext
from block.core import flags as f
from block.core.error import BlockError
from block.core.verify import ContentsMismatch
from tests.support.drivers import Disk, FastRam, Outcome, ZeroRam
from tests.support.voters import SIZE, Voters


def until(main: AioContext, *outcomes: Outcome) -> None:
    """Runs the main loop until all callbacks have come."""
    while any(outcome.pending for outcome in outcomes):
        main.poll(True)


def settle(main: AioContext) -> None:
    """Runs the main loop as far as it goes by itself."""
    while main.poll(False):
        pass


# -- side by side


@pytest.mark.parametrize("kind", ["read", "write", "flush"])
def test_all_children_are_asked_before_one_has_answered(kind: str, main: AioContext) -> None:
    with Voters("AAA") as voters:
        voters.blk.pwrite(0, b"x")
        for disk in voters.disks:
            disk.log.clear()
            disk.parked = True
        outcome = Outcome()
        if kind == "read":
            voters.blk.aio_preadv(0, [memoryview(bytearray(512))], outcome)
        elif kind == "write":
            voters.blk.aio_pwritev(0, [memoryview(bytes(512))], outcome)
        else:
            voters.blk.aio_flush(outcome)
        settle(main)
        assert [len(disk.log) for disk in voters.disks] == [1, 1, 1]
        for disk in reversed(voters.disks):
            assert outcome.pending
            disk.release()
            settle(main)
        assert outcome.ret == 0


def test_the_slowest_child_keeps_the_answer_back_even_where_two_have_decided(
    main: AioContext,
) -> None:
    with Voters("AAB") as voters:
        voters.disks[2].parked = True
        outcome, buffer = Outcome(), bytearray(512)
        voters.blk.aio_preadv(0, [memoryview(buffer)], outcome)
        settle(main)
        assert outcome.pending
        assert buffer == bytes(512)
        voters.disks[2].release()
        until(main, outcome)
        assert buffer == b"A" * 512


def test_an_answer_is_spread_over_the_views_of_a_vector() -> None:
    with Voters("ABA") as voters:
        voters.disks[0].data[300:304] = voters.disks[2].data[300:304] = b"1234"
        views = [bytearray(302), bytearray(210)]
        voters.blk.preadv_into(0, list(map(memoryview, views)))
        assert (views[0][-2:], views[1][:3]) == (b"12", b"34A")


# -- fifo


@pytest.mark.parametrize(
    ("letters", "outcome", "told"),
    [
        ("ABC", "A", []),
        ("!BC", "B", [0]),
        ("!$C", "C", [0, 1]),
        ("!$!", errno.EIO, [0, 1, 2]),
        ("!!$", errno.ENOSPC, [0, 1, 2]),
    ],
)
def test_with_fifo_the_first_child_that_can_answers(
    letters: str, outcome: str | int, told: list[int]
) -> None:
    with Voters(letters, 3, read_pattern="fifo") as voters:
        if isinstance(outcome, int):
            with pytest.raises(BlockError) as error:
                voters.blk.pread(0, 512)
            assert error.value.errno == outcome
        else:
            assert voters.blk.pread(0, 512) == outcome.encode() * 512
        assert [(kind, child) for kind, child, _ in voters.told] == [("read", n) for n in told]
        asked = [len(disk.asked("preadv")) for disk in voters.disks]
        last = "ABC".find(str(outcome)) if isinstance(outcome, str) else 2
        assert asked == [1] * (last + 1) + [0] * (2 - last)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize(
    ("letters", "pattern", "at_once", "again"),
    [
        ("AAA", "fifo", [1, 0, 0], [0, 0, 0]),
        ("AAA", "quorum", [1, 1, 1], [0, 0, 0]),
        ("AAB", "quorum", [1, 1, 1], [1, 1, 1]),
        ("BAA", "quorum", [1, 1, 0], [1, 1, 1]),
        ("A!A", "quorum", [1, 0, 0], [1, 1, 1]),
    ],
)
def test_answers_that_are_there_and_alike_need_no_coroutine(
    letters: str,
    pattern: str,
    at_once: list[int],
    again: list[int],
    views: int,
    main: AioContext,
) -> None:
    with Voters(letters, driver=FastRam, read_pattern=pattern) as voters:
        outcome, buffer = Outcome(), bytearray(1024)
        whole = memoryview(buffer)
        voters.blk.aio_preadv(0, [whole] if views == 1 else [whole[:300], whole[300:]], outcome)
        until(main, outcome)
        assert buffer == b"A" * 1024
        assert [len(disk.asked("try_preadv")) for disk in voters.disks] == at_once
        assert [len(disk.asked("preadv")) for disk in voters.disks] == again


def test_with_fifo_writes_still_need_their_votes() -> None:
    with Voters("A!", 2, ("pwritev",), read_pattern="fifo") as voters:
        with pytest.raises(BlockError):
            voters.blk.pwrite(0, bytes(512))
        assert voters.told[-1] == ("failure", "disk0")


# -- blkverify mode


def test_blkverify_mode_raises_the_offset_of_the_first_byte_that_differs() -> None:
    with Voters("AA", blkverify=True) as voters:
        voters.disks[1].data[5000] = voters.disks[1].data[5001] = 0
        assert voters.blk.pread(0, 5000) == b"A" * 5000
        with pytest.raises(ContentsMismatch) as error:
            voters.blk.pread(4096, 4096)
        assert str(error.value) == "quorum: offset=4096 bytes=4096 contents mismatch at offset 5000"
        assert error.value.offset == 5000
        assert voters.told == []


# -- mending


@pytest.mark.parametrize(
    ("letters", "threshold", "after"),
    [
        ("AAB", 2, "AAA"),
        ("BAA", 2, "AAA"),
        ("ABC", 1, "CCC"),
        ("AABCA", 3, "AAAAA"),
        ("ABC", 2, "ABC"),  # nobody won
        ("A!B", 1, "B!B"),  # who cannot be read is not written to
    ],
)
def test_rewrite_corrupted_mends_what_was_outvoted_and_no_more(
    letters: str, threshold: int, after: str
) -> None:
    with Voters(letters, threshold, rewrite_corrupted=True) as voters:
        if after == "ABC":
            with pytest.raises(BlockError):
                voters.blk.pread(1024, 512)
        else:
            voters.blk.pread(1024, 512)
        for disk, before, now in zip(voters.disks, letters, after, strict=True):
            if before != "!":
                assert disk.data[1024:1536] == now.encode() * 512
                assert disk.data[:1024] == before.encode() * 1024
                assert disk.data[1536:] == before.encode() * (SIZE - 1536)
            assert len(disk.asked("pwritev")) == (before != now)


def test_without_it_nothing_is_mended() -> None:
    with Voters("AAB") as voters:
        voters.blk.pread(0, 512)
        assert voters.disks[2].data == b"B" * SIZE


def test_a_child_that_cannot_be_mended_is_outvoted_the_next_time_too() -> None:
    with Voters("AAB", rewrite_corrupted=True) as voters:
        voters.disks[2].errors["pwritev"] = BlockError(errno.EIO)
        for _ in range(2):
            assert voters.blk.pread(0, 512) == b"A" * 512
        assert voters.told == [("read", 2, None)] * 2


class SlowWrites(Disk):
    """Only writes wait while it is parked."""

    async def note(self, name: str, *args: object) -> None:
        self.log.append((name, *args))
        while self.parked and name == "pwritev":
            await self.queue.wait()


def test_a_copy_that_is_merely_behind_gets_no_old_bytes_after_new_ones(main: AioContext) -> None:
    """A write has reached one child of three when somebody reads: two say what was."""
    with Voters("AAA", disk=SlowWrites, rewrite_corrupted=True) as voters:
        ahead, *behind = voters.disks
        for disk in behind:
            disk.parked = True
        written, read, buffer = Outcome(), Outcome(), bytearray(512)
        voters.blk.aio_pwritev(0, [memoryview(b"N" * 512)], written)
        settle(main)
        assert ahead.data[:512] == b"N" * 512
        voters.blk.aio_preadv(0, [memoryview(buffer)], read)
        settle(main)
        assert (written.pending, read.pending) == (True, True)
        for disk in behind:
            disk.release()
        until(main, written, read)
        assert buffer == b"N" * 512
        assert [bytes(disk.data[:512]) for disk in voters.disks] == [b"N" * 512] * 3
        assert [len(disk.asked("pwritev")) for disk in voters.disks] == [1, 1, 1]
        assert voters.told == []


def test_a_write_that_comes_while_a_copy_is_mended_waits_for_that(main: AioContext) -> None:
    with Voters("AAB", disk=SlowWrites, rewrite_corrupted=True) as voters:
        wrong = voters.disks[2]
        wrong.parked = True
        read, written = Outcome(), Outcome()
        voters.blk.aio_preadv(0, [memoryview(bytearray(512))], read)
        settle(main)
        voters.blk.aio_pwritev(0, [memoryview(b"N" * 512)], written)
        settle(main)
        assert [len(disk.asked("pwritev")) for disk in voters.disks] == [0, 0, 1]
        wrong.release()
        until(main, read, written)
        assert [bytes(disk.data[:512]) for disk in voters.disks] == [b"N" * 512] * 3


# -- zeroes, discard, status, length


def test_zeroes_go_down_as_zeroes_and_a_discard_goes_nowhere() -> None:
    with Voters("AA", driver=ZeroRam) as voters:
        voters.blk.pwrite_zeroes(512, 1024)
        voters.blk.pdiscard(0, 4096)
        for disk in voters.disks:
            assert [entry[:3] for entry in disk.log if entry[0] != "drain_begin"][-1:] == [
                ("pwrite_zeroes", 512, 1024)
            ]
            assert disk.data[511:513] == b"A\0"
            assert disk.asked("pdiscard") == []


class Holes(ZeroRam):
    """Its status says zeroes where its bytes are, in runs of 512."""

    format_name = protocol_name = "holes"

    async def co_block_status(self, bs, want_zero, offset, nbytes):  # type: ignore[no-untyped-def]  # as the driver's
        if "status" in bs.opaque.errors:
            raise bs.opaque.errors["status"]
        data = bs.opaque.data
        first, end = any(data[offset : offset + 512]), offset
        while end < offset + nbytes and any(data[end : end + 512]) == first:
            end += 512
        flag = f.BDRV_BLOCK_DATA if first else f.BDRV_BLOCK_ZERO
        return flag | f.BDRV_BLOCK_OFFSET_VALID, end - offset, offset, bs


@pytest.mark.parametrize(
    ("maps", "answer"),
    [
        # one letter for each 512 bytes of a child: 0 zeroes, A data
        (["0000", "0000"], ("zero", 2048)),
        (["00AA", "000A"], ("zero", 1024)),
        (["AA00", "AAA0"], ("data", 1536)),
        (["AAA0", "AA00"], ("data", 1536)),
        (["0000", "A000"], ("data", 512)),
        (["000A", "AA00"], ("data", 1024)),
        (["0000", "!"], ("data", 2048)),
    ],
)
def test_zeroes_are_what_all_children_say_and_data_what_one_says(
    maps: list[str], answer: tuple[str, int]
) -> None:
    with Voters("AA", driver=Holes) as voters:
        for disk, pieces in zip(voters.disks, maps, strict=True):
            if pieces == "!":
                disk.errors["status"] = BlockError(errno.EIO)
                continue
            for n, piece in enumerate(pieces):
                disk.data[n * 512 : n * 512 + 512] = (b"A" if piece == "A" else b"\0") * 512
        ret, pnum, _, file = voters.bs.block_status(0, 2048)
        kind = "zero" if ret & f.BDRV_BLOCK_ZERO else "data"
        assert (kind, pnum, file) == (*answer, None)
        assert [it[0] for it in voters.told] == ["read"] * maps.count("!")


def test_the_disk_cannot_be_resized() -> None:
    with Voters("AA") as voters:
        with pytest.raises(BlockError) as error:
            voters.blk.truncate(SIZE * 2)
        assert str(error.value) == "Image format driver does not support resize"
        assert [len(disk.data) for disk in voters.disks] == [SIZE, SIZE]
