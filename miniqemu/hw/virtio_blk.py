# SPDX-License-Identifier: GPL-2.0-only
"""The virtio block device (virtio 1.2, section 5.2; QEMU's hw/block/virtio-blk.c).

    virtio_blk_io.py   its requests
    this               what it tells the driver of itself, and when it is served

Rules:
R1  Registers, start and stop belong to the main thread (virtio.py); `drained_begin` and
    `drained_end` to whoever drains.
R2  `_quiesced` is written by whoever drains and read where requests are taken. While it is not 0
    nothing is taken; what the driver adds meanwhile waits in the ring.
R3  What an error stopped (werror=stop) keeps its chain and waits in `stopped`; it starts again
    when the machine goes on, and is forgotten in a reset.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.backend import BlockDevOps
from block.core.report import warn_report
from miniqemu.hw import virtio_blk_layout as layout
from miniqemu.hw.dataplane import DataPlane
from miniqemu.hw.virtio_blk_conf import VirtioBlkConf
from miniqemu.hw.virtio_blk_io import BlkRequests
from miniqemu.hw.virtio_blk_layout import SECTOR
from miniqemu.hw.virtio_blk_request import NO_IOV, NO_STATUS, BlkRequest
from miniqemu.hw.virtio_serve import MainLoopService, Service
from miniqemu.hw.virtio_status import FEATURES_OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from miniqemu.hw.virtqueue import VirtQueue


class VirtioBlk(BlkRequests, BlockDevOps):
    """A disk (struct VirtIOBlock). `conf.blk` is its BlockBackend."""

    name = "virtio-blk"
    device_id = layout.DEVICE_ID

    def __init__(self, conf: VirtioBlkConf) -> None:
        super().__init__(conf)
        self._chosen: Service
        blk = conf.blk
        self._original_write_cache = blk.enable_write_cache
        self._take_permissions()
        blk.vm_stop = lambda: self.request_vm_stop("io-error")
        self.host_features |= conf.features(self.read_only)
        blk.set_dev_ops(self)

    def _take_permissions(self) -> None:
        """What we do to the node, and what others may (blkconf_apply_backend_options)."""
        perm = f.BLK_PERM_CONSISTENT_READ | (0 if self.read_only else f.BLK_PERM_WRITE)
        shared = f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE_UNCHANGED | f.BLK_PERM_RESIZE
        if self.conf.share_rw:
            shared |= f.BLK_PERM_WRITE
        self.blk.set_perm(perm, shared)

    # -- Configuration space ---------------------------------------------------------------

    def build_config(self) -> bytearray:
        """The fields that a driver reads (virtio_blk_update_config)."""
        self.capacity = self.blk.length // SECTOR
        return self.conf.config_space(self.capacity, self.blk.enable_write_cache)

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver turns the write cache on or off (virtio_blk_set_config)."""
        if not self.status & FEATURES_OK:  # 3.1.1: only read before
            return
        if offset != layout.CONFIG_OFFSETS["writeback"] or len(data) != 1:
            return
        if self.features & layout.F_CONFIG_WCE:
            self.blk.enable_write_cache = bool(data[0])
            self.config = self.build_config()

    def resize(self) -> None:
        """The node has another size; called in any context (virtio_blk_resize)."""
        self.transport.ctx_main.bh_schedule_oneshot(self.config_changed, owner=self)

    # -- Start and stop --------------------------------------------------------------------

    def plugged(self) -> None:
        """The device has a transport now: choose how to serve (virtio_blk_data_plane_create)."""
        conf = self.conf
        if conf.iothread is not None:
            self._chosen = DataPlane(self, conf.blk, conf.iothread)
        else:
            ioeventfd = conf.ioeventfd and self.transport.has_ioeventfd
            self._chosen = MainLoopService(self, self.transport.ctx_main, ioeventfd)
        self.service = self._chosen

    def negotiated(self) -> None:
        """A driver that cannot flush gets no write cache; one that can, but cannot set it, does.

        (virtio_blk_set_status; 5.2.5.2, which asks for the first also with CONFIG_WCE)
        """
        flushes = bool(self.features & layout.F_FLUSH)
        if not (flushes and self.features & layout.F_CONFIG_WCE):
            self.blk.enable_write_cache = flushes
            self.config = self.build_config()

    def start(self) -> None:
        """Serves the queues from here on (virtio_blk_set_status, DRIVER_OK)."""
        for requests, queue in zip(self._requests, self.queues, strict=True):
            if queue.ready and len(requests) != queue.num:
                requests[:] = [BlkRequest(self, queue, head) for head in range(queue.num)]
        self.blk.iostatus_reset()
        try:
            self.service.start()
        except OSError as error:
            warn_report(f"{self.name}: served without IOThread and ioeventfd, slowly: {error}")
            self.service = MainLoopService(self, self.transport.ctx_main, ioeventfd=False)
            self.service.start()

    def stop(self) -> None:
        """Serves them no more; nothing is in flight at return."""
        self.service.stop()
        self.service = self._chosen  # the next start may have more luck

    def drain(self) -> None:
        """Waits for what is in flight. Main thread."""
        self.blk.drain()

    def reset_device(self) -> None:
        """Forgets what an error had stopped (virtio_blk_reset)."""
        self.blk.drain()
        for queue in self.queues:
            self.queue_disabled(queue)
        self.blk.enable_write_cache = self._original_write_cache

    def queue_disabled(self, queue: VirtQueue) -> None:
        """Forgets the queue's requests; they will not be answered."""
        kept = []
        for request in self.stopped:
            if request.queue is queue:
                request.iov, request.status = NO_IOV, NO_STATUS
                queue.detach(request.head)
            else:
                kept.append(request)
        self.stopped = kept
        self._requests[queue.index].clear()

    def close(self) -> None:
        """Lets go of the BlockBackend."""
        self.blk.set_dev_ops(None)
        self.blk.vm_stop = None

    # -- Drained sections (BlockDevOps) ----------------------------------------------------

    def drained_begin(self) -> None:
        """Somebody wants the tree to stand still: take no more requests."""
        self._quiesced += 1

    def drained_end(self) -> None:
        """It may move again: look for what came meanwhile."""
        self._quiesced -= 1
        if not self._quiesced and self.started and self.service.running:
            self.service.kick_all()

    @property
    def takes_requests(self) -> bool:
        """Whether `handle_queue` would take something now."""
        return not self._quiesced and not self.broken

    def drained_poll(self) -> bool:
        """Whether we still have requests on their way; the backend counts them itself."""
        return False
