# SPDX-License-Identifier: GPL-2.0-only
"""trace: a filter that prints each request, with its loop and its thread, for labs.

        ms  node    loop  thread    #          offset     bytes
     0.031  top     main  main      1  > read       0      4096
     0.207  top     main  main      1  < read       0      4096     0.176 ms  ok

A line when a request comes (>), one when it ends (<): so one sees what is in flight together, and
where a request began in one thread and ended in another. A move is a line, too.

Option: log, a file to append to. Without it the lines go to standard error. Nodes with the same
log share it, and `ms`, which counts from when the first of them was opened.

R1  A request that is printed takes the same way as without; no fast path is taken.
R2  A log that cannot be written is given up with one warning: the disk goes on.
Who may call it: block.core.
"""

from __future__ import annotations

import errno
import sys
from io import FileIO

from block.aio.iothread import thread_name
from block.aio.world import ClockType
from block.core import flags as f
from block.core.error import errno_of, failed
from block.core.filter import AroundDriver
from block.core.options import Option, take_options
from block.core.report import warn_report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from block.aio.context import AioContext
    from block.core.node import BlockDriverState

HEAD = (
    f"{'ms':>10}  {'node':<8}  {'loop':<8}  {'thread':<8}  {'#':>4}    {'':<8}"
    f"  {'offset':>12}  {'bytes':>10}\n"
)
FLAG_NAMES = (
    (f.REQ_FUA, "fua"),
    (f.REQ_MAY_UNMAP, "may-unmap"),
    (f.REQ_NO_FALLBACK, "no-fallback"),
    (f.REQ_WRITE_UNCHANGED, "unchanged"),
    (f.REQ_COPY_ON_READ, "copy-on-read"),
    (f.REQ_PREFETCH, "prefetch"),
)


class Log:
    """Where lines go; shared by all nodes that name the same file."""

    __slots__ = ("_file", "_silent", "began_ns", "users")

    def __init__(self, file: FileIO | None, began_ns: int) -> None:
        self._file = file
        self._silent = False
        self.began_ns = began_ns
        self.users = 0

    def write(self, text: str) -> None:
        """Writes whole lines, or gives up for ever (R2)."""
        if self._silent:
            return
        try:
            if self._file is not None:
                self._file.write(text.encode())
            else:
                sys.stderr.write(text)
                sys.stderr.flush()
        except (OSError, ValueError) as error:
            self._silent = True
            warn_report(f"trace: no more lines: {error}")

    def close(self) -> None:
        """The last user is gone."""
        if self._file is not None:
            self._file.close()


_logs: dict[str | None, Log] = {}  # by the option; who is in here has users. Main thread


def _open_log(path: str | None, now_ns: int) -> Log:
    """Opens a log, or finds it open. Raises OSError."""
    log = _logs.get(path)
    if log is None:
        file = None if path is None else FileIO(path, "a")
        log = _logs[path] = Log(file, now_ns)
        log.write(HEAD)
    log.users += 1
    return log


def _close_log(path: str | None) -> None:
    log = _logs[path]
    log.users -= 1
    if not log.users:
        del _logs[path]
        log.close()


class TraceState:
    """What a trace node knows: where the lines go, and how many requests there were."""

    __slots__ = ("log", "n_requests", "path")

    def __init__(self, path: str | None, log: Log) -> None:
        self.path = path
        self.log = log
        self.n_requests = 0

    def line(self, bs: BlockDriverState, text: str) -> int:
        """Writes one line with time, node, loop and thread; returns the time in ns."""
        ctx = bs.aio_context
        now = ctx.clock_ns(ClockType.REALTIME)
        ms = (now - self.log.began_ns) / 1e6
        where = f"{bs.node_name:<8}  {ctx.name:<8}  {thread_name(ctx.world):<8}"
        self.log.write(f"{ms:10.3f}  {where}  {text.rstrip()}\n")
        return now


class TraceDriver(AroundDriver):
    """The driver `trace`; QEMU has trace points instead."""

    format_name = "trace"
    runtime_opts = (Option("log", "string", "file to append to (default: standard error)"),)
    strong_runtime_opts = ("log",)

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        path = take_options(options, self.runtime_opts)["log"]
        super().open(bs, options, flags)
        try:
            log = _open_log(path, bs.aio_context.clock_ns(ClockType.REALTIME))
        except OSError as error:
            what = f"trace: could not open log '{path}'"
            raise failed(what, error, bs.node_name, "trace") from None
        bs.opaque = TraceState(path, log)

    def close(self, bs: BlockDriverState) -> None:
        _close_log(bs.opaque.path)

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        bs.opaque.line(bs, f"{'':4}  moved to {ctx.name}")

    async def around(
        self,
        bs: BlockDriverState,
        kind: str,
        offset: int,
        nbytes: int,
        flags: int,
        request: Awaitable[None],
    ) -> None:
        state: TraceState = bs.opaque
        state.n_requests += 1
        number = state.n_requests
        what = _what(kind, offset, nbytes)
        begin_ns = state.line(bs, f"{number:4}  > {what}  {_flag_words(flags)}")
        result = "ok"
        try:
            await request
        except BaseException as error:
            result = errno.errorcode.get(errno_of(error), "?")
            raise
        finally:
            took = (bs.aio_context.clock_ns(ClockType.REALTIME) - begin_ns) / 1e6
            state.line(bs, f"{number:4}  < {what}  {took:10.3f} ms  {result}")


def _what(kind: str, offset: int, nbytes: int) -> str:
    start = "" if kind == "flush" else offset
    size = "" if kind in ("flush", "truncate") else nbytes
    return f"{kind:<8}  {start:>12}  {size:>10}"


def _flag_words(flags: int) -> str:
    return " ".join(name for bit, name in FLAG_NAMES if flags & bit)
