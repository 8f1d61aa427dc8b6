# SPDX-License-Identifier: GPL-2.0-only
"""Clusters that lie packed in a file: read together, packed and unpacked side by side.

    qcow2's compressed clusters, vmdk's grains of streamOptimized images

    a read    packed_run       the first one, and those behind it that one read gets, too
              co_read_packed   that read
              co_unpack        worker threads: each cluster to where the request wants it
    a write   packed_at_once   how much of a request
              co_pack          worker threads: each cluster by itself

R1  A packed cluster unpacks to one cluster at most, whatever the image says.
R2  What is read at once are clusters that follow one another in the disk and in the file, each
    beginning in what the one before may have, and no more than READ_AT_ONCE; or the first alone.
R3  A cluster that cannot be unpacked, or to less than is wanted of it, is marked (`is_bad`). Which
    words tell of it is the driver's business.
Who may call it: coroutines in the node's context.
"""

from __future__ import annotations

from block.core.compress import co_in_workers
from block.core.iov import iov_from_bytes, iov_slice, iov_to_bytes
from block.lean import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from block.core.compress import Codec
    from block.core.edge import BdrvChild
    from block.core.iov import Iov
    from block.core.node import BlockDriverState

READ_AT_ONCE = 2 << 20
PACK_AT_ONCE = 2 << 20
MIN_CLUSTERS = 4  # however large: so that all processors have something to do
MAX_CLUSTERS = 512


class Packed:
    """One packed cluster of a read: `nbytes` bytes from `inside` on go to `at` in the vector.

    `place` is where it begins in the file, `size` how many bytes it may have. `data` are these.
    """

    __slots__ = ("at", "data", "inside", "is_bad", "nbytes", "place", "size")

    def __init__(self, place: int, size: int, at: int, inside: int, nbytes: int) -> None:
        self.place = place
        self.size = size
        self.at = at
        self.inside = inside
        self.nbytes = nbytes
        self.data = memoryview(b"")
        self.is_bad = False


# -- reads


def packed_run(
    places: Iterable[tuple[int, int]], cluster_size: int, inside: int, nbytes: int
) -> list[Packed]:
    """The clusters of a read that begins `inside` the first one, as far as they lie together (R2).

    `places` are those of the first cluster and of what follows it in the disk: where it begins in
    the file, and how many bytes it may have.
    """
    run: list[Packed] = []
    at = 0
    for place, size in places:
        if run and not _follows(run, place, size):
            break
        part = min(cluster_size - inside, nbytes - at)
        run.append(Packed(place, size, at, inside, part))
        at, inside = at + part, 0
        if at == nbytes:
            break
    return run


def _follows(run: list[Packed], place: int, size: int) -> bool:
    """Whether a cluster of the file lies where one read gets it with those before."""
    last = run[-1]
    return last.place < place <= last.place + last.size and (
        place + size - run[0].place <= READ_AT_ONCE
    )


async def co_read_packed(file: BdrvChild, run: list[Packed]) -> None:
    """Reads what clusters that lie together may have."""
    start = run[0].place
    length = run[-1].place + run[-1].size - start
    data = memoryview(bytearray(length))
    await file.co_preadv(start, length, [data])
    for packed in run:
        at = packed.place - start
        packed.data = data[at : at + packed.size]


async def co_unpack(
    bs: BlockDriverState,
    codec: Callable[[], Codec],
    run: list[Packed],
    cluster_size: int,
    qiov: Iov,
) -> None:
    """Unpacks what is wanted of each cluster into a vector (R1, R3)."""
    await co_in_workers(bs, partial(_unpack_some, codec, cluster_size, qiov), run)


def _unpack_some(
    codec: Callable[[], Codec], cluster_size: int, qiov: Iov, run: Iterable[Packed]
) -> None:
    unpacker = codec()
    for packed in run:
        packed.is_bad = not _unpack(unpacker, packed, cluster_size, qiov)


def _unpack(codec: Codec, packed: Packed, cluster_size: int, qiov: Iov) -> bool:
    """Whether it could be; the whole one right where it belongs."""
    if packed.nbytes == cluster_size:
        views = iov_slice(qiov, packed.at, cluster_size)
        if len(views) == 1:
            return codec.unpack_into(packed.data, views[0])
    plain = memoryview(codec.unpack(packed.data, cluster_size))
    end = packed.inside + packed.nbytes
    if len(plain) < end:
        return False
    iov_from_bytes(qiov, packed.at, plain[packed.inside : end])
    return True


# -- writes


def packed_at_once(cluster_size: int) -> int:
    """How many bytes of a request are packed at once: whole clusters, not too few."""
    return min(max(PACK_AT_ONCE // cluster_size, MIN_CLUSTERS), MAX_CLUSTERS) * cluster_size


async def co_pack(
    bs: BlockDriverState, codec: Callable[[], Codec], pieces: Sequence[Iov]
) -> list[bytes]:
    """Packs each vector by itself; what is packed may be longer (qcow2_co_compress)."""
    packed = [b""] * len(pieces)
    await co_in_workers(bs, partial(_pack_some, codec, pieces, packed), range(len(pieces)))
    return packed


def _pack_some(
    codec: Callable[[], Codec], pieces: Sequence[Iov], packed: list[bytes], numbers: Iterable[int]
) -> None:
    packer = codec()
    for number in numbers:
        piece = pieces[number]
        packed[number] = packer.pack(piece[0] if len(piece) == 1 else iov_to_bytes(piece))
