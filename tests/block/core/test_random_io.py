# SPDX-License-Identifier: GPL-2.0-only
"""Random requests against a plain bytearray: whatever the alignment, the bytes are right.

No example takes longer than some milliseconds, and there is no phase that explains, so
that a failure is told in seconds, too.
"""

from __future__ import annotations

import itertools

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from block.core import flags as f
from block.core.node import BlockDriverState
from tests.support.drivers import Disk, Outcome, ZeroRam, backend_on, pass_node, ram_node

SIZE = 64 * 1024
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
RANGE = st.tuples(st.integers(0, SIZE), st.integers(0, 20000)).map(
    lambda pair: (pair[0], min(pair[1], SIZE - pair[0]))
)
STEP = st.tuples(st.sampled_from(["read", "write", "zeroes", "discard", "flush"]), RANGE)
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "request_alignment": st.sampled_from([1, 512, 4096]),
        "max_transfer": st.sampled_from([4096, 8192, 12288]),
        "max_iov": st.sampled_from([1, 2, 7]),
        "pwrite_zeroes_alignment": st.just(8192),
        "max_pwrite_zeroes": st.just(16384),
        "pdiscard_alignment": st.sampled_from([4096, 8192]),
        "max_pdiscard": st.just(8192),
    },
)


def cut(data: bytearray | bytes, sizes: list[int]) -> list[memoryview]:
    """Returns a buffer as a vector of views of these sizes, over and over."""
    view, views, at = memoryview(data), [], 0
    while at < len(view):
        size = sizes[len(views) % len(sizes)]
        views.append(view[at : at + size])
        at += size
    return views


def plain(disk: Disk) -> BlockDriverState:
    return ram_node(disk)


def with_zeroes(disk: Disk) -> BlockDriverState:
    return ram_node(disk, driver=ZeroRam)


def below_a_filter(disk: Disk) -> BlockDriverState:
    return pass_node(ram_node(disk))


@settings(max_examples=400, deadline=None, phases=PHASES)
@given(
    steps=st.lists(STEP, min_size=1, max_size=30),
    limits=LIMITS,
    sizes=st.lists(st.sampled_from([100, 512, 1000, 4096, 65536]), min_size=1, max_size=4),
    make=st.sampled_from([plain, with_zeroes, below_a_filter]),
    seed=st.integers(0, 255),
)
def test_the_bytes_are_right(
    steps: list[tuple[str, tuple[int, int]]],
    limits: dict[str, int],
    sizes: list[int],
    make: object,
    seed: int,
) -> None:
    disk = Disk(SIZE, **limits)
    model = bytearray(SIZE)
    assert callable(make)
    with backend_on(make(disk)) as blk:
        for number, (what, (offset, nbytes)) in enumerate(steps):
            if what == "read":
                buffer = bytearray(nbytes)
                blk.preadv_into(offset, cut(buffer, sizes))
                assert buffer == model[offset : offset + nbytes]
            elif what == "write":
                data = bytes((seed + number + i) % 251 for i in range(nbytes))
                blk.pwrite(offset, cut(data, sizes))
                model[offset : offset + nbytes] = data
            elif what == "zeroes":
                blk.pwrite_zeroes(offset, nbytes, f.REQ_MAY_UNMAP)
                model[offset : offset + nbytes] = bytes(nbytes)
            elif what == "discard":
                blk.pdiscard(offset, nbytes)
                if make is with_zeroes:  # the others have no discard
                    model[offset : offset + nbytes] = bytes(nbytes)
            else:
                blk.flush()
        assert disk.data == model


def stretches(writes: list[tuple[int, int]]) -> list[tuple[int, int, set[int]]]:
    """Cuts the disk where writers begin and end: (start, end, who may have been the last)."""
    cuts = sorted({0, SIZE, *(o for o, _ in writes), *(o + n for o, n in writes)})
    return [
        (start, end, {i + 1 for i, (o, n) in enumerate(writes) if o <= start < o + n} or {0})
        for start, end in itertools.pairwise(cuts)
    ]


@settings(max_examples=200, deadline=None, phases=PHASES)
@given(writes=st.lists(RANGE, min_size=2, max_size=12), align=st.sampled_from([512, 4096, 16384]))
def test_unaligned_writes_in_flight_together_end_as_one_order_of_them(
    writes: list[tuple[int, int]], align: int
) -> None:
    """Each stretch holds what one of its writers wrote; without writers it is untouched."""
    disk = Disk(SIZE, request_alignment=align)
    outcomes = [Outcome() for _ in writes]
    with backend_on(ram_node(disk)) as blk:
        disk.parked = True
        for number, (offset, nbytes) in enumerate(writes):
            blk.aio_pwritev(offset, [memoryview(bytes([number + 1]) * nbytes)], outcomes[number])
        disk.release()
        blk.drain()
    assert [outcome.ret for outcome in outcomes] == [0] * len(writes)
    for start, end, writers in stretches(writes):
        held = set(disk.data[start:end])
        assert len(held) == 1
        assert held <= writers
