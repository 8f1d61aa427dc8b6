# SPDX-License-Identifier: GPL-2.0-only
"""A driver that is watched: each of its hooks must end where its node lives.

A request that reaches its user in the right thread may have been elsewhere on its way: its last
bottom half brings it home. So every request hook of every node is looked at when it ends.

R1  A hook that is thrown away, after the run, has not ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from block.aio.coroutine import current
from block.core.driver import BlockDriver
from block.core.node import BlockDriverState

HOOKS = ("co_preadv", "co_pwritev", "co_pwrite_zeroes", "co_pdiscard", "co_flush_to_os",
         "co_flush_to_disk", "co_block_status", "co_truncate")  # fmt: skip

Told = Callable[[BlockDriverState, str], None]
"""What is called with a node and what was seen when a hook ends in a wrong place."""

Served = Callable[[BlockDriverState, str, tuple[Any, ...], str], None]
"""What is called when a hook has ended well: with its node, its name, what it was asked, and the
last line that it has run."""


def watch(bs: BlockDriverState, told: Told, served: Served) -> None:
    """Puts a watched driver in the place of a node's own."""
    assert bs.drv is not None
    bs.drv = watched(type(bs.drv), told, served)


def watched(cls: type[BlockDriver], told: Told, served: Served) -> BlockDriver:
    """Returns a driver that does what `cls` does, and looks where each request hook ends."""
    body: dict[str, Any] = {"probed": cls}
    for name in HOOKS:
        if name in cls.hooks:
            body[name] = _looking(getattr(cls, name), name, told, served)
    made: BlockDriver = type(f"Watched{cls.__name__}", (cls,), body)()
    return made


def _looking(
    hook: Callable[..., Awaitable[Any]], name: str, told: Told, served: Served
) -> Callable[..., Any]:
    def look_where(bs: BlockDriverState) -> None:
        co, ctx = current(), bs.aio_context
        if not ctx.is_home() or co is None or co.ctx is not ctx:
            told(bs, f"{name} ended in a thread that is not at home in {ctx.name}")

    async def look(self: BlockDriver, bs: BlockDriverState, *args: Any) -> Any:
        request = hook(self, bs, *args)
        frame = getattr(request, "cr_frame", None)  # when it has ended, it stands where it ended
        try:
            answer = await request
        except GeneratorExit:  # R1
            raise
        except BaseException:
            look_where(bs)
            raise
        look_where(bs)
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""
        served(bs, name, args, where)
        return answer

    return look
