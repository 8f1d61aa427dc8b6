# SPDX-License-Identifier: GPL-2.0-only
"""As it was before 0a21ea3289: the data plane's way of completing a request frees it, too.

The block layer's answer comes to code that both ways of serving share (`_done`), and that frees the
request after its completion. Before they shared it the data plane had to do so itself.
"""

from __future__ import annotations

from block.aio.errors import UsedAfterFree
from miniqemu.hw.dataplane import DataPlane
from miniqemu.hw.virtio_blk_io import BlkRequests
from miniqemu.hw.virtio_blk_layout import S_OK, T_IN
from miniqemu.hw.virtio_blk_request import NO_IOV, NO_STATUS, BlkRequest


def complete(self: BlkRequests, request: BlkRequest, status: int) -> None:
    request.status[-1] = status
    written = request.nbytes + 1 if request.kind == T_IN and status == S_OK else 1
    queue = request.queue
    queue.push(request.head, written)
    self.service.notify(queue)
    if isinstance(self.service, DataPlane):
        free(request)


def _done(self: BlkRequest, ret: int) -> None:
    device = self.device
    request: BlkRequest | None = self
    while request is not None:
        following, request.next = request.next, None
        if ret >= 0:
            device.complete(request, S_OK)
            free(request)
        else:
            device.failed(request, -ret)
        request = following


def free(request: BlkRequest) -> None:
    """Is `g_slice_free`. What has let go of its status byte is free already."""
    if request.status is NO_STATUS:
        raise UsedAfterFree(f"the request with head {request.head} is freed twice")
    request.iov, request.status = NO_IOV, NO_STATUS


FORMS = {
    "miniqemu.hw.virtio_blk_io:BlkRequests.complete": complete,
    "miniqemu.hw.virtio_blk_request:BlkRequest._done": _done,
}
