# SPDX-License-Identifier: GPL-2.0-only
"""The names of the limits, as people write them (throttle-options.h, ThrottleLimits).

    iops-total  iops-total-max  iops-total-max-length     and the same with -read and -write,
    bps-total   bps-total-max   bps-total-max-length      for operations and for bytes
    iops-size                                             what counts as one operation

The object takes them as `x-iops-total` and as `limits.iops-total`, -drive as
`throttling.iops-total`, and some under an older name.

Called from any thread; pure functions.
"""

from __future__ import annotations

from block.core.options import invalid
from block.objects.throttle_bucket import BucketType, ThrottleConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

UINT_MAX = 0xFFFF_FFFF
SIZE = "iops-size"
KINDS = {
    "bps-total": BucketType.BPS_TOTAL,
    "bps-read": BucketType.BPS_READ,
    "bps-write": BucketType.BPS_WRITE,
    "iops-total": BucketType.OPS_TOTAL,
    "iops-read": BucketType.OPS_READ,
    "iops-write": BucketType.OPS_WRITE,
}
SUFFIXES = {"": "avg", "-max": "max", "-max-length": "burst_length"}
# name -> which bucket, and which of its fields
LIMITS = {
    kind + suffix: (bucket, field)
    for suffix, field in SUFFIXES.items()
    for kind, bucket in KINDS.items()
}
NAMES = (*LIMITS, SIZE)


def set_limits(config: ThrottleConfig, limits: Mapping[str, int]) -> None:
    """Puts numbers into a configuration by their names; says nothing of what they mean together
    (ThrottleConfig.check does)."""
    for name, value in limits.items():
        value %= 1 << 64  # in C, a negative one is huge
        if name == SIZE:
            config.op_size = value
        else:
            kind, field = LIMITS[name]
            setattr(config.buckets[kind], field, value)


def config_of(limits: Mapping[str, int]) -> ThrottleConfig:
    """The configuration of the object's limits (throttle_limits_to_config).

    Raises BlockError(EINVAL) for a burst length that no C program could hold.
    """
    for name, value in limits.items():
        if name.endswith("-length") and value > UINT_MAX:
            raise invalid(f"{name} value must be in the range [0, {UINT_MAX}]")
    config = ThrottleConfig()
    set_limits(config, limits)
    return config
