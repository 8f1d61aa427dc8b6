# SPDX-License-Identifier: GPL-2.0-only
"""Leaky buckets: how long a request must wait for its turn (util/throttle.c).

There is one bucket for each limit. A request pours itself in: its bytes, or one operation. The
bucket leaks at the rate of the limit. A request that finds it too full waits until enough has
leaked.

    bucket          is full at                    leaks                    kept for
    level           max * burst_length, or        avg a second             the limit itself
                    avg / 10 without a max
    burst_level     max / 10                      max a second             burst_length > 1

R1  A limit of 0 is none. A limit for both directions excludes one for a single direction.
R2  A request is let in, then poured: a full bucket delays the next one. So one request may be
    larger than its bucket, and it runs; those after it pay.
R3  Times are in nanoseconds and come from the caller. Nothing here reads a clock.
R4  Nothing here is locked: whoever shares a ThrottleState between threads has a lock for it
    (throttle_group.py).
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.lean import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

VALUE_MAX = 1_000_000_000_000_000
SECOND_NS = 1_000_000_000
READ, WRITE = range(2)  # a direction: index of everything that there is two of


class BucketType(IntEnum):
    """The six limits (BucketType)."""

    BPS_TOTAL = 0
    BPS_READ = 1
    BPS_WRITE = 2
    OPS_TOTAL = 3
    OPS_READ = 4
    OPS_WRITE = 5


BPS = (BucketType.BPS_TOTAL, BucketType.BPS_READ, BucketType.BPS_WRITE)
OPS = (BucketType.OPS_TOTAL, BucketType.OPS_READ, BucketType.OPS_WRITE)


class LeakyBucket:
    """One limit (LeakyBucket): `avg` and `max` in units a second, `burst_length` in seconds."""

    __slots__ = ("avg", "burst_length", "burst_level", "level", "max")

    def __init__(self, avg: int = 0, max: int = 0, burst_length: int = 1) -> None:
        self.avg = avg
        self.max = max
        self.burst_length = burst_length
        self.level = 0.0
        self.burst_level = 0.0

    def leak(self, delta_ns: int) -> None:
        """Lets out what leaks in that time (throttle_leak_bucket)."""
        self.level = max(self.level - self.avg * delta_ns / SECOND_NS, 0.0)
        if self.burst_length > 1:
            self.burst_level = max(self.burst_level - self.max * delta_ns / SECOND_NS, 0.0)

    def pour(self, units: float) -> None:
        """Counts a request that runs (R2)."""
        self.level += units
        if self.burst_length > 1:
            self.burst_level += units

    def compute_wait(self) -> int:
        """Returns after how many ns the next request may run, 0: now (throttle_compute_wait)."""
        if not self.avg:
            return 0
        # Without a max there is still room for a tenth of a second. Else every other request
        # would wait, each for a timer of its own, and the rate would not be reached.
        size = self.max * self.burst_length if self.max else self.avg / 10
        extra = self.level - size
        if extra > 0:
            return int(extra * SECOND_NS / self.avg)
        if self.burst_length > 1:
            extra = self.burst_level - self.max / 10
            if extra > 0:
                return int(extra * SECOND_NS / self.max)
        return 0


class ThrottleConfig:
    """Six limits, and the size that counts as one operation, in bytes; 0: any size does."""

    __slots__ = ("buckets", "op_size")

    def __init__(self) -> None:
        self.buckets = [LeakyBucket() for _ in BucketType]
        self.op_size = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ThrottleConfig) and self.limits() == other.limits()

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def limits(self) -> tuple[int, ...]:
        """All that a person can set, in the order of BucketType; the size comes last."""
        values = [(b.avg, b.max, b.burst_length) for b in self.buckets]
        return (*(number for three in values for number in three), self.op_size)

    def copy(self) -> ThrottleConfig:
        """The same limits with empty buckets."""
        other = ThrottleConfig()
        other.buckets = [LeakyBucket(b.avg, b.max, b.burst_length) for b in self.buckets]
        other.op_size = self.op_size
        return other

    @property
    def enabled(self) -> bool:
        """Whether anything is limited (throttle_enabled)."""
        return any(bucket.avg > 0 for bucket in self.buckets)

    def check(self) -> None:
        """Raises BlockError(EINVAL) where limits contradict each other (throttle_is_valid)."""
        message = self._conflict() or self._size_alone()
        for bucket in self.buckets:
            message = message or _wrong_with(bucket)
        if message:
            raise BlockError(errno.EINVAL, message)

    def _conflict(self) -> str:
        for total, read, write in (BPS, OPS):
            for name in ("avg", "max"):
                both, one, other = (getattr(self.buckets[t], name) for t in (total, read, write))
                if both and (one or other):
                    return CONFLICT
        return ""

    def _size_alone(self) -> str:
        if self.op_size and not any(self.buckets[kind].avg for kind in OPS):
            return "iops size requires an iops value to be set"
        return ""


CONFLICT = "bps/iops/max total values and read/write values cannot be used at the same time"


def _wrong_with(bucket: LeakyBucket) -> str:
    """What QEMU has to say of one limit; "" where nothing is wrong."""
    avg, most, length = bucket.avg, bucket.max, bucket.burst_length
    if not (0 <= avg <= VALUE_MAX and 0 <= most <= VALUE_MAX):
        return f"bps/iops/max values must be within [0, {VALUE_MAX}]"
    if not length:
        return "the burst length cannot be 0"
    if length > 1 and not most:
        return "burst length set without burst rate"
    if most and length > VALUE_MAX // most:
        return "burst length too high for this burst rate"
    if most and not avg:
        return "bps_max/iops_max require corresponding bps/iops values"
    if most and most < avg:
        return "bps_max/iops_max cannot be lower than bps/iops"
    return ""


class ThrottleState:
    """The limits in force, and how full their buckets are (ThrottleState)."""

    __slots__ = ("_bytes", "_operations", "_waits", "config", "previous_leak")

    def __init__(self) -> None:
        self.previous_leak = 0
        self._take(ThrottleConfig())

    def configure(self, config: ThrottleConfig, now: int) -> None:
        """Begins anew with other limits, with empty buckets (throttle_config)."""
        self.previous_leak = now
        self._take(config.copy())

    def _take(self, config: ThrottleConfig) -> None:
        """Sorts out which buckets a request of each direction meets: those with a limit."""
        self.config = config
        self._bytes = tuple(self._in_use(BPS, direction) for direction in (READ, WRITE))
        self._operations = tuple(self._in_use(OPS, direction) for direction in (READ, WRITE))
        pairs = zip(self._bytes, self._operations, strict=True)
        self._waits = tuple([*bytes, *operations] for bytes, operations in pairs)

    def _in_use(self, kinds: Iterable[BucketType], direction: int) -> list[LeakyBucket]:
        total, *each = (self.config.buckets[kind] for kind in kinds)
        return [bucket for bucket in (total, each[direction]) if bucket.avg]

    def compute_wait(self, direction: int, now: int) -> int:
        """Lets the buckets leak until now; returns after how many ns the next request of that
        direction may run (throttle_compute_timer)."""
        self._leak(now)
        return max((bucket.compute_wait() for bucket in self._waits[direction]), default=0)

    def _leak(self, now: int) -> None:
        delta_ns = now - self.previous_leak
        self.previous_leak = now
        if delta_ns > 0:
            for bucket in self.config.buckets:
                if bucket.avg:
                    bucket.leak(delta_ns)

    def account(self, direction: int, nbytes: int) -> None:
        """Pours in a request that runs now (throttle_account)."""
        for bucket in self._bytes[direction]:
            bucket.pour(nbytes)
        operations = self._operations[direction]
        if operations:
            op_size = self.config.op_size
            units = nbytes / op_size if op_size and nbytes > op_size else 1.0
            for bucket in operations:
                bucket.pour(units)
