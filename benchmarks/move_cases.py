# SPDX-License-Identifier: GPL-2.0-only
"""How long it takes to move a tree to another loop, and how that grows with the tree.

* with 32 requests in flight: a move must wait for the slowest of them; what is measured is the
  time beyond that, from the last completion until the tree is at home in the other IOThread.
* for each node: trees of many nodes against trees of few. Where the figures are equal, the time is
  linear in the number of nodes. Wide: images that share one base; deep: a chain.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from statistics import median

from benchmarks.harness import Case, Other
from block.aio.iothread import IOThread
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.node import BlockDriverState
from block.core.open import blockdev_add

Build = Callable[[int], list[BlockDriverState]]

IN_FLIGHT = 32
LATENCY_NS = 3_000_000


def cases(quick: bool) -> list[Case]:
    """Returns the comparisons; the figures are milliseconds, and microseconds a node."""
    moves = 10 if quick else 40
    return [
        Case(
            name="a move with 32 requests in flight, beyond the slowest of them",
            unit="ms",
            better="lower",
            ours=functools.partial(beyond_the_slowest, moves),
            goal=1.0,
        ),
        _growth("wide", wide, 100, 1000, moves),
        _growth("deep", deep, 20, 200, moves),
    ]


def _growth(name: str, build: Build, few: int, many: int, moves: int) -> Case:
    return Case(
        name=f"a move of a {name} tree of {many:,} nodes",
        unit="µs a node",
        better="lower",
        ours=functools.partial(us_a_node, build, many, moves),
        others=(Other(f"{few} nodes", functools.partial(us_a_node, build, few, moves), 1.5),),
    )


class Moved:
    """A backend on a tree, and two IOThreads to move it between; closed by `with`."""

    def __init__(self, nodes: list[BlockDriverState]) -> None:
        self.blk = BlockBackend(f.BLK_PERM_CONSISTENT_READ)
        self.blk.insert_bs(nodes[0])
        self.nodes = nodes
        self.threads = [IOThread("move0"), IOThread("move1")]

    def __enter__(self) -> Moved:
        return self

    def __exit__(self, *exc: object) -> None:
        self.blk.unref()
        for bs in self.nodes:
            bs.unref()
        for thread in self.threads:
            thread.close()

    def move(self, turn: int) -> None:
        """Moves the tree to the other IOThread; even turns first."""
        self.blk.set_aio_context(self.threads[turn % 2].ctx)


def node(name: str, driver: str, **options: object) -> BlockDriverState:
    """Opens one read-only node."""
    return blockdev_add({"driver": driver, "node-name": name, "read-only": True, **options})


def wide(n: int) -> list[BlockDriverState]:
    """One base, and n - 1 images that share it."""
    nodes = [node("base", "null-co", size=1 << 20)]
    nodes += [node(f"over{number}", "raw", file="base") for number in range(n - 1)]
    return nodes


def deep(n: int) -> list[BlockDriverState]:
    """A chain."""
    options: dict[str, object] = {"driver": "null-co", "size": 1 << 20}
    for _ in range(n - 2):
        options = {"driver": "raw", "file": options}
    return [node("top", "raw", file=options)]


def beyond_the_slowest(moves: int) -> float:
    """Returns the median time in ms from the last completion to the end of the move."""
    below = {"driver": "null-aio", "size": 1 << 20, "latency-ns": LATENCY_NS}
    bs = node("moved", "raw", file=below)
    times_ms = []
    completed: list[int] = []
    buffer = [memoryview(bytearray(4096))]
    with Moved([bs]) as moved:
        blk = moved.blk
        for turn in range(moves):
            completed.clear()
            with blk.aio_context:
                for _ in range(IN_FLIGHT):
                    blk.aio_preadv(0, buffer, lambda ret: completed.append(time.perf_counter_ns()))
            moved.move(turn)
            times_ms.append((time.perf_counter_ns() - completed[-1]) / 1e6)
            assert len(completed) == IN_FLIGHT
    return median(times_ms)


def us_a_node(build: Build, n: int, moves: int) -> float:
    """Returns the time of the fastest of some moves of a tree of n nodes, divided by n.

    The fastest, since both loops' threads are part of each move: what else the machine does
    shows in the median, and says nothing about the number of nodes.
    """
    times_us = []
    with Moved(build(n)) as moved:
        for turn in range(moves):
            start = time.perf_counter_ns()
            moved.move(turn)
            times_us.append((time.perf_counter_ns() - start) / 1e3)
    return min(times_us) / n
