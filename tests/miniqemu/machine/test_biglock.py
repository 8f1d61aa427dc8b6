# SPDX-License-Identifier: GPL-2.0-only
"""The big lock: one holder, first come first served, and a count for each thread."""

from __future__ import annotations

import threading

import pytest

from miniqemu.machine.biglock import BigLock


def wait_for_waiters(lock: BigLock, count: int) -> None:
    """Returns when so many threads wait in `acquire`."""
    while len(lock._queue) < count:
        threading.Event().wait(0.001)


def test_only_the_holder_holds_it() -> None:
    lock = BigLock()
    assert not lock.held()
    with lock:
        assert lock.held()
        seen: list[bool] = []
        thread = threading.Thread(target=lambda: seen.append(lock.held()))
        thread.start()
        thread.join(10)
        assert seen == [False]
    assert not lock.held()


def test_taking_it_twice_or_giving_away_anothers_is_a_bug() -> None:
    lock = BigLock()
    with pytest.raises(AssertionError, match="only the holder"):
        lock.release()
    with lock, pytest.raises(AssertionError, match="R4"):
        lock.acquire()


def test_each_acquisition_is_counted_for_its_thread() -> None:
    lock = BigLock()

    def twice() -> None:
        for _ in range(2):
            with lock:
                pass

    for _ in range(3):
        with lock:
            pass
    thread = threading.Thread(target=twice)
    thread.start()
    other = thread.ident
    thread.join(10)
    assert other is not None
    me = threading.get_ident()
    expected = 5 if other == me else 3
    assert lock.taken_by(me) == expected
    assert lock.taken_by(0) == 0
    assert sum(lock.counts.values()) == 5


def test_whoever_waits_longest_gets_it_even_from_a_busy_holder() -> None:
    lock = BigLock()
    order: list[str] = []

    def take(name: str) -> None:
        with lock:
            order.append(name)

    lock.acquire()
    threads = []
    for number in range(3):
        thread = threading.Thread(target=take, args=(f"waiter {number}",))
        thread.start()
        threads.append(thread)
        wait_for_waiters(lock, number + 1)
    lock.release()
    lock.acquire()  # as a busy main loop does
    order.append("main")
    lock.release()
    for thread in threads:
        thread.join(10)
    assert order == ["waiter 0", "waiter 1", "waiter 2", "main"]


def test_many_threads_never_hold_it_at_once() -> None:
    lock = BigLock()
    inside, most, total = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, total
        for _ in range(300):
            with lock:
                inside += 1
                most = max(most, inside)
                total += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (most, total) == (1, 1200)
