# SPDX-License-Identifier: GPL-2.0-only
"""One request of a virtio-blk driver, from its chain to its status byte (QEMU's VirtIOBlockReq).

There is one object for each head of a queue, made when the queue starts and used again and again:
a head is in flight at most once, which `VirtQueue.pop` makes sure of. What a request is comes
from the guest; the guest may change its memory at any time, so each field is read once.

Rules:
R1  `iov` and `status` are windows on guest memory. They are let go of at completion.
R2  A request belongs to the thread of the device's context. It is completed once, by `done`
    or by `complete`.
"""

from __future__ import annotations

from block.lean import attrgetter
from miniqemu.hw.virtio_blk_layout import REQUEST_HEADER, S_OK, T_IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from miniqemu.hw.virtio_blk import VirtioBlk
    from miniqemu.hw.virtqueue import VirtQueue

NO_IOV: list[memoryview] = []
NO_STATUS = memoryview(bytearray(1))
_by_offset = attrgetter("offset")

# A range of a discard or write-zeroes request: offset and length in bytes, flags.
Segment = tuple[int, int, int]


class MalformedRequest(Exception):
    """A chain that has no place for a header or a status: nothing can be answered."""


class BlkRequest:
    """A request in flight; `offset` and `nbytes` in bytes."""

    __slots__ = (
        "device", "done", "error", "head", "iov", "kind", "nbytes", "next", "offset", "pending",
        "queue", "segments", "started_ns", "status",
    )  # fmt: skip

    def __init__(self, device: VirtioBlk, queue: VirtQueue, head: int) -> None:
        self.device = device
        self.queue = queue
        self.head = head
        self.kind = T_IN
        self.offset = self.nbytes = 0
        self.iov = NO_IOV
        self.status = NO_STATUS
        self.segments: list[Segment] = []
        self.next: BlkRequest | None = None  # the one that was merged behind this (mr_next)
        self.pending = self.error = self.started_ns = 0
        self.done = self._done  # bound once, for all requests with this head

    def parse(self, out: list[memoryview], into: list[memoryview]) -> int:
        """Cuts header and status off a chain's buffers; returns the header's sector.

        Sets `kind` and `status`; what is left in `out` and `into` is data. Header and data
        may be cut into descriptors anywhere (2.7.4). MalformedRequest where they are missing.
        """
        if not into:
            raise MalformedRequest("a request without a place for its status")
        last = self.status = into[-1]  # the status byte is the last one of all
        if len(last) == 1:
            into.pop()
        else:
            into[-1] = last[:-1]
        header = out[0] if out else NO_STATUS
        size = len(header)
        if size < REQUEST_HEADER.size:
            header = memoryview(_take(out, REQUEST_HEADER.size))
        elif size == REQUEST_HEADER.size:
            del out[0]
        else:
            out[0] = header[REQUEST_HEADER.size :]
        self.kind, _, sector = REQUEST_HEADER.unpack_from(header)
        return sector  # type: ignore[no-any-return]  # the format says that it is an int

    def segment_done(self, ret: int) -> None:
        """One of a request's ranges is done; the last one completes the request."""
        self.pending -= 1
        if ret < 0:
            self.error = ret
        if not self.pending:
            self.done(self.error)

    def _done(self, ret: int) -> None:
        """The block layer's answer, 0 or -errno (virtio_blk_rw_complete and its like)."""
        device = self.device
        request: BlkRequest | None = self
        while request is not None:
            following, request.next = request.next, None
            if ret >= 0:
                device.complete(request, S_OK)
            else:
                device.failed(request, -ret)
            request = following


def _take(out: list[memoryview], wanted: int) -> bytes:
    """Takes bytes from the front of an I/O vector (iov_to_buf, iov_discard_front)."""
    taken = b""
    while len(taken) < wanted:
        if not out:
            raise MalformedRequest("a request whose header is too short")
        first = out[0]
        part = first[: wanted - len(taken)]
        taken += part
        if len(part) == len(first):
            del out[0]
        else:
            out[0] = first[len(part) :]
    return taken


def merge(
    requests: list[BlkRequest], max_iov: int, max_bytes: int
) -> list[tuple[BlkRequest, list[memoryview]]]:
    """Joins neighbours on the disk: the first of each run, and the run's I/O vector.

    The others of a run hang behind its first one by `next` (virtio_blk_submit_multireq).
    """
    runs: list[tuple[BlkRequest, list[memoryview]]] = []
    last: BlkRequest | None = None
    nbytes = 0
    for request in sorted(requests, key=_by_offset):
        iov = request.iov
        nbytes += request.nbytes
        if (
            last is not None
            and request.offset == last.offset + last.nbytes
            and nbytes <= max_bytes
            and len(runs[-1][1]) + len(iov) <= max_iov
        ):
            runs[-1] = (runs[-1][0], runs[-1][1] + iov)
            last.next = request
        else:
            runs.append((request, iov))
            nbytes = request.nbytes
        last = request
    return runs
