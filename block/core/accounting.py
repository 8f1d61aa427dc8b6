# SPDX-License-Identifier: GPL-2.0-only
"""What a device did with its disk (block/accounting.c): the figures of `info blockstats`.

R1  BlockBackend counts what it completes and what it refuses; a device adds what it
    refuses itself (`invalid`) and what it merged (`merge_done`).
R2  A failed request counts in failed_ops only; its time counts if `account_failed`.
R3  Written in the thread at home in the backend's context; readers may be a request behind.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.world import World

READ, WRITE, FLUSH, UNMAP = range(4)
TYPES = ("rd", "wr", "flush", "unmap")


class Counter:
    """What is counted for every request of one type; bytes and ns."""

    __slots__ = ("nr_bytes", "nr_ops", "total_time_ns")

    def __init__(self) -> None:
        self.nr_bytes = 0
        self.nr_ops = 0
        self.total_time_ns = 0


class BlockAcctStats:
    """Counters by type: READ, WRITE, FLUSH, UNMAP are the indices of all lists."""

    def __init__(self, world: World) -> None:
        self.now = world.realtime_ns
        self.counters = (Counter(), Counter(), Counter(), Counter())
        self.invalid_ops = [0, 0, 0, 0]
        self.failed_ops = [0, 0, 0, 0]
        self.merged = [0, 0, 0, 0]
        self.last_access_time_ns = 0
        self.account_invalid = True
        self.account_failed = True

    @property
    def nr_ops(self) -> list[int]:
        """How many requests have succeeded."""
        return [counter.nr_ops for counter in self.counters]

    @property
    def nr_bytes(self) -> list[int]:
        """How many bytes they moved."""
        return [counter.nr_bytes for counter in self.counters]

    @property
    def total_time_ns(self) -> list[int]:
        """How long all requests took together."""
        return [counter.total_time_ns for counter in self.counters]

    def done(self, kind: int, nbytes: int, start_ns: int) -> None:
        """A request is through (block_acct_done)."""
        self.last_access_time_ns = now = self.now()
        counter = self.counters[kind]
        counter.nr_ops += 1
        counter.nr_bytes += nbytes
        counter.total_time_ns += now - start_ns

    def failed(self, kind: int, start_ns: int) -> None:
        """A request has failed (block_acct_failed)."""
        self.failed_ops[kind] += 1
        if self.account_failed:
            self.last_access_time_ns = now = self.now()
            self.counters[kind].total_time_ns += now - start_ns

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
            counter = self.counters[kind]
            result[f"{name}_bytes"] = counter.nr_bytes
            result[f"{name}_operations"] = counter.nr_ops
            result[f"{name}_total_time_ns"] = counter.total_time_ns
            result[f"{name}_merged"] = self.merged[kind]
            result[f"failed_{name}_operations"] = self.failed_ops[kind]
            result[f"invalid_{name}_operations"] = self.invalid_ops[kind]
        result["idle_time_ns"] = self.idle_time_ns()
        return result
