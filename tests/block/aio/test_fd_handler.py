# SPDX-License-Identifier: GPL-2.0-only
"""Handlers of descriptors: the rules of fd_handler.py and the traps of poller.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from block.aio.context import AioContext
from block.aio.notifier import EventNotifier
from block.aio.poller import READ, EpollPoller, Poller, PollPoller
from tests.support import needs


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection."""
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def notifiers(ctx: AioContext, n: int) -> list[EventNotifier]:
    return [ctx.world.new_notifier() for _ in range(n)]


def close(ctx: AioContext, *these: EventNotifier) -> None:
    for notifier in these:
        ctx.set_event_notifier(notifier, None)
        notifier.close()


Pair = tuple[socket.socket, socket.socket]


def test_readable_and_writable_call_each_its_own(ctx: AioContext, pair: Pair) -> None:
    ours, theirs = pair
    called: list[str] = []
    fd = ours.fileno()
    ctx.set_fd_handler(fd, lambda: called.append("read"), lambda: called.append("write"))
    assert ctx.poll(True)
    assert called == ["write"]
    theirs.send(b"x")
    assert ctx.poll(True)
    assert called == ["write", "read", "write"]
    ctx.set_fd_handler(fd, lambda: called.append("only read"), None)
    assert ctx.poll(True)
    assert called[3:] == ["only read"]
    ctx.set_fd_handler(fd, None, None)
    assert not ctx.poll(False)


def test_a_hang_up_calls_who_reads_and_who_writes(ctx: AioContext, pair: Pair) -> None:
    ours, theirs = pair
    called: list[str] = []
    theirs.close()
    ctx.set_fd_handler(ours.fileno(), lambda: called.append("read"), None)
    assert ctx.poll(True)
    ctx.set_fd_handler(ours.fileno(), None, lambda: called.append("write"))
    assert ctx.poll(True)
    assert called == ["read", "write"]
    ctx.set_fd_handler(ours.fileno(), None, None)


def test_the_read_handler_may_remove_both(ctx: AioContext, pair: Pair) -> None:
    ours, theirs = pair
    fd = ours.fileno()
    theirs.send(b"x")
    ctx.set_fd_handler(
        fd, lambda: ctx.set_fd_handler(fd, None, None), lambda: pytest.fail("removed")
    )
    assert ctx.poll(True)
    assert not ctx.poll(False)


def test_one_that_is_ready_but_removed_in_the_same_pass_is_not_called(ctx: AioContext) -> None:
    called: list[int] = []
    ends = notifiers(ctx, 2)

    def remove_the_other(e: EventNotifier) -> None:
        e.test_and_clear()
        called.append(1)
        ctx.set_event_notifier(ends[1 - ends.index(e)], None)

    for e in ends:
        ctx.set_event_notifier(e, remove_the_other)
        e.set()
    assert ctx.poll(True)
    assert called == [1]
    assert not ctx.poll(False)
    close(ctx, *ends)


def test_one_removed_by_a_bottom_half_of_the_same_pass_is_not_called(ctx: AioContext) -> None:
    (e,) = notifiers(ctx, 1)
    ctx.set_event_notifier(e, lambda e: pytest.fail("removed, but it was called"))
    e.set()
    for _ in range(40):  # so often that the loop has looked at descriptors
        ctx.bh_schedule_oneshot(lambda: ctx.disable_external())
        ctx.bh_schedule_oneshot(lambda: ctx.enable_external())
        ctx.bh_schedule_oneshot(lambda: ctx.set_event_notifier(e, None))
        ctx.poll(True)
    e.close()


def test_a_replaced_handler_is_called_in_the_next_pass(ctx: AioContext) -> None:
    called: list[str] = []
    first, second = notifiers(ctx, 2)

    def replace(e: EventNotifier) -> None:
        other = second if e is first else first
        called.append("old")
        ctx.set_event_notifier(other, lambda e: called.append("new"))
        ctx.set_event_notifier(e, None)

    for e in (first, second):
        ctx.set_event_notifier(e, replace)
        e.set()
    ctx.poll(True)
    assert called == ["old"]
    ctx.poll(True)
    assert called == ["old", "new"]
    close(ctx, first, second)


def test_a_descriptor_closed_and_reused_in_a_pass_does_not_get_the_old_event(
    ctx: AioContext,
) -> None:
    called: list[str] = []
    pipes = [os.pipe(), os.pipe()]

    def close_the_other(mine: int) -> None:
        other = pipes[1 - mine]
        called.append("ready")
        ctx.set_fd_handler(pipes[mine][0], None, None)
        ctx.set_fd_handler(other[0], None, None)
        os.close(other[0])
        os.close(other[1])
        reused = os.pipe()  # the lowest numbers: those just closed
        assert set(reused) == set(other)
        pipes[1 - mine] = reused
        ctx.set_fd_handler(reused[0], lambda: called.append("an event of the old one"), None)

    for mine, (read_end, write_end) in enumerate(pipes):
        os.write(write_end, b"x")
        ctx.set_fd_handler(read_end, lambda mine=mine: close_the_other(mine), None)  # type: ignore[misc]  # a lambda's default
    ctx.poll(True)
    ctx.poll(False)
    assert called == ["ready"]
    for read_end, write_end in pipes:
        ctx.set_fd_handler(read_end, None, None)
        os.close(read_end)
        os.close(write_end)


def test_a_descriptor_that_was_closed_without_a_word_does_not_keep_the_loop_busy(
    ctx: AioContext,
) -> None:
    read_end, write_end = os.pipe()
    ctx.set_fd_handler(read_end, lambda: pytest.fail("closed"), None)
    os.close(read_end)
    ctx.poll(False)
    assert ctx.fds.poller.look(0) == []
    os.close(write_end)
    ctx.set_fd_handler(read_end, None, None)


@pytest.mark.parametrize(
    "kind", [pytest.param(EpollPoller, marks=needs.linux("epoll")), PollPoller]
)
def test_a_wait_may_be_for_longer_than_the_kernel_can_count(
    kind: Callable[[], Poller], pair: Pair
) -> None:
    """A timer may be set to a hundred years from now."""
    ours, theirs = pair
    poller = kind()
    poller.update(ours.fileno(), READ)
    theirs.send(b"x")
    assert list(poller.wait(100 * 365 * 86_400 * 1_000_000_000)) == [(ours.fileno(), READ)]
    poller.close()


def test_a_number_that_came_back_is_watched_again(ctx: AioContext) -> None:
    """The kernel drops a closed descriptor from an epoll set and says nothing."""
    called: list[int] = []
    read_end, write_end = os.pipe()
    ctx.set_fd_handler(read_end, lambda: called.append(1), None)
    new_read, new_write = os.pipe()
    os.dup2(new_read, read_end)
    os.write(new_write, b"x")
    ctx.set_fd_handler(read_end, lambda: called.append(2), None)
    assert ctx.poll(True)
    assert called == [2]
    ctx.set_fd_handler(read_end, None, None)
    for fd in (read_end, write_end, new_read, new_write):
        os.close(fd)


@pytest.mark.parametrize("n_others", [0, 20], ids=["few", "many"])
def test_regular_files_and_dev_null_are_always_ready(ctx: AioContext, n_others: int) -> None:
    called: list[int] = []
    others = notifiers(ctx, n_others)
    for e in others:
        ctx.set_event_notifier(e, lambda e: None)
    fd = os.open(os.devnull, os.O_RDONLY)
    ctx.set_fd_handler(fd, lambda: called.append(1), None)
    assert ctx.poll(True)
    assert ctx.poll(True)
    assert called == [1, 1]
    ctx.set_fd_handler(fd, None, None)
    assert not ctx.poll(False)
    os.close(fd)
    close(ctx, *others)


def test_many_descriptors_are_all_served(ctx: AioContext) -> None:
    called: set[EventNotifier] = set()

    def ready(e: EventNotifier) -> None:
        e.test_and_clear()
        called.add(e)

    ends = notifiers(ctx, 100)
    for e in ends:
        ctx.set_event_notifier(e, ready)
        e.set()
    while len(called) < 100:
        assert ctx.poll(True)
    assert not ctx.poll(False)
    close(ctx, *ends)


def test_what_a_nested_poll_handled_the_outer_one_does_not_handle_again(ctx: AioContext) -> None:
    called: list[EventNotifier] = []
    ends = notifiers(ctx, 2)

    def ready(e: EventNotifier) -> None:
        assert e.test_and_clear(), "called although it was not set"
        called.append(e)
        if len(called) == 1:
            assert ctx.poll(True)

    for e in ends:
        ctx.set_event_notifier(e, ready)
        e.set()
    assert ctx.poll(True)
    assert sorted(map(id, called)) == sorted(map(id, ends))
    close(ctx, *ends)


def test_external_handlers_are_off_between_disable_and_enable(ctx: AioContext) -> None:
    called: list[str] = []
    external, internal = notifiers(ctx, 2)
    ctx.set_event_notifier(external, lambda e: called.append("external"), is_external=True)
    ctx.set_event_notifier(internal, lambda e: called.append("internal"))
    external.set()
    internal.set()
    ctx.disable_external()
    assert ctx.external_disabled
    assert ctx.poll(True)
    assert called == ["internal"]
    ctx.enable_external()
    internal.test_and_clear()
    assert ctx.poll(True)
    assert called == ["internal", "external"]
    close(ctx, external, internal)


def test_an_external_handler_set_while_they_are_off_waits_for_enable(ctx: AioContext) -> None:
    called: list[int] = []
    (e,) = notifiers(ctx, 1)
    e.set()
    ctx.disable_external()
    ctx.set_event_notifier(e, lambda e: called.append(1), is_external=True)
    assert not ctx.poll(False)
    ctx.enable_external()
    assert ctx.poll(False)
    assert called == [1]
    close(ctx, e)


def test_one_disabled_in_the_same_pass_is_not_called(ctx: AioContext) -> None:
    called: list[int] = []
    ends = notifiers(ctx, 2)

    def ready(e: EventNotifier) -> None:
        called.append(1)
        e.test_and_clear()
        ctx.disable_external()

    for e in ends:
        ctx.set_event_notifier(e, ready, is_external=True)
        e.set()
    assert ctx.poll(True)
    assert called == [1]
    ctx.enable_external()
    assert ctx.poll(True)
    ctx.enable_external()
    close(ctx, *ends)


def test_enable_without_disable_is_a_mistake(ctx: AioContext) -> None:
    with pytest.raises(AssertionError, match="without disable_external"):
        ctx.enable_external()


def test_an_exception_of_a_handler_leaves_poll_and_the_others_come_next(ctx: AioContext) -> None:
    called: list[EventNotifier] = []
    ends = notifiers(ctx, 2)

    def ready(e: EventNotifier) -> None:
        e.test_and_clear()
        called.append(e)
        if len(called) == 1:
            raise ZeroDivisionError

    for e in ends:
        ctx.set_event_notifier(e, ready)
        e.set()
    with pytest.raises(ZeroDivisionError):
        ctx.poll(True)
    assert ctx.poll(True)
    assert len(called) == 2
    close(ctx, *ends)
