# SPDX-License-Identifier: GPL-2.0-only
"""Serving a device's queues in an IOThread (hw/block/dataplane/virtio-blk.c).

    doorbell  -> ioeventfd -> IOThread: handle_queue -> tree of block drivers, in the same loop
    interrupt <- irqfd     <- IOThread: notify batch <- completion

The guest's doorbell and our interrupt go through the kernel; no request touches the main loop or
the big lock. Before the series the data plane had an I/O queue of its own and could serve raw
files only. Patch 19 lets it call the block layer, and for that moves the tree into the IOThread's
context.

Rules:
R1  `start` and `stop` are called in the main thread, under the big lock; everything between runs
    in the IOThread and takes the big lock nowhere.
R2  Order of start: interrupt, doorbells, tree, what an error had stopped, handlers, one kick. A
    request can be taken only when the tree is there to take it.
R3  Order of stop: handlers, tree, doorbells, the last notification, interrupt. The tree's move
    drains it, so every request completes, and the interrupt for it is not lost.
R4  Where the kernel has no irqfd or no ioeventfd for us the start fails, and the device is served
    inside its register writes until it starts again (as in QEMU; VirtioBlk.start).
R5  A doorbell that rings between the end of the handlers and the next start is not lost either:
    every start kicks.

What once went wrong (0a21ea3289, 2014): the data plane freed a request that the common completion
frees again. Here a request has one owner, the queue's table of requests (virtio_blk.py).
"""

from __future__ import annotations

from miniqemu.hw.virtio_serve import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.iothread import IOThread
    from block.core.backend import BlockBackend
    from miniqemu.hw.virtio_blk import VirtioBlk


class DataPlane(Service):
    """A device served by an IOThread (struct VirtIOBlockDataPlane)."""

    def __init__(self, device: VirtioBlk, blk: BlockBackend, iothread: IOThread) -> None:
        super().__init__(device, iothread.ctx)
        self.blk = blk
        self.iothread = iothread

    def start(self) -> None:
        """Moves the device into the IOThread (virtio_blk_data_plane_start; patch 19).

        Raises OSError when the kernel gives no irqfd or no ioeventfd; all is as before then.
        """
        transport = self.device.transport
        transport.set_guest_notifier(True)
        try:
            self.assign_doorbells()
        except OSError:
            transport.set_guest_notifier(False)
            raise
        self.move_tree_in()
        with self.ctx:
            self.running = True
            self.resubmit()
            self.attach_handlers()
        self.kick_all()

    def stop(self) -> None:
        """Moves the device back (virtio_blk_data_plane_stop; patch 19)."""
        with self.ctx:
            self.detach_handlers()
            self.running = False
        self.move_tree_out()
        self.unassign_doorbells()
        with self.ctx:
            self.flush_notifications()
        self.device.transport.set_guest_notifier(False)

    def move_tree_in(self) -> None:
        """The tree's nodes use the IOThread's loop from here on (patch 19)."""
        self.blk.set_aio_context(self.ctx)

    def move_tree_out(self) -> None:
        """Drains the tree and gives it back to the main loop (patch 19)."""
        self.blk.set_aio_context(self.device.transport.ctx_main)
