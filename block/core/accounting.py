# SPDX-License-Identifier: GPL-2.0-only
"""What a device did with its disk (block/accounting.c): the figures of `info blockstats`.

R1  BlockBackend counts what it completes and what it refuses; a device adds what it
    refuses itself (`invalid`) and what it merged (`merge_done`).
R2  A failed request counts in failed_ops only; its time counts if `account_failed`.
R3  Written in the thread at home in the backend's context; readers may be a request behind.
"""

from __future__ import annotations

from block.aio.world import ClockType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.world import World

READ, WRITE, FLUSH, UNMAP = range(4)
TYPES = ("rd", "wr", "flush", "unmap")


class BlockAcctStats:
    """Counters by type: READ, WRITE, FLUSH, UNMAP are the indices; times in ns."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.nr_bytes = [0, 0, 0, 0]
        self.nr_ops = [0, 0, 0, 0]
        self.invalid_ops = [0, 0, 0, 0]
        self.failed_ops = [0, 0, 0, 0]
        self.merged = [0, 0, 0, 0]
        self.total_time_ns = [0, 0, 0, 0]
        self.max_time_ns = [0, 0, 0, 0]
        self.last_access_time_ns = 0
        self.account_invalid = True
        self.account_failed = True

    def now(self) -> int:
        """Reads the clock that latencies are measured with."""
        return self._world.clock_ns(ClockType.REALTIME)

    def done(self, kind: int, nbytes: int, start_ns: int, failed: bool = False) -> None:
        """A request is through (block_acct_done, block_acct_failed)."""
        if failed:
            self.failed_ops[kind] += 1
            if not self.account_failed:
                return
        else:
            self.nr_ops[kind] += 1
            self.nr_bytes[kind] += nbytes
        now = self.now()
        self.last_access_time_ns = now
        latency = now - start_ns
        self.total_time_ns[kind] += latency
        if latency > self.max_time_ns[kind]:
            self.max_time_ns[kind] = latency

    def invalid(self, kind: int) -> None:
        """A request was refused before it began (block_acct_invalid)."""
        self.invalid_ops[kind] += 1
        if self.account_invalid:
            self.last_access_time_ns = self.now()

    def merge_done(self, kind: int, count: int) -> None:
        """`count` requests were merged into others (block_acct_merge_done)."""
        self.merged[kind] += count

    def idle_time_ns(self) -> int:
        """Returns how long nothing has happened (block_acct_idle_time_ns)."""
        return self.now() - self.last_access_time_ns

    def as_dict(self) -> dict[str, int]:
        """Returns the counters under the names of QMP's query-blockstats."""
        result: dict[str, int] = {}
        for kind, name in enumerate(TYPES):
            result[f"{name}_bytes"] = self.nr_bytes[kind]
            result[f"{name}_operations"] = self.nr_ops[kind]
            result[f"{name}_total_time_ns"] = self.total_time_ns[kind]
            result[f"{name}_merged"] = self.merged[kind]
            result[f"failed_{name}_operations"] = self.failed_ops[kind]
            result[f"invalid_{name}_operations"] = self.invalid_ops[kind]
        result["idle_time_ns"] = self.idle_time_ns()
        return result
