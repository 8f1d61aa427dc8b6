# SPDX-License-Identifier: GPL-2.0-only
"""The requests of a virtio block device, from ring to status byte (hw/block/virtio-blk.c).

    handle_queue   takes all chains that are available, and starts their requests
    submit_...     one for each kind of request: a call of the BlockBackend
    complete       status byte, used ring, and a note to tell the driver

Data is not copied: the I/O vector that the block layer gets is slices of guest memory.

Rules:
R1  Requests are taken, started and completed in the thread of the service's context: the
    IOThread, the main loop, or (ioeventfd=off) a vCPU that holds the main context.
R2  While `_quiesced` is not 0 nothing is taken; what the driver adds meanwhile waits in the ring.
R3  A request that cannot be answered (no header, no status byte) breaks the device. Every other
    wrong request is answered: IOERR for a place that is not there, UNSUPP for an unknown kind.
R4  One call of handle_queue takes at most as many chains as the queue has; a driver that adds for
    ever has its next turn after the others in the loop.
R5  What an error stopped (werror=stop) keeps its chain and waits in `stopped`.
R6  While reads are answered at once, a driver that polls gets the first answers before we take the
    rest: a turn of handle_queue ends at its first read, the next after four more, then after 16.
    Those that go on where the last one ended do not count: a stream stays together and is merged.
    A turn takes all if the driver waits for an interrupt, whose way to it is longer than the turn;
    or if something is in flight: answers take their time. (Why: docs/two-ways.md.)
R7  What one turn starts reaches the kernel in one batch (aio=native, aio=io_uring): the backend is
    plugged meanwhile.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.accounting import READ, UNMAP, WRITE
from miniqemu.hw import virtio_blk_layout as layout
from miniqemu.hw.virtio import VirtioDevice
from miniqemu.hw.virtio_blk_conf import MAX_SEGMENTS, REQUEST_MAX_SECTORS, VirtioBlkConf
from miniqemu.hw.virtio_blk_layout import S_IOERR, S_OK, S_UNSUPP, SECTOR, T_IN, T_OUT
from miniqemu.hw.virtio_blk_request import (
    NO_IOV,
    NO_STATUS,
    BlkRequest,
    MalformedRequest,
    Segment,
    merge,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from miniqemu.hw.virtio_serve import Service
    from miniqemu.hw.virtqueue import Chain, VirtQueue

MERGE_MAX_REQUESTS = 32  # VIRTIO_BLK_MAX_MERGE_REQS
MERGE_MAX_READ = 64 << 10  # bytes; a longer read would lose the fast path (design, rule 13)
_NEEDED_FEATURE = {
    layout.T_DISCARD: layout.F_DISCARD,
    layout.T_WRITE_ZEROES: layout.F_WRITE_ZEROES,
}
_ACCOUNTED_AS = {T_IN: READ, T_OUT: WRITE, layout.T_WRITE_ZEROES: WRITE, layout.T_DISCARD: UNMAP}


class BlkRequests(VirtioDevice):
    """The part of a disk that its requests pass through (struct VirtIOBlock)."""

    def __init__(self, conf: VirtioBlkConf) -> None:
        self.conf = conf
        self.blk = blk = conf.blk
        super().__init__(conf.num_queues, conf.queue_size, blk.aio_context.world)
        self.service: Service
        self.stopped: list[BlkRequest] = []  # R5
        self.read_only = blk.read_only
        self.capacity = 0  # sectors
        self._requests: list[list[BlkRequest]] = [[] for _ in self.queues]
        self._batch: list[BlkRequest] = []  # reads or writes that may be merged
        self._quiesced = 0  # R2
        self._jumps = 0  # reads of this turn that did not go on where the last one ended (R6)
        self._stream_end = 0  # where the last read ended
        self._block_mask = conf.logical_block_size - 1
        self._sector_mask = conf.logical_block_size // SECTOR - 1

    # -- Taking requests -------------------------------------------------------------------

    def handle_output(self, queue: VirtQueue) -> None:
        """A doorbell in a vCPU's thread, ioeventfd=off (virtio_blk_handle_output)."""
        self.service.serve_here(queue)

    def handle_queue(self, queue: VirtQueue, jumps: int = 1) -> None:
        """Takes what is available (virtio_blk_handle_vq); `jumps` is how long a turn is (R6)."""
        if self._quiesced or not queue.ready:
            return
        budget = queue.num  # R4
        limit = budget if queue.in_use or queue.waited_for() else jumps
        self._jumps = 0
        more = False
        blk = self.blk
        blk.io_plug()  # R7
        try:
            while not (self.broken or more):
                queue.disable_notification()
                while budget and self._jumps < limit and (chain := queue.pop()) is not None:
                    budget -= 1
                    self._take(queue, chain)
                if not budget or queue.enable_notification():
                    break
                more = self._jumps >= limit
            if self._batch:
                self._submit_batch()
        finally:
            blk.io_unplug()
        if not budget:
            self.service.kick(queue)
        elif more:
            queue.disable_notification()
            self.service.go_on(queue, 4 * limit)

    def _take(self, queue: VirtQueue, chain: Chain) -> None:
        """Starts one request, or answers it at once (virtio_blk_handle_request)."""
        head, out, into = chain
        request = self._requests[queue.index][head]
        try:
            sector = request.parse(out, into)
        except MalformedRequest as error:
            request.status = NO_STATUS
            queue.detach(head)
            self.error(str(error))
            return
        kind = request.kind
        if kind == T_IN:
            self._take_read_write(request, sector, into)
        elif kind == T_OUT:
            self._take_read_write(request, sector, out)
        else:
            request.kind = kind = kind & ~layout.T_BARRIER
            self._take_other(request, kind, sector, out, into)

    def _take_other(
        self,
        request: BlkRequest,
        kind: int,
        sector: int,
        out: list[memoryview],
        into: list[memoryview],
    ) -> None:
        if kind in (T_IN, T_OUT):  # with a barrier's flag
            self._take_read_write(request, sector, out if kind else into)
        elif kind == layout.T_FLUSH:
            if self._batch:
                self._submit_batch()  # the flush covers what was written before it
            self.submit_flush(request)
        elif kind == layout.T_GET_ID:
            self._get_id(request, into)
        elif self.features & _NEEDED_FEATURE.get(kind, 0):
            self._take_segments(request, out)
        else:
            self.complete(request, S_UNSUPP)

    def _take_read_write(self, request: BlkRequest, sector: int, iov: list[memoryview]) -> None:
        nbytes = len(iov[0]) if len(iov) == 1 else sum(map(len, iov))
        write = request.kind
        if not self._in_range(sector, nbytes) or (write and self.read_only):
            self._refuse(request)
            return
        request.offset = sector * SECTOR
        request.nbytes = nbytes
        request.iov = iov
        if not nbytes:
            self.complete(request, S_OK)
            return
        if not write:
            self._jumps += request.offset != self._stream_end
            self._stream_end = request.offset + nbytes
        batch = self._batch
        if batch and (batch[0].kind != write or len(batch) >= MERGE_MAX_REQUESTS):
            self._submit_batch()
        batch.append(request)

    def _in_range(self, sector: int, nbytes: int) -> bool:
        """Whether a request is inside the disk and in whole blocks (virtio_blk_sect_range_ok)."""
        return (
            sector + nbytes // SECTOR <= self.capacity
            and not nbytes & self._block_mask
            and not sector & self._sector_mask
            and nbytes <= REQUEST_MAX_SECTORS * SECTOR
        )

    def _refuse(self, request: BlkRequest) -> None:
        self.blk.stats.invalid(_ACCOUNTED_AS[request.kind])
        self.complete(request, S_IOERR)

    def _get_id(self, request: BlkRequest, into: list[memoryview]) -> None:
        """The serial number, cut or padded to 20 bytes."""
        text = self.conf.serial.encode("utf-8", "surrogateescape")[: layout.ID_BYTES]
        left = text.ljust(layout.ID_BYTES, b"\0")
        for view in into:
            part = left[: len(view)]
            view[: len(part)] = part
            left = left[len(part) :]
        size = sum(map(len, into))
        # In a longer buffer the status does not follow the text at once: it does not count.
        request.kind = T_IN
        request.nbytes = min(size, layout.ID_BYTES) - (size > layout.ID_BYTES)
        self.complete(request, S_OK)

    def _take_segments(self, request: BlkRequest, out: list[memoryview]) -> None:
        """Discard and write zeroes (virtio_blk_handle_discard_write_zeroes)."""
        size = sum(map(len, out))
        if not size or size % layout.SEGMENT.size:
            self._refuse(request)
            return
        if size > MAX_SEGMENTS * layout.SEGMENT.size:
            self.complete(request, S_UNSUPP)
            return
        segments = list(layout.SEGMENT.iter_unpack(b"".join(out)))
        if not all(self._flags_known(request.kind, flags) for _, _, flags in segments):
            self.complete(request, S_UNSUPP)  # whatever else is wrong (5.2.6.2)
            return
        if not all(self._range_ok(request.kind, *where) for *where, _ in segments):
            self._refuse(request)
            return
        request.segments = [
            (sector * SECTOR, sectors * SECTOR, flags)
            for sector, sectors, flags in segments
            if sectors
        ]
        self.submit_segments(request)

    def _flags_known(self, kind: int, flags: int) -> bool:
        return not flags or (flags == layout.SEGMENT_UNMAP and kind == layout.T_WRITE_ZEROES)

    def _range_ok(self, kind: int, sector: int, sectors: int) -> bool:
        conf = self.conf
        zeroes = kind == layout.T_WRITE_ZEROES
        limit = conf.max_write_zeroes_sectors if zeroes else conf.max_discard_sectors
        return not self.read_only and sectors <= limit and self._in_range(sector, sectors * SECTOR)

    # -- Starting requests -----------------------------------------------------------------

    def _submit_batch(self) -> None:
        """Starts what was collected, neighbours as one (virtio_blk_submit_multireq)."""
        batch = self._batch
        if len(batch) == 1 or not self.conf.request_merging:
            for request in batch:
                self.submit_read_write(request, request.iov)
        else:
            limit = self.blk.max_transfer
            if batch[0].kind == T_IN and limit > MERGE_MAX_READ:
                limit = MERGE_MAX_READ
            runs = merge(batch, self.blk.max_iov, limit)
            if len(runs) < len(batch):
                self.blk.stats.merge_done(_ACCOUNTED_AS[batch[0].kind], len(batch) - len(runs))
            for request, iov in runs:
                self.submit_read_write(request, iov)
        batch.clear()

    def submit_read_write(self, request: BlkRequest, iov: list[memoryview]) -> None:
        """Hands a read or a write to the block layer (patch 19: instead of the IOQueue)."""
        if request.kind == T_IN:
            self.blk.aio_preadv(request.offset, iov, request.done)
        else:
            self.blk.aio_pwritev(request.offset, iov, request.done)

    def submit_flush(self, request: BlkRequest) -> None:
        """Flushes without blocking the loop (patch 21: instead of a blocking bdrv_flush)."""
        self.blk.aio_flush(request.done)

    def submit_segments(self, request: BlkRequest) -> None:
        """Discards or zeroes a request's ranges, all at once."""
        request.pending, request.error = len(request.segments), 0
        if not request.segments:
            self.complete(request, S_OK)
        for segment in request.segments:
            self._submit_segment(request, segment)

    def _submit_segment(self, request: BlkRequest, segment: Segment) -> None:
        offset, nbytes, flags = segment
        if request.kind == layout.T_DISCARD:
            self.blk.aio_pdiscard(offset, nbytes, request.segment_done)
        else:
            unmap = f.REQ_MAY_UNMAP if flags & layout.SEGMENT_UNMAP else 0
            self.blk.aio_pwrite_zeroes(offset, nbytes, request.segment_done, unmap)

    def resubmit(self) -> None:
        """Starts again what an error had stopped (virtio_blk_process_queued_requests)."""
        stopped, self.stopped = self.stopped, []
        for request in stopped:
            if request.kind in (T_IN, T_OUT):
                self.submit_read_write(request, request.iov)
            elif request.kind == layout.T_FLUSH:
                self.submit_flush(request)
            else:
                self.submit_segments(request)

    # -- Completion ------------------------------------------------------------------------

    def complete(self, request: BlkRequest, status: int) -> None:
        """Answers a request (virtio_blk_req_complete).

        The used length is what was certainly written from the start of the chain's writable
        part (2.7.8.2): data and status after a good read, else at most the status.
        """
        request.status[-1] = status
        written = request.nbytes + 1 if request.kind == T_IN and status == S_OK else 1
        request.iov, request.status = NO_IOV, NO_STATUS
        queue = request.queue
        queue.push(request.head, written)
        self.service.notify(queue)

    def failed(self, request: BlkRequest, error: int) -> None:
        """A request came back with an errno (virtio_blk_handle_rw_error)."""
        is_read = request.kind == T_IN
        action = self.blk.get_error_action(is_read, error)
        if action == "stop":
            self.stopped.append(request)
        else:
            self.complete(request, S_OK if action == "ignore" else S_IOERR)
        self.blk.error_action(action, is_read, error)
