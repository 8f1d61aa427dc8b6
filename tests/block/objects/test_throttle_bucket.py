# SPDX-License-Identifier: GPL-2.0-only
"""Leaky buckets; the cases of QEMU's tests/unit/test-throttle.c under their names."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from block.core.error import BlockError
from block.objects.throttle_bucket import (
    BPS,
    OPS,
    READ,
    SECOND_NS,
    VALUE_MAX,
    WRITE,
    BucketType,
    LeakyBucket,
    ThrottleConfig,
    ThrottleState,
)
from block.objects.throttle_options import LIMITS, config_of

KINDS = pytest.mark.parametrize("kind", list(BucketType))


def is_valid(config: ThrottleConfig) -> bool:
    try:
        config.check()
    except BlockError:
        return False
    return True


def with_value(kind: int, field: str, value: int) -> ThrottleConfig:
    config = ThrottleConfig()
    bucket = config.buckets[kind]
    setattr(bucket, field, value)
    if field == "max":
        bucket.avg = max(bucket.avg, 1)
    return config


# -- single buckets


def test_leak_bucket() -> None:
    bucket = LeakyBucket(avg=150, max=15)
    bucket.level = 1.5
    bucket.leak(SECOND_NS // 150)
    assert bucket.level == pytest.approx(0.5)
    bucket.leak(SECOND_NS // 150)
    assert bucket.level == pytest.approx(0)
    bucket.leak(SECOND_NS // 150)
    assert (bucket.level, bucket.avg, bucket.max) == (0, 150, 15)


def test_leak_bucket_during_a_long_burst() -> None:
    bucket = LeakyBucket(avg=150, max=250, burst_length=2)
    bucket.burst_level = 6
    levels = []
    for _ in range(4):
        bucket.leak(SECOND_NS // 100)
        levels.append(bucket.burst_level)
    assert levels == pytest.approx([3.5, 1, 0, 0])


def test_the_burst_level_of_a_short_burst_is_not_kept() -> None:
    bucket = LeakyBucket(avg=10, max=20)
    bucket.pour(5)
    assert (bucket.level, bucket.burst_level) == (5, 0)


@pytest.mark.parametrize(
    ("avg", "level", "wait"),
    [(0, 1.5, 0), (150, 15, 0), (150, 9, 0), (150, 15.5, SECOND_NS // 150 // 2)],
)
def test_compute_wait(avg: int, level: float, wait: int) -> None:
    bucket = LeakyBucket(avg=avg, max=15)
    bucket.level = level
    assert bucket.compute_wait() == wait


def test_compute_wait_after_two_seconds_at_the_burst_rate() -> None:
    bucket = LeakyBucket(avg=10, max=200, burst_length=2)
    for step in range(22):
        bucket.pour(20)
        bucket.leak(SECOND_NS // 10)
        assert bucket.burst_level == pytest.approx(0)
        assert bucket.level == pytest.approx((step + 1) * 19)
        # The bucket has leaked meanwhile: that is a tenth of a second more than two.
        assert bucket.compute_wait() == (0 if step < 21 else 1_800_000_000)


def test_without_a_max_a_tenth_of_a_second_comes_at_once() -> None:
    bucket = LeakyBucket(avg=100)
    bucket.pour(10)
    assert bucket.compute_wait() == 0
    bucket.pour(1)
    assert bucket.compute_wait() == SECOND_NS // 100


def test_a_long_burst_may_not_be_faster_than_its_max() -> None:
    bucket = LeakyBucket(avg=10, max=200, burst_length=2)
    bucket.pour(21)
    assert bucket.compute_wait() == SECOND_NS // 200


# -- configurations


@KINDS
def test_enabled(kind: int) -> None:
    assert not ThrottleConfig().enabled
    config = with_value(kind, "avg", 150)
    assert is_valid(config)
    assert config.enabled
    assert not is_valid(with_value(kind, "avg", -150))


@pytest.mark.parametrize("field", ["avg", "max"])
@pytest.mark.parametrize("kinds", [BPS, OPS])
def test_conflicting_config(field: str, kinds: tuple[BucketType, ...]) -> None:
    for chosen, valid in [((0,), True), ((1, 2), True), ((0, 1), False), ((0, 2), False)]:
        config = ThrottleConfig()
        for index in chosen:
            config.buckets[kinds[index]].avg = 1
            setattr(config.buckets[kinds[index]], field, 1)
        assert is_valid(config) == valid


@KINDS
@pytest.mark.parametrize("field", ["avg", "max"])
@pytest.mark.parametrize(("value", "valid"), [(-1, False), (0, True), (1, True)])
def test_is_valid(kind: int, field: str, value: int, valid: bool) -> None:
    assert is_valid(with_value(kind, field, value)) == valid


RANGES = [
    ((0, 0, 1), True),
    ((1, 0, 1), True),
    ((VALUE_MAX, 0, 1), True),
    ((VALUE_MAX, VALUE_MAX, 1), True),
    ((VALUE_MAX + 1, 0, 1), False),
    ((VALUE_MAX, VALUE_MAX + 1, 1), False),
    ((1, 1, 0), False),
    ((1, 1, 1), True),
    ((1, 1, VALUE_MAX), True),
    ((1, 1, VALUE_MAX + 1), False),
    ((1, 2, VALUE_MAX // 2), True),
    ((1, 3, VALUE_MAX // 2), False),
    ((1, VALUE_MAX, 1), True),
    ((1, VALUE_MAX, 2), False),
]


@KINDS
@pytest.mark.parametrize(("numbers", "valid"), RANGES)
def test_ranges(kind: int, numbers: tuple[int, int, int], valid: bool) -> None:
    config = ThrottleConfig()
    config.buckets[kind] = LeakyBucket(*numbers)
    assert is_valid(config) == valid


@KINDS
def test_max_is_missing_limit(kind: int) -> None:
    for most, avg, valid in [
        (100, 0, False), (0, 0, True), (0, 100, True), (30, 100, False), (100, 100, True),
    ]:  # fmt: skip
        config = ThrottleConfig()
        config.buckets[kind] = LeakyBucket(avg, most)
        assert is_valid(config) == valid


def test_iops_size_is_missing_limit() -> None:
    config = ThrottleConfig()
    config.op_size = 4096
    assert not is_valid(config)
    config.buckets[BucketType.OPS_READ].avg = 1
    assert is_valid(config)


MESSAGES = [
    ({"iops-total": 1, "iops-read": 1}, "bps/iops/max total values and read/write values cannot "
     "be used at the same time"),
    ({"bps-total": 9, "bps-total-max": 9, "bps-write": 1}, "bps/iops/max total values and "
     "read/write values cannot be used at the same time"),
    ({"iops-size": 512, "bps-total": 1}, "iops size requires an iops value to be set"),
    ({"bps-read": VALUE_MAX + 1}, "bps/iops/max values must be within [0, 1000000000000000]"),
    ({"iops-total": 1, "iops-total-max": 2, "iops-total-max-length": 0},
     "the burst length cannot be 0"),
    ({"iops-total": 1, "iops-total-max-length": 2}, "burst length set without burst rate"),
    ({"iops-total": 1, "iops-total-max": VALUE_MAX, "iops-total-max-length": 2},
     "burst length too high for this burst rate"),
    ({"bps-write-max": 1}, "bps_max/iops_max require corresponding bps/iops values"),
    ({"iops-read": 2, "iops-read-max": 1}, "bps_max/iops_max cannot be lower than bps/iops"),
    ({"iops-total": 1, "iops-total-max-length": -1}, "burst length set without burst rate"),
    ({"bps-read-max-length": 1 << 32},
     "bps-read-max-length value must be in the range [0, 4294967295]"),
]  # fmt: skip


@pytest.mark.parametrize(("limits", "message"), MESSAGES)
def test_what_is_wrong_is_said_in_qemus_words(limits: dict[str, int], message: str) -> None:
    with pytest.raises(BlockError) as refused:
        config_of(limits).check()
    assert str(refused.value) == message


def test_config_functions() -> None:
    config = ThrottleConfig()
    for number, name in enumerate(LIMITS, start=1):
        kind, field = LIMITS[name]
        setattr(config.buckets[kind], field, number)
    config.op_size = 4096
    for bucket in config.buckets:
        bucket.level = 45
    state = ThrottleState()
    assert state.previous_leak == 0
    state.configure(config, 77)
    assert state.previous_leak == 77
    assert state.config == config
    assert state.config.limits()[:3] == (1, 7, 13)
    assert [bucket.level for bucket in state.config.buckets] == [0] * 6


# -- accounting


@pytest.mark.parametrize(
    ("kinds", "size", "op_size", "each"),
    [
        (BPS, 512, 0, 512),
        (BPS, 1024, 0, 1024),
        (BPS, 1024, 17, 1024),
        (OPS, 512, 0, 1),
        (OPS, 1024, 0, 1),
        (OPS, 512, 4096, 1),
        (OPS, 64 * 512, 13 * 512, 64 / 13),
    ],
)
def test_accounting(kinds: tuple[BucketType, ...], size: int, op_size: int, each: float) -> None:
    config = ThrottleConfig()
    for kind in kinds:
        config.buckets[kind].avg = 150
    config.op_size = op_size
    state = ThrottleState()
    state.configure(config, 0)
    state.account(READ, size)
    state.account(WRITE, size)
    levels = [state.config.buckets[kind].level for kind in kinds]
    assert levels == pytest.approx([2 * each, each, each])


def test_a_state_without_limits_never_waits() -> None:
    state = ThrottleState()
    state.account(READ, 1 << 30)
    assert state.compute_wait(READ, 0) == 0


def test_the_longest_wait_of_all_limits_counts() -> None:
    state = ThrottleState()
    state.configure(config_of({"bps-total": 1000, "iops-write": 2, "iops-read": 1000}), 0)
    state.account(WRITE, 200)
    assert state.compute_wait(READ, 0) == 100_000_000
    assert state.compute_wait(WRITE, 0) == 400_000_000


def test_a_clock_that_goes_back_lets_nothing_leak() -> None:
    state = ThrottleState()
    state.configure(config_of({"iops-total": 10}), 5 * SECOND_NS)
    state.account(READ, 1)
    state.account(READ, 1)
    assert state.compute_wait(READ, 4 * SECOND_NS) == 100_000_000
    assert state.compute_wait(READ, 4 * SECOND_NS + 100_000_000) == 0


# -- beside a model: the same in whole numbers, without buckets


def model(avg: int, most: int, length: int, requests: list[tuple[int, int]]) -> Iterator[bool]:
    """Says for (time in ms, units) whether each may run: with the sums since the bucket was last
    empty, in thousandths of a unit."""
    level = burst = at = 0
    size = most * length * 1000 if most else avg * 100
    for now, units in requests:
        level = max(0, level - avg * (now - at))
        burst = max(0, burst - most * (now - at))
        at = now
        runs = level <= size and (length == 1 or burst <= most * 100)
        yield runs
        if runs:
            level += units * 1000
            burst += units * 1000


@pytest.mark.parametrize("seed", range(20))
def test_who_waits_and_who_runs_agrees_with_a_model(seed: int) -> None:
    source = random.Random(seed)
    avg = source.randrange(1, 500)
    most = source.choice((0, avg * source.randrange(1, 9)))
    length = source.randrange(1, 4) if most else 1
    now, requests = 0, []
    for _ in range(400):
        now += source.choice((0, 0, 1, 2, 5, 40, 700))
        requests.append((now, source.choice((1, 1, avg // 4 + 1, avg))))
    bucket = LeakyBucket(avg, most, length)
    at = 0
    ran = []
    for (when, units), expected in zip(requests, model(avg, most, length, requests), strict=True):
        bucket.leak((when - at) * 1_000_000)
        at = when
        # A tie is a matter of the last bit of a float: a nanosecond is none.
        runs = bucket.compute_wait() <= 1
        assert runs == expected, (when, bucket.level)
        ran.append(runs)
        if runs:
            bucket.pour(units)
    assert True in ran
    assert False in ran
