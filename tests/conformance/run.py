# SPDX-License-Identifier: GPL-2.0-only
"""One run: a tree is used and moved, and audited after each move.

    open -> fill -> users begin -> [ move, audit, let requests complete ] x moves -> verify -> close

R1  Each run has a World of its own, so that what a broken driver leaves behind harms nobody: its
    coroutines are thrown away when it ends, not when Python collects them in another test.
R2  A run ends at its first finding, or when nothing has moved for PATIENCE seconds: then it says
    where each request waits. A finding may keep the main thread from the end (a request that was
    completed in a wrong thread is in flight for ever, to a drain), so after one it has HASTE
    seconds.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from block.aio.audit import waits_at
from block.aio.context import AioContext
from block.aio.coroutine import DONE, Coroutine
from block.aio.iothread import IOThread
from block.aio.world import World, set_world
from block.core import graph
from block.core.node import BlockDriverState
from block.core.open import blockdev_add
from block.core.wait import poll_while
from tests.conformance import probe
from tests.conformance.findings import Audit, Finding, Lost, driver_of, resumed_by
from tests.conformance.samples import Sample
from tests.conformance.trail import CHANGES, READS, Trail
from tests.conformance.trees import Site, Tree
from tests.conformance.users import Load

PATIENCE = 30.0
HASTE = 2.0
TICK = 0.1
SHARES = ((0.0, 0.5), (0.5, 1.0), (0.0, 1.0))  # two users with a region each, one with all
DEPTH = 2
PER_MOVE = (0, 0, 1, 2, 8)  # how many requests complete before the next move: often none
CHECK_IN_FLIGHT = 8  # so often there is an audit between moves, too, while requests are in flight
N_IOTHREADS = 3
MOST_LEFT = 1000  # passes of a loop that ends


class Result:
    """What a run has shown."""

    def __init__(self, driver: str, tree: str) -> None:
        self.driver = driver
        self.tree = tree
        self.moves = 0
        self.requests = 0
        self.seconds = 0.0
        self.lacks = ""
        self.findings: list[Finding] = []

    @property
    def verdict(self) -> str:
        if self.lacks:
            return f"cannot be: {self.lacks}"
        return "passed" if not self.findings else f"FAILED: {self.findings[0]}"


def run(sample: Sample, tree: Tree, moves: int, folder: Path, seed: int = 1) -> Result:
    """Moves a tree of a driver's node `moves` times while it is used."""
    result = Result(sample.driver, tree.name)
    result.lacks = tree.lacks(sample)
    if result.lacks:
        return result
    start = time.monotonic()
    with exceptions_caught(), fresh_world() as contexts:
        site = Site(folder, sample)
        try:
            Run(result, contexts, tree.build(site), sample.keeps_data, seed).go(moves)
        finally:
            site.close()
    result.seconds = time.monotonic() - start
    return result


@contextmanager
def fresh_world() -> Iterator[list[AioContext]]:
    """A World with audit on, a main loop and IOThreads, which are closed in the end (R1)."""
    world = World()
    before = set_world(world)
    world.audit = True
    nodes, backends = set(graph.all_states), set(graph.backends)
    try:
        with ExitStack() as stack:
            threads = [IOThread(f"io{n}") for n in range(N_IOTHREADS)]
            for thread in threads:
                stack.callback(end, thread)
            yield [world.main_context, *(thread.ctx for thread in threads)]
    finally:
        for bs in set(graph.all_states) - nodes:
            graph.forget_node(bs)
        for blk in set(graph.backends) - backends:
            graph.backends.pop(blk)
        with suppress(AssertionError):
            world.main_context.close()
        throw_away(world.coroutines)
        set_world(before)


def end(thread: IOThread) -> None:
    """Closes an IOThread, after what a broken driver has left in its thread pool."""
    thread.stop()
    with thread.ctx as ctx:
        ctx.thread_pool.end_workers()
        for _ in range(MOST_LEFT):
            with suppress(Exception):
                if not ctx.poll(False):
                    break
    thread.close()


def throw_away(coroutines: Iterable[Coroutine]) -> None:
    """Ends what a broken driver has left suspended, here and now (R1).

    None may go on: one that clears up may wake another.
    """
    left = [co for co in coroutines if not co.done]
    for co in left:
        co._state = DONE
    for co in left:
        with suppress(Exception):
            co._co.close()


@contextmanager
def exceptions_caught() -> Iterator[None]:
    """Puts back who is told of a thread's exceptions: a Run sets that for itself."""
    before = threading.excepthook
    try:
        yield
    finally:
        threading.excepthook = before


class Run:
    """A tree, its users, and the contexts to move among; the first is the main loop."""

    def __init__(
        self,
        result: Result,
        contexts: list[AioContext],
        options: dict[str, object],
        keeps_data: bool,
        seed: int,
    ) -> None:
        self.result = result
        self.contexts = contexts
        self.main = contexts[0]
        self.random = random.Random(seed)
        self.root = blockdev_add({"node-name": "root", **options})
        self.nodes = list(graph.component(self.root))
        self.audit = Audit(contexts, self.nodes)
        for bs in self.nodes:
            probe.watch(bs, self.strayed, self.served)
        self.trail = Trail()
        self.load = Load(self.root, self.seen, self.trail, seed, keeps_data)
        self.load.add_users(SHARES, DEPTH)
        self.load.waiter = self.main

    # -- what goes wrong

    def seen(self, kind: str, what: str, where: str = "") -> None:
        """A user has seen something wrong."""
        self.found(Finding(driver_of(self.root), kind, where, what))

    def strayed(self, bs: BlockDriverState, what: str) -> None:
        """A hook has ended in a wrong thread."""
        self.found(Finding(driver_of(bs), "wrong thread", resumed_by(), what))

    def served(self, bs: BlockDriverState, hook: str, asked: tuple[Any, ...], where: str) -> None:
        """A hook has ended well."""
        if bs is self.root and hook in (*READS, *CHANGES):
            self.trail.note(hook, asked[0], asked[1], bs.aio_context.name, where)

    def raised(self, args: threading.ExceptHookArgs) -> None:
        """A callback in an IOThread has raised."""
        if args.exc_value is not None and not isinstance(args.exc_value, Lost):
            self.found(self.audit.raised(args.exc_value))

    def found(self, *findings: Finding) -> None:
        """Takes down what is new, and wakes the main loop if it waits for the users."""
        known = self.result.findings
        known += [each for each in dict.fromkeys(findings) if each not in known]
        if findings:
            self.main.notify()

    def give_up(self) -> None:
        """Nothing moves any more: ends the main thread's wait, wherever that is; any thread."""
        for ctx in self.contexts:
            ctx.bh_schedule_oneshot(self._raise_lost, owner=Lost)

    def _raise_lost(self) -> None:
        raise Lost

    def lost(self) -> None:
        """Says what is where it should not be, and where each request waits (R2)."""
        self.found(*self.audit.leftovers(self.root.aio_context))
        for co in list(self.main.world.coroutines):
            if not co.done:
                where = waits_at(co)
                self.found(Finding(self.audit.driver_at(where), "lost", where, repr(co)))

    # -- the run

    def go(self, moves: int) -> None:
        """Does it all, and closes what can be closed."""
        threading.excepthook = self.raised
        try:
            with Watchdog(self.give_up, self.progress, self.patience):
                self._use_and_move(moves)
        except Lost:
            if not self.result.findings:
                self.lost()
        except Exception as error:  # a driver's callback in the main loop
            self.found(self.audit.raised(error))
        finally:
            self.result.requests = self.load.completed

    def progress(self) -> tuple[int, ...]:
        """What changes while the run goes on; after a finding nothing counts any more (R2)."""
        if self.result.findings:
            return ()
        return self.result.moves, self.load.completed

    def patience(self) -> float:
        """How long it may stay the same, in seconds."""
        return min(HASTE, PATIENCE) if self.result.findings else PATIENCE

    def _use_and_move(self, moves: int) -> None:
        self.load.fill()
        self.load.start()
        while self.result.moves < moves and not self.result.findings:
            self.let_complete(self.random.choice(PER_MOVE))
            if self.result.moves % CHECK_IN_FLIGHT == 0:
                self.check()
            if not self.result.findings:
                self.move()
                self.check()
        self.finish()

    def let_complete(self, n: int) -> None:
        """Lets the users have n more answers; if they are slow, the main loop sleeps."""
        self.load.wanted = self.load.completed + n
        self.wait_while(lambda: self.load.completed < self.load.wanted)

    def wait_while(self, condition: Callable[[], bool]) -> None:
        poll_while(self.main, lambda: not self.result.findings and condition())

    def move(self) -> None:
        home = self.root.aio_context
        self.root.set_aio_context(self.random.choice([c for c in self.contexts if c is not home]))
        self.result.moves += 1
        self.trail.moves += 1

    def check(self) -> None:
        """Asks all contexts what they hold."""
        home = self.root.aio_context
        self.found(*self.audit.leftovers(home))
        with home:
            self.found(*self.audit.strays(home))

    def finish(self) -> None:
        """Lets the requests end, compares the data, closes away from home, and audits once more."""
        self.load.stopping = True
        self.load.wanted = 0
        self.wait_while(lambda: self.load.in_flight > 0)
        if not self.result.findings:
            self.root.set_aio_context(self.contexts[-1])
            self.load.verify()
        self.load.close()
        self.root.unref()
        if not self.result.findings:
            self.found(*self.audit.leftovers(None))


class Watchdog:
    """Calls `give_up` from its own thread when `progress` stays the same for `patience` seconds."""

    def __init__(
        self,
        give_up: Callable[[], None],
        progress: Callable[[], object],
        patience: Callable[[], float],
    ) -> None:
        self.give_up = give_up
        self.progress = progress
        self.patience = patience
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog")

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        last, since = self.progress(), time.monotonic()
        while not self._end.wait(TICK):
            if (now := self.progress()) != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= self.patience():
                self.give_up()
                return
