# SPDX-License-Identifier: GPL-2.0-only
"""The context as a whole: who may use it, wake-ups, the audit, clean-up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial

import pytest

from block.aio.context import AioContext
from block.aio.errors import UsedAfterFree
from block.aio.iothread import IOThread, current_context, get_iothread, iothreads
from block.aio.world import ClockType, World, set_world, the_world
from tests.support import threads
from tests.support.descriptors import open_fds

STRANGER = r"'main' uses context 'io0'.*acquire it, or schedule"

FOR_HOME: dict[str, Callable[[AioContext], object]] = {
    "poll": lambda ctx: ctx.poll(False),
    "bh_new": lambda ctx: ctx.bh_new(lambda: None),
    "timer_new": lambda ctx: ctx.timer_new(ClockType.VIRTUAL, lambda: None),
    "set_fd_handler": lambda ctx: ctx.set_fd_handler(0, None, None),
    "set_event_notifier": lambda ctx: ctx.set_event_notifier(ctx._notifier, None),
    "disable_external": lambda ctx: ctx.disable_external(),
    "enable_external": lambda ctx: ctx.enable_external(),
    "prepare": lambda ctx: ctx.prepare(),
    "dispatch": lambda ctx: ctx.dispatch(),
    "end_prepare": lambda ctx: ctx.end_prepare(),
    "registrations": lambda ctx: ctx.registrations(),
    "thread_pool": lambda ctx: ctx.thread_pool,
    "disown": lambda ctx: ctx.disown(),
    "close": lambda ctx: ctx.close(),
}


@pytest.mark.parametrize("method", FOR_HOME)
def test_a_stranger_is_told_both_contexts(method: str) -> None:
    with IOThread("io0") as iothread, pytest.raises(AssertionError, match=STRANGER):
        FOR_HOME[method](iothread.ctx)


def test_timers_and_bottom_halves_belong_to_home_too() -> None:
    with IOThread("io0") as iothread:
        ctx = iothread.ctx
        with ctx:
            assert ctx.is_home()
            timer = ctx.timer_new(ClockType.VIRTUAL, lambda: None)
            bh = ctx.bh_new(lambda: None)
        assert not ctx.is_home()
        mod = partial(timer.mod, 0)
        calls: list[Callable[[], None]] = [timer.cancel, timer.delete, mod, bh.cancel, bh.delete]
        for call in calls:
            with pytest.raises(AssertionError, match=STRANGER):
                call()


def test_who_acquired_it_is_at_home_and_the_iothread_waits() -> None:
    ran = threading.Event()
    with IOThread("io0") as iothread:
        with iothread.ctx as ctx:
            ctx.bh_schedule_oneshot(ran.set)
            assert ctx.is_home()
            assert not ran.is_set()
        ran.wait()


def test_acquire_nests() -> None:
    with IOThread("io0") as iothread:
        ctx = iothread.ctx
        ctx.acquire()
        with ctx:
            assert ctx.is_home()
        assert ctx.is_home()
        ctx.release()
        assert not ctx.is_home()


def test_an_iothread_gives_way_again_and_again() -> None:
    """ca96ac44dc: a holder slept in poll without knowing that somebody waited for the lock."""
    with IOThread("io0") as iothread:
        for _ in range(300):
            with iothread.ctx as ctx:
                ctx.poll(False)


def test_two_threads_and_an_iothread_take_turns() -> None:
    inside: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            with iothread.ctx:
                inside.append(number)
                assert inside == [number]
                inside.pop()

    with IOThread("io0") as iothread:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert inside == []


def test_after_a_stranger_held_it_the_makers_wakeups_are_not_lost(world: World) -> None:
    ctx = AioContext("tested", world)
    ran: list[int] = []

    def hold() -> None:
        with ctx:
            ctx.bh_schedule_oneshot(lambda: ran.append(1))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    ctx.bh_schedule_oneshot(lambda: ran.append(2))
    assert ctx.poll(True)
    assert ran == [1, 2]
    assert ctx._awake == ctx._home  # and from now on they cost nothing again
    ctx.close()


class InterruptedLock:
    """A lock before whose taking something else happens, once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.before: Callable[[], None] | None = None

    def __enter__(self) -> bool:
        before, self.before = self.before, None
        if before is not None:
            before()
        return self.lock.__enter__()

    def __exit__(self, *exc: object) -> None:
        self.lock.release()


def test_a_notify_just_before_poll_says_that_it_sleeps_is_not_lost(ctx: AioContext) -> None:
    lock = InterruptedLock()

    def notify_from_elsewhere() -> None:
        thread = threading.Thread(target=ctx.notify)
        thread.start()
        thread.join()

    ctx._notify_lock = lock  # type: ignore[assignment]  # all that a context needs of one
    lock.before = notify_from_elsewhere
    assert not ctx.poll(True)  # instead of sleeping for ever


def test_notify_from_another_thread_ends_a_poll_that_sleeps(world: World) -> None:
    ctx = AioContext("tested", world)
    thread = threading.Thread(target=ctx.notify)
    thread.start()
    assert not ctx.poll(True)
    thread.join()
    ctx.close()


def test_ping_pong_of_two_loops_loses_no_wakeup() -> None:
    """eabc977973, 21a03d17f2: a skipped or eaten notify shows as a hang within a few thousand."""
    done = threading.Event()
    left = 5_000
    with IOThread("ping") as ping, IOThread("pong") as pong:

        def hit(there: IOThread, back: IOThread) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.set()
            else:
                there.ctx.bh_schedule_oneshot(lambda: hit(back, there))

        ping.ctx.bh_schedule_oneshot(lambda: hit(pong, ping))
        assert done.wait(60)


def test_no_syscall_is_made_to_wake_a_loop_that_does_not_sleep(ctx: AioContext) -> None:
    def notify() -> None:
        for _ in range(10):
            ctx.notify()

    thread = threading.Thread(target=notify)
    thread.start()
    thread.join()
    assert not ctx._notifier.test_and_clear()
    assert not ctx.poll(True)


def test_a_nested_poll_does_not_eat_the_outer_ones_wakeup(ctx: AioContext) -> None:
    """21a03d17f2: a notify that comes during the callbacks ends the next sleep."""

    def callback() -> None:
        ctx.poll(False)
        ctx.notify()

    ctx.bh_schedule_oneshot(callback)
    assert ctx.poll(True)
    assert not ctx.poll(True)


def test_the_audit_names_kind_owner_and_line(ctx: AioContext) -> None:
    ctx.world.audit = True
    owner = object()
    notifier = ctx.world.new_notifier()
    read_end, write_end = os.pipe()
    ctx.set_event_notifier(notifier, lambda e: None, owner=owner)
    ctx.set_fd_handler(read_end, lambda: None, None, owner=owner)
    timer = ctx.timer_new(ClockType.HOST, lambda: None, owner=owner)
    bh = ctx.bh_new(lambda: None, owner=owner)
    ctx.bh_new(lambda: None, owner="somebody else").delete()
    entries = ctx.registrations(owner)
    assert sorted(entry.kind for entry in entries) == ["bh", "fd", "notifier", "timer"]
    assert all(entry.owner is owner for entry in entries)
    assert all(entry.where.startswith(f"{__file__}:") for entry in entries)
    assert "test_context.py" in repr(entries[0])

    ctx.set_event_notifier(notifier, None)
    ctx.set_fd_handler(read_end, None, None)
    timer.delete()
    bh.delete()
    assert ctx.registrations(owner) == []
    notifier.close()
    os.close(read_end)
    os.close(write_end)


def test_the_audit_knows_one_shots_until_they_have_run(ctx: AioContext) -> None:
    owner = object()
    ctx.bh_schedule_oneshot(lambda: None, owner=owner)
    (entry,) = ctx.registrations(owner)
    assert (entry.kind, entry.what) == ("bh", "one-shot")
    ctx.poll(True)
    assert ctx.registrations(owner) == []


def test_without_the_audit_lines_are_not_looked_for(ctx: AioContext) -> None:
    ctx.bh_new(lambda: None)
    (entry,) = ctx.registrations()
    assert entry.where == ""


def test_a_closed_context_is_not_to_be_touched() -> None:
    ctx = AioContext("gone")
    timer = ctx.timer_new(ClockType.VIRTUAL, lambda: None)
    ctx.close()
    ctx.close()
    with pytest.raises(UsedAfterFree, match="gone is closed"):
        ctx.poll(False)
    with pytest.raises(UsedAfterFree, match="gone"):
        timer.mod(0)


def test_the_main_context_is_made_once_and_by_whoever_asks_first() -> None:
    before = set_world(World())
    try:
        main = the_world().main_context
        assert the_world().main_context is main
        assert current_context() is main
        assert main.is_home()
        main.close()
    finally:
        set_world(before)


def test_iothreads_are_known_by_their_ids() -> None:
    with IOThread("a") as a, IOThread("b") as b:
        assert get_iothread("a") is a
        assert iothreads() == [a, b]
        fds = open_fds()
        with pytest.raises(ValueError, match="'a' exists already"):
            IOThread("a")
        assert open_fds() == fds
    assert get_iothread("a") is None
    assert iothreads() == []


def test_an_iothread_leaves_no_thread_and_no_descriptor_behind() -> None:
    IOThread("warm-up").close()
    fds, n_threads = open_fds(), threads.count()
    for _ in range(20):
        iothread = IOThread("io0")
        iothread.ctx.bh_schedule_oneshot(lambda: None)
        iothread.close()
        iothread.close()
    assert open_fds() == fds
    assert threads.count_after_ends(n_threads) == n_threads


def test_python_switches_threads_quickly_while_an_iothread_lives() -> None:
    before = sys.getswitchinterval()
    with IOThread("a"):
        with IOThread("b"):
            pass
        assert sys.getswitchinterval() == pytest.approx(20e-6)
    assert sys.getswitchinterval() == before


def test_in_an_iothread_the_current_context_is_its_own() -> None:
    seen: list[AioContext] = []
    done = threading.Event()
    with IOThread("io0") as iothread:
        iothread.ctx.bh_schedule_oneshot(lambda: seen.append(current_context()))
        iothread.ctx.bh_schedule_oneshot(done.set)
        done.wait()
        assert seen == [iothread.ctx]


def test_after_stop_its_context_is_for_whoever_acquires_it() -> None:
    iothread = IOThread("io0")
    iothread.stop()
    ran: list[int] = []
    iothread.ctx.bh_schedule_oneshot(lambda: ran.append(1))
    with iothread.ctx as ctx:
        assert ctx.poll(True)
    assert ran == [1]
    iothread.close()


def test_an_iothread_survives_a_callbacks_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    done = threading.Event()
    with IOThread("io0") as iothread:
        iothread.ctx.bh_schedule_oneshot(lambda: [].pop())
        iothread.ctx.bh_schedule_oneshot(done.set)
        done.wait()
    assert len(reported) == 1


def test_importing_the_loop_imports_nothing_dear() -> None:
    dear = ["asyncio", "dataclasses", "logging", "pathlib", "subprocess", "typing", "construct"]
    code = (
        "import sys; before = set(sys.modules); import block.aio.context, block.aio.coroutine, "
        "block.aio.iothread, block.aio.thread_pool, block.aio.co_lock, block.aio.co_sleep; "
        f"print(sorted((set(sys.modules) - before) & set({dear})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
