# SPDX-License-Identifier: GPL-2.0-only
"""Many requests of one size, so many at once (BenchData, bench_cb of qemu-img.c).

R1  The callback of each request submits the next. The offset goes on by `step`, and from the end
    of the image back to its beginning. All share one buffer, as QEMU's do.
R2  After every `flush_interval` requests there is a flush. With `drain` it waits for all that is
    in flight, and nothing new begins before it has ended.
Called in the main thread.
"""

from __future__ import annotations

import os

from block.core.align import blockalign
from block.core.error import BlockError
from block.core.wait import poll_while

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.backend import BlockBackend


class Bench:
    """The requests of one run; set the fields, then `run`.

    `count` requests of `size` bytes, `depth` of them at once: the first at `offset`, each `step`
    bytes behind the one before. What `writes` is full of `pattern`.
    """

    def __init__(self, blk: BlockBackend, count: int, depth: int, size: int) -> None:
        self.blk = blk
        self.image_size = max(1, blk.length)
        self.left = count
        self.depth = depth
        self.size = size
        self.step = size
        self.offset = 0
        self.writes = False
        self.flush_interval = 0
        self.drain = True
        self.pattern = 0
        self.in_flight = 0
        self.error = 0

    def run(self) -> None:
        """Sends all requests and waits for the last. Raises BlockError."""
        buffer = blockalign(self.size)
        if self.pattern:
            buffer[:] = bytes([self.pattern]) * self.size
        self.qiov = [buffer]
        self._submit()
        poll_while(self.blk.aio_context, lambda: self.left > 0 and not self.error)
        if self.error:
            self.blk.drain()
            raise BlockError(self.error, f"Failed request: {os.strerror(self.error)}")

    def _submit(self) -> None:
        """Keeps as many requests in flight as were asked for (R1)."""
        blk, qiov = self.blk, self.qiov
        send = blk.aio_pwritev if self.writes else blk.aio_preadv
        while self.left > self.in_flight < self.depth:
            offset = self.offset
            self.in_flight += 1
            self.offset = (offset + self.step) % self.image_size
            send(offset, qiov, self._done)

    def _done(self, ret: int) -> None:
        if ret < 0:
            self.error = self.error or -ret
            return
        remaining = self.left - self.in_flight
        self.left -= 1
        self.in_flight -= 1
        if self.flush_interval and remaining % self.flush_interval == 0:
            self._flush()
            if self.drain:
                return
        self._submit()

    def _flush(self) -> None:
        """Time for a flush: at once, or when nothing is in flight any more (R2)."""
        if not self.drain:
            self.blk.aio_flush(self._undrained_flush_done)
        elif not self.in_flight:
            self.blk.aio_flush(self._flush_done)

    def _flush_done(self, ret: int) -> None:
        if ret < 0:
            self.error = -ret
            return
        self._submit()

    def _undrained_flush_done(self, ret: int) -> None:
        if ret < 0:
            self.error = -ret
