# SPDX-License-Identifier: GPL-2.0-only
"""Our side of `qemu-img bench`: one process, one image, N requests, the time they took.

`python -m benchmarks.block_run IMAGE COUNT DEPTH read|write [SIZE AIO CACHE FORMAT]` prints the
seconds.
It does what img_bench() in QEMU's qemu-img.c does: COUNT requests of SIZE (4 KiB) at sequential
offsets that wrap at the image's end, DEPTH of them under way at any time, the next one submitted
from the callback of the last, all of them into one buffer; the clock runs from the first
submission to the last completion.

A process of its own, because the other side is one too: neither inherits a warm heap. The
collector is set as miniqemu sets it for a machine that has started.
"""

from __future__ import annotations

import gc
import mmap
import sys
import time

import block
from block.aio.world import the_world
from block.core.backend import BlockBackend


class Bench:
    """The state of one run (BenchData)."""

    def __init__(self, blk: BlockBackend, count: int, depth: int, write: bool, nbytes: int) -> None:
        self.size = blk.length
        self.left = count
        self.depth = depth
        self.in_flight = 0
        self.offset = 0
        self.nbytes = nbytes
        self.qiov = [memoryview(mmap.mmap(-1, nbytes))]
        self.submit = blk.aio_pwritev if write else blk.aio_preadv

    def done(self, ret: int) -> None:
        """Counts a request that completed, and starts the next (bench_cb)."""
        if ret < 0:
            raise OSError(-ret, "the request failed")
        self.left -= 1
        self.in_flight -= 1
        self.fill()

    def fill(self) -> None:
        """Submits until `depth` requests are under way, or none is left."""
        while self.left > self.in_flight and self.in_flight < self.depth:
            offset = self.offset
            self.in_flight += 1
            self.offset = (offset + self.nbytes) % self.size
            self.submit(offset, self.qiov, self.done)


def run(
    path: str,
    count: int,
    depth: int,
    write: bool,
    nbytes: int = 4096,
    aio: str = "threads",
    cache: str = "writeback",
    fmt: str = "raw",
) -> float:
    """Returns the seconds that `count` requests of `nbytes` bytes take."""
    options = {"file": {"aio": aio}}
    blk = block.open(path, options=options, format=fmt, read_only=not write, cache=cache)
    poll = the_world().main_context.poll
    bench = Bench(blk, count, depth, write, nbytes)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    start = time.perf_counter()
    bench.fill()
    while bench.left:
        poll(True)
    seconds = time.perf_counter() - start
    blk.close()
    return seconds


if __name__ == "__main__":
    image, requests, parallel, operation, *rest = sys.argv[1:]
    defaults = ("4096", "threads", "writeback", "raw")
    size, engine, mode, fmt = (*rest, *defaults[len(rest) :])
    write = operation == "write"
    print(run(image, int(requests), int(parallel), write, int(size), engine, mode, fmt))
