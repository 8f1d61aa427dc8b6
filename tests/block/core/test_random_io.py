# SPDX-License-Identifier: GPL-2.0-only
"""Random requests against a plain bytearray: whatever the alignment, the bytes are right."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from block.core import flags as f
from tests.support.drivers import Disk, Outcome, Ram, ZeroRam, backend_on, pass_node, ram_node

SIZE = 64 * 1024
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


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(STEP, min_size=1, max_size=30),
    limits=LIMITS,
    sizes=st.lists(st.sampled_from([100, 512, 1000, 4096, 65536]), min_size=1, max_size=4),
    has_zeroes=st.booleans(),
    seed=st.integers(0, 255),
)
def test_the_bytes_are_right(
    steps: list[tuple[str, tuple[int, int]]],
    limits: dict[str, int],
    sizes: list[int],
    has_zeroes: bool,
    seed: int,
) -> None:
    disk = Disk(SIZE, **limits)
    model = bytearray(SIZE)
    driver: type[Ram] = ZeroRam if has_zeroes else Ram
    with backend_on(pass_node(ram_node(disk, driver=driver))) as blk:
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
            else:
                blk.flush()
        assert disk.data == model


@settings(max_examples=60, deadline=None)
@given(writes=st.lists(RANGE, min_size=2, max_size=12), align=st.sampled_from([512, 4096, 16384]))
def test_unaligned_writes_in_flight_together_end_as_one_order_of_them(
    writes: list[tuple[int, int]], align: int
) -> None:
    """Each byte holds what one of its writers wrote, and a byte without writers is untouched."""
    disk = Disk(SIZE, request_alignment=align)
    writers: list[set[int]] = [{0} for _ in range(SIZE)]
    outcomes = [Outcome() for _ in writes]
    with backend_on(ram_node(disk)) as blk:
        disk.parked = True
        for number, (offset, nbytes) in enumerate(writes):
            blk.aio_pwritev(offset, [memoryview(bytes([number + 1]) * nbytes)], outcomes[number])
            for at in range(offset, offset + nbytes):
                writers[at].discard(0)
                writers[at].add(number + 1)
        disk.release()
        blk.drain()
    assert [outcome.ret for outcome in outcomes] == [0] * len(writes)
    assert all(byte in allowed for byte, allowed in zip(disk.data, writers, strict=True))
