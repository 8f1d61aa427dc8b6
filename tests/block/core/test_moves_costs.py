# SPDX-License-Identifier: GPL-2.0-only
"""How long a move takes: steps are counted, not measured."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from block.aio.context import AioContext
from block.aio.iothread import IOThread
from block.core import context, drain
from block.core import flags as f
from block.core.node import BlockDriverState
from tests.block.core.test_context import fan_over, small_node
from tests.support.drivers import (
    Outcome,
    backend_on,
    pass_node,
)


class Visits:
    """Counts calls of functions of the core."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *functions: tuple[ModuleType, str]) -> None:
        self.n = 0
        for module, name in functions:
            monkeypatch.setattr(module, name, self._counted(getattr(module, name)))

    def _counted(self, function: Callable[..., object]) -> Callable[..., object]:
        def count(*args: object) -> object:
            self.n += 1
            return function(*args)

        return count


def a_chain(n: int) -> BlockDriverState:
    bs = small_node()
    for _ in range(n - 1):
        bs = pass_node(bs)
    return bs


def one_over_many(n: int) -> BlockDriverState:
    return fan_over(small_node() for _ in range(n - 1))


def many_over_one(n: int) -> BlockDriverState:
    """Overlays that share a base, and a node over all of them."""
    base = small_node()
    top = fan_over([pass_node(base.ref()) for _ in range(n - 2)])
    base.unref()
    return top


def diamonds(n: int) -> BlockDriverState:
    """A chain of diamonds: each doubles the number of ways from top to bottom."""
    bs = small_node()
    for _ in range(n // 3):
        bs = fan_over([pass_node(bs.ref()), pass_node(bs)])
    return bs


@pytest.mark.parametrize(
    ("shape", "n"),
    [(a_chain, 50), (one_over_many, 250), (many_over_one, 80), (diamonds, 6)],
    ids=["chain", "one over many", "many over one", "diamonds"],
)
def test_a_move_is_linear_in_the_number_of_nodes(
    shape: Callable[[int], BlockDriverState],
    n: int,
    iothread: IOThread,
    main: AioContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twice the nodes, twice the visits; four times the nodes, four times."""
    counts = []
    for size in (n, 4 * n):
        blk = backend_on(shape(size), f.BLK_PERM_CONSISTENT_READ)
        with monkeypatch.context() as patch:
            visits = Visits(
                patch,
                (drain, "drain_poll"),
                (drain, "quiesce"),
                (drain, "unquiesce"),
                (context, "detach_aio_context"),
                (context, "attach_aio_context"),
            )
            for _ in range(8):
                with blk.aio_context:
                    blk.aio_preadv(0, [memoryview(bytearray(512))], Outcome())
            blk.set_aio_context(iothread.ctx)
            blk.set_aio_context(main)
            counts.append(visits.n)
        blk.unref()
    assert counts[0] > 2 * n
    assert counts[1] <= 5 * counts[0]


def test_whether_a_parent_is_still_attached_is_asked_once_for_each_edge(
    iothread: IOThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base with 300 overlays looked through all of them for each of them."""
    top = many_over_one(300)
    looked = 0
    real = type(top).detached  # the slot

    class Counted:
        def __get__(self, bs: BlockDriverState, owner: type) -> bool:
            nonlocal looked
            looked += 1
            return real.__get__(bs, owner)  # type: ignore[attr-defined, no-any-return]

        def __set__(self, bs: BlockDriverState, value: bool) -> None:
            real.__set__(bs, value)  # type: ignore[attr-defined]  # a slot's descriptor

    monkeypatch.setattr(type(top), "detached", Counted())
    top.set_aio_context(iothread.ctx)
    monkeypatch.undo()
    assert looked < 3000
    top.unref()
