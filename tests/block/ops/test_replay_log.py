# SPDX-License-Identifier: GPL-2.0-only
"""A log is replayed to any moment, and to what a power cut may leave."""

from __future__ import annotations

import io
import random

import pytest

from block.core.error import BlockError
from block.filters.blklogwrites.layout import DISCARD, FLUSH, Superblock, pack_entry
from block.ops.replay_log import ReplayLog


def log_of(*changes: tuple[int, bytes | int]) -> ReplayLog:
    """A log of (offset, data), (offset, bytes to discard) and (0, b"") for a flush."""
    sectors = [Superblock(len(changes)).pack()]
    for offset, data in changes:
        if isinstance(data, int):
            sectors.append(pack_entry(offset, data, DISCARD, 512))
        else:
            sectors += [pack_entry(offset, len(data), 0 if data else FLUSH, 512), data]
    return ReplayLog(b"".join(sectors))


def replayed(log: ReplayLog, upto: int, before: bytes = b"") -> bytes:
    image = io.BytesIO(before)
    log.replay(log.entries[:upto], image)
    return image.getvalue()


A, B, C = b"a" * 512, b"b" * 512, b"c" * 512 + b"d" * 512
FLUSHED = (0, b"")


def test_changes_come_back_up_to_a_moment() -> None:
    log = log_of((0, A), FLUSHED, (1024, B), (0, C))
    assert replayed(log, 0) == b""
    assert replayed(log, 2) == A
    assert replayed(log, 3) == A + bytes(512) + B
    assert replayed(log, 4) == C + B


def test_a_discard_reads_as_zeroes_and_what_nobody_wrote_as_before() -> None:
    log = log_of((0, 512), (2048, B))
    assert replayed(log, 1, C) == bytes(512) + C[512:]


def test_a_log_that_was_cut_off_is_refused() -> None:
    whole = log_of((0, A)).data
    for length in (512, 528, 1024, 1400):
        with pytest.raises(BlockError) as error:
            ReplayLog(bytes(whole[:length]))
        assert str(error.value) == "Failed to read log entry 0"


def test_what_was_flushed_survives_a_power_cut() -> None:
    log = log_of((0, A), FLUSHED, (512, B), FLUSHED, (1024, A), (1536, B))
    for seed in range(50):
        left = log.power_cut(6, random.Random(seed))
        assert left[:4] == log.entries[:4]
    assert [log.last_flush(at) for at in range(7)] == [0, 0, 2, 2, 4, 4, 4]


def test_what_was_not_flushed_may_be_lost_torn_or_come_in_another_order() -> None:
    log = log_of(FLUSHED, (0, A), (512, B), (1024, C))
    seen = set()
    for seed in range(300):
        image = io.BytesIO()
        log.replay(log.power_cut(4, random.Random(seed)), image)
        seen.add(image.getvalue())
    whole = A + B + C
    assert {b"", whole, A, bytes(512) + B, A + B, whole[:1536]} <= seen
    assert bytes(1536) + C[512:] in seen  # the second sector alone
    order = {
        tuple(entry.offset for entry in log.power_cut(4, random.Random(seed))[1:])
        for seed in range(300)
    }
    assert {(0, 512), (512, 0)} <= order
