# SPDX-License-Identifier: GPL-2.0-only
"""EventNotifier, as an eventfd and as a pipe."""

from __future__ import annotations

import os

import pytest

from block.aio.errors import UsedAfterFree
from block.aio.notifier import EventNotifier, PipeNotifier
from tests.support import needs
from tests.support.descriptors import open_fds

KINDS = [pytest.param(EventNotifier, marks=needs.linux("eventfd")), PipeNotifier]


@pytest.fixture(params=KINDS)
def notifier(request: pytest.FixtureRequest) -> EventNotifier:
    made: EventNotifier = request.param()
    return made


def test_set_twice_is_set_once(notifier: EventNotifier) -> None:
    assert not notifier.test_and_clear()
    notifier.set()
    notifier.set()
    assert notifier.test_and_clear()
    assert not notifier.test_and_clear()
    notifier.close()


def test_a_full_one_is_set(notifier: EventNotifier) -> None:
    """The kernel may have counted an eventfd up to its limit, or a pipe may be full."""
    if isinstance(notifier, PipeNotifier):
        for _ in range(100_000):
            notifier.set()
    else:
        os.eventfd_write(notifier.fileno(), 2**64 - 2)
    notifier.set()
    assert notifier.test_and_clear()
    assert not notifier.test_and_clear()
    notifier.close()


def test_the_kernel_may_set_it_through_its_write_descriptor(notifier: EventNotifier) -> None:
    os.write(notifier.write_fd, (1).to_bytes(8, "little"))
    assert notifier.test_and_clear()
    assert not notifier.test_and_clear()
    notifier.close()


@pytest.mark.parametrize("kind", KINDS)
def test_close_gives_all_descriptors_back(kind: type[EventNotifier]) -> None:
    before = open_fds()
    notifier = kind()
    notifier.close()
    notifier.close()
    assert open_fds() == before


def test_a_closed_one_is_not_to_be_touched(notifier: EventNotifier) -> None:
    notifier.close()
    with pytest.raises(UsedAfterFree, match="after close"):
        notifier.set()
    with pytest.raises(UsedAfterFree, match="after close"):
        notifier.test_and_clear()
