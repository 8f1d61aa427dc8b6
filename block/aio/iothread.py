# SPDX-License-Identifier: GPL-2.0-only
"""IOThreads (iothread.c): one thread that runs one context.

R1  The thread holds its context's lock all the time, but between two polls lets whoever waits
    for it have its turn.
R2  `stop` and `close` are for other threads. After `stop` the thread has ended; its context lives
    on until `close`, and belongs to whoever acquires it.
R3  While IOThreads live, Python switches threads quickly (switch_interval.py).

State that several threads write: the World's registry, under its lock; the entry of a thread in
`world.contexts` and `_running`, only by that thread after the start.
"""

from __future__ import annotations

from block.aio.context import AioContext
from block.aio.thread import report
from block.aio.world import World, the_world

POLL_MAX_NS = 400_000  # QEMU's is 32768; why ours is longer: docs/two-ways.md


class IOThread:
    """A thread with an event loop of its own (-object iothread,id=...).

    id           its name in the registry; unique among those that live
    poll_max_ns  how long it looks for work before it sleeps, at most (polling.py); 0: not at all
    poll_grow    by what that time is multiplied when it was too short; 0: by 2
    poll_shrink  by what it is divided when there was nothing; 0: at once to nothing, which is
                 QEMU's default. But then, after one long wait seven good ones pass without
    """

    def __init__(
        self,
        id: str,
        world: World | None = None,
        *,
        poll_max_ns: int = POLL_MAX_NS,
        poll_grow: int = 0,
        poll_shrink: int = 2,
    ) -> None:
        self.id = id
        self.world = world or the_world()
        self.ctx = AioContext(id, self.world)
        try:
            _register(self)
        except ValueError:
            self.ctx.close()
            raise
        self.ctx.set_poll_params(poll_max_ns, poll_grow, poll_shrink)
        self.ctx.disown()
        self._running = True
        self._thread = self.world.start_thread(f"iothread {id}", self._run)

    def _run(self) -> None:
        ctx = self.ctx
        me = self.world.current()
        self.world.contexts[me] = ctx
        try:
            with ctx:
                while self._running:
                    self._poll()
                    if ctx.lock.contended:  # R1
                        ctx.release()
                        ctx.acquire()
        finally:
            del self.world.contexts[me]

    def _poll(self) -> None:
        """One pass. A callback's exception is reported, and the others are still served."""
        try:
            self.ctx.poll(True)
        except Exception as error:
            report(error)

    def _quit(self) -> None:
        self._running = False

    def stop(self) -> None:
        """Ends the thread after the callbacks of its present pass (iothread_stop)."""
        if self._running:
            self.ctx.bh_schedule_oneshot(self._quit, owner=self)
        self._thread.join()

    def close(self) -> None:
        """Stops the thread, closes its context and leaves the registry (iothread_destroy)."""
        if self.ctx.closed:
            return
        self.stop()
        with self.ctx:
            self.ctx.close()
        _unregister(self)

    def __enter__(self) -> IOThread:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _register(iothread: IOThread) -> None:
    world = iothread.world
    with world.lock:
        if iothread.id in world.iothreads:
            raise ValueError(f"iothread {iothread.id!r} exists already")
        world.iothreads[iothread.id] = iothread
    world.shorten_switch_interval()


def _unregister(iothread: IOThread) -> None:
    world = iothread.world
    with world.lock:
        del world.iothreads[iothread.id]
    world.restore_switch_interval()


def get_iothread(id: str, world: World | None = None) -> IOThread | None:
    """Returns the living IOThread of that id (iothread_by_id)."""
    return (world or the_world()).iothreads.get(id)


def iothreads(world: World | None = None) -> list[IOThread]:
    """Returns the living IOThreads, in the order in which they were made."""
    return list((world or the_world()).iothreads.values())


def current_context(world: World | None = None) -> AioContext:
    """Returns the calling IOThread's context; in any other thread the main context.

    (qemu_get_current_aio_context)
    """
    world = world or the_world()
    return world.contexts.get(world.current()) or world.main_context


def thread_name(world: World | None = None) -> str:
    """Names the calling thread for a person: its IOThread's id, 'main', or else a number."""
    world = world or the_world()
    me = world.current()
    if me in world.contexts:
        return world.contexts[me].name
    return "main" if me == world.main_context.maker else f"thread {me}"


def _demo() -> None:
    from block.aio.demo import Timeline

    say = Timeline()
    with IOThread("io0") as demo_thread:
        demo_thread.ctx.bh_schedule_oneshot(lambda: say("a bottom half, in the IOThread"))
        with demo_thread.ctx as demo_ctx:
            say("we acquired its context: the IOThread waits")
            demo_ctx.bh_schedule_oneshot(lambda: say("another one, run by who is at home"))
            while demo_ctx.poll(False):
                pass
        try:
            demo_thread.ctx.poll(False)
        except AssertionError as error:
            say(error)


if __name__ == "__main__":
    _demo()
