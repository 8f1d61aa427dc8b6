# SPDX-License-Identifier: GPL-2.0-only
"""Waiting, in the loop of a node (patch 01 of the series: aio_poll in the node's context).

R1  Nobody waits inside a coroutine: there one awaits (DESIGN.md, rule 14).
R2  Whoever waits for a node polls the node's own context, and holds it while polling. The
    main thread may do that with the context of an IOThread, which then stands aside.
R3  Only the main thread waits for a context that is not its own.
Who may call it: the main thread, or the home thread of the context.

What once went wrong: a poll in the main loop's context did not see the completions of a
node that lived in another one, and waited for ever; hence patch 01.
"""

from __future__ import annotations

from block.aio.coroutine import Coroutine, in_coroutine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, TypeVar

    from block.aio.context import AioContext

    T = TypeVar("T")


def poll_while(ctx: AioContext, condition: Callable[[], bool]) -> None:
    """Runs the loop `ctx` as long as the condition holds (BDRV_POLL_WHILE).

    The condition is evaluated with the context held.
    """
    assert not in_coroutine(), "R1: a synchronous wait inside a coroutine"
    with ctx:
        while condition():
            ctx.poll(True)


class _Outcome:
    """What became of a coroutine that somebody waits for."""

    __slots__ = ("done", "error", "result")

    def __init__(self) -> None:
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    async def run(self, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            self.result = await work()
        except BaseException as error:
            self.error = error
        self.done = True

    def pending(self) -> bool:
        return not self.done


def run_sync(ctx: AioContext, work: Callable[[], Awaitable[T]]) -> T:
    """Runs a coroutine function in `ctx` and waits for its outcome (bdrv_run_co)."""
    assert not in_coroutine(), "R1: a synchronous request inside a coroutine"
    outcome = _Outcome()
    with ctx:
        ctx.co_enter(Coroutine(outcome.run(work)))
        poll_while(ctx, outcome.pending)
    if outcome.error is not None:
        raise outcome.error
    result: T = outcome.result
    return result
