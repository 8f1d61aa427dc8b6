# SPDX-License-Identifier: GPL-2.0-only
"""All extents of a slice at once, for those who walk over the whole disk (co_block_statuses).

R1  The answers are those that read.co_block_status would give one by one. Where one of them needs
    more than the slice (an entry that cannot be), there are none, and the caller asks for it.
R2  Entries that say nothing are skipped by `filter`; a loop in Python sees the others.
Who may call it: coroutines in the node's context.
"""

from __future__ import annotations

from itertools import compress

from block.core import flags as f
from block.formats.qcow2.cluster import SAME, bytes_without_table, load_slice
from block.formats.qcow2.layout import OFFSET_MASK, OFLAG_COMPRESSED, OFLAG_ZERO
from block.formats.qcow2.read import looks_hollow
from block.lean import or_, reduce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from block.core.node import BlockDriverState
    from block.core.status import Status
    from block.formats.qcow2.state import Qcow2State

PLACED = f.BDRV_BLOCK_OFFSET_VALID


async def co_block_statuses(bs: BlockDriverState, offset: int, nbytes: int) -> list[Status]:
    """What the slice for a guest offset says of the bytes from there on (R1)."""
    s: Qcow2State = bs.opaque
    if s.extended or s.external or s.crypt_method or offset & s.cluster_mask:
        return []
    async with s.lock:
        hollow = await looks_hollow(s)
        table = await load_slice(s, offset)
        if table is None:
            return [(0, bytes_without_table(s, offset, nbytes), 0, None)]
        index = s.slice_index(offset)
        clusters = min(s.slice_mask + 1 - index, s.clusters(nbytes))
        cells = table.cells[index : index + clusters]
    used = list(filter(None, cells))
    if not _possible(s, used):
        return []
    data = f.BDRV_BLOCK_DATA | PLACED | f.BDRV_BLOCK_RECURSE * hollow
    answers = _runs(s, data, clusters, compress(range(clusters), cells), used)
    last = answers[-1]
    cut = max(0, (clusters << s.cluster_bits) - nbytes)  # the last cluster may be a part of one
    answers[-1] = (last[0], last[1] - cut, last[2], last[3])
    return answers


def _possible(s: Qcow2State, used: list[int]) -> bool:
    """Whether all entries can be; what cannot, is complained about elsewhere (check_entry)."""
    bits = reduce(or_, used, 0)
    if bits & OFLAG_COMPRESSED or (bits & OFLAG_ZERO and s.version < 3):
        return False
    return not bits & OFFSET_MASK & s.cluster_mask


def _runs(
    s: Qcow2State, data: int, clusters: int, places: Iterable[int], used: list[int]
) -> list[Status]:
    """Entries that go on where the one before ends are one extent.

    `used` are those that are not 0, and `places` says where among all `clusters` they stand.
    `data` is what is said of data.
    """
    size, bits, file = s.cluster_size, s.cluster_bits, s.data.bs
    answers: list[Status] = []
    start = end = 0  # the run
    first = expected = 0  # its first entry, and how it would go on
    for at, entry in zip(places, map(SAME.__and__, used), strict=True):
        if at == end and entry == expected and end > start:
            end += 1
        else:
            if end > start:
                answers.append(_answer(data, first, end - start << bits, file))
            if at > end:
                answers.append((0, at - end << bits, 0, None))
            start, end, first, expected = at, at + 1, entry, entry
        if entry & OFFSET_MASK:
            expected = entry + size
    if end > start:
        answers.append(_answer(data, first, end - start << bits, file))
    if clusters > end:
        answers.append((0, clusters - end << bits, 0, None))
    return answers


def _answer(data: int, entry: int, nbytes: int, file: BlockDriverState) -> Status:
    """What an entry says of the run that begins with it."""
    host = entry & OFFSET_MASK
    if entry & OFLAG_ZERO:
        zero = f.BDRV_BLOCK_ZERO
        return (zero | PLACED, nbytes, host, file) if host else (zero, nbytes, 0, None)
    if host:
        return data, nbytes, host, file
    return 0, nbytes, 0, None
