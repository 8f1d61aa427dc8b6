# SPDX-License-Identifier: GPL-2.0-only
"""The real World's threads and condition variables."""

from __future__ import annotations

import threading

import pytest

from block.aio.thread import RealCondition, RealThread


def test_join_waits_for_the_end() -> None:
    gate, ran = threading.Event(), list[int]()

    def work() -> None:
        gate.wait()
        ran.append(1)

    thread = RealThread("worker", work)
    gate.set()
    thread.join()
    thread.join()
    assert ran == [1]


def test_a_mistake_in_a_thread_is_reported_and_it_can_be_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    RealThread("worker", lambda: [][0]).join()
    assert [args.exc_type for args in reported] == [IndexError]


class Queue:
    """Numbers from hand to hand; `asleep` counts those who wait."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.changed = RealCondition(self.lock)
        self.asleep = threading.Semaphore(0)
        self.numbers: list[int] = []
        self.taken: list[int] = []

    def take(self) -> None:
        with self.lock:
            self.asleep.release()
            while not self.numbers:
                self.changed.wait()
            self.taken.append(self.numbers.pop())


@pytest.mark.parametrize("how", ["notify", "notify_all"])
def test_whoever_waits_is_woken(how: str) -> None:
    queue = Queue()
    threads = [RealThread(f"taker {n}", queue.take) for n in range(3)]
    for _ in threads:
        queue.asleep.acquire()
    with queue.lock:
        queue.numbers += [1, 2, 3]
        if how == "notify":
            queue.changed.notify(3)
        else:
            queue.changed.notify_all()
    for thread in threads:
        thread.join()
    assert sorted(queue.taken) == [1, 2, 3]


def test_notify_wakes_one_only() -> None:
    queue = Queue()
    threads = [RealThread(f"taker {n}", queue.take) for n in range(2)]
    for _ in threads:
        queue.asleep.acquire()
    with queue.lock:
        queue.numbers.append(1)
        queue.changed.notify()
        assert len(queue.changed._waiters) == 1
    with queue.lock:
        queue.numbers.append(2)
        queue.changed.notify()
    for thread in threads:
        thread.join()
    assert sorted(queue.taken) == [1, 2]


def test_a_wait_ends_when_its_time_is_over() -> None:
    lock = threading.Lock()
    changed = RealCondition(lock)
    with lock:
        assert not changed.wait(0.001)
        assert not changed._waiters
        assert lock.locked()
