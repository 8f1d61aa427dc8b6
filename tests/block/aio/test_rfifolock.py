# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's tests/test-rfifolock.c under its names, and the rules of lock.py."""

from __future__ import annotations

import threading

import pytest

from block.aio.lock import RFifoLock


def test_nesting() -> None:
    lock = RFifoLock()
    assert [lock.lock() for _ in range(3)] == [True, False, False]
    assert lock.nesting == 3
    for _ in range(3):
        lock.unlock()
    assert lock.nesting == 0


def test_callback() -> None:
    called = threading.Event()
    lock = RFifoLock(called.set)

    def take_it() -> None:
        lock.lock()
        lock.unlock()

    lock.lock()
    thread = threading.Thread(target=take_it)
    thread.start()
    called.wait()
    assert lock.contended
    lock.unlock()
    thread.join()
    assert not lock.contended


def test_the_callback_is_not_called_without_contention() -> None:
    def never() -> None:
        raise AssertionError("nobody waits")

    lock = RFifoLock(never)
    lock.lock()
    lock.lock()
    lock.unlock()
    lock.unlock()


def test_who_comes_first_is_served_first() -> None:
    queued = threading.Semaphore(0)
    lock = RFifoLock(queued.release)
    order: list[int] = []

    def take_it(number: int) -> None:
        lock.lock()
        order.append(number)
        lock.unlock()

    lock.lock()
    threads = []
    for number in range(5):
        thread = threading.Thread(target=take_it, args=(number,))
        thread.start()
        threads.append(thread)
        queued.acquire()  # it has its ticket
    lock.unlock()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_who_gives_it_up_and_wants_it_again_goes_to_the_end_of_the_line() -> None:
    queued = threading.Event()
    lock = RFifoLock(queued.set)
    order: list[str] = []

    def take_it() -> None:
        lock.lock()
        order.append("waiter")
        lock.unlock()

    lock.lock()
    thread = threading.Thread(target=take_it)
    thread.start()
    queued.wait()
    lock.unlock()
    lock.lock()
    order.append("first holder again")
    lock.unlock()
    thread.join()
    assert order == ["waiter", "first holder again"]


def test_only_the_holder_unlocks() -> None:
    lock = RFifoLock()
    with pytest.raises(AssertionError, match="nobody holds"):
        lock.unlock()
    errors: list[AssertionError] = []

    def unlock() -> None:
        try:
            lock.unlock()
        except AssertionError as error:
            errors.append(error)

    lock.lock()
    thread = threading.Thread(target=unlock)
    thread.start()
    thread.join()
    assert "stranger" in str(errors[0])
    lock.unlock()
