# SPDX-License-Identifier: GPL-2.0-only
"""Limits on the command line: `-object throttle-group,...` and the throttling of -drive.

    -object throttle-group,id=g,x-iops-total=100          or limits.iops-total=100
    -drive ...,throttling.iops-total=100,throttling.group=g     or iops=100,group=g

The object's limits are for nodes with the driver `throttle`. Those of a -drive are its own
BlockBackend's; drives that name one group share the limits of the last.
"""

from __future__ import annotations

from block.core.error import BlockError
from block.core.options import parse_number
from block.objects.throttle_bucket import ThrottleConfig
from block.objects.throttle_options import NAMES, UINT_MAX, config_of, set_limits

from . import objects
from .config import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from block.core.backend import BlockBackend
    from block.objects.throttle_group import ThrottleGroup

    from .config import Item

PREFIX = "throttling."
PROPERTIES = tuple(f"x-{name}" for name in NAMES)


def make_group(item: Item, taken: Container[str]) -> ThrottleGroup:
    """Makes what one -object asks for; `taken` are the ids of others. Raises CliError."""
    from block.objects.throttle_group import throttle_group_create

    item.refuse_others(("qom-type", "id", "limits", *PROPERTIES), (), objects.unknown(item))
    name = objects.id_of(item)
    alone = {key: objects.int64(item, key, item.values[key]) for key in PROPERTIES
             if key in item.values}  # fmt: skip
    limits = _limits(item)
    objects.refuse_duplicate(item, name, taken)
    for key, value in alone.items():
        _check_property(key, value)
    try:
        config = config_of(limits)
        set_limits(config, {key.removeprefix("x-"): value for key, value in alone.items()})
        return throttle_group_create(name, config)
    except BlockError as error:
        raise item.error(str(error)) from None


def _limits(item: Item) -> dict[str, int]:
    """The tree `limits` (ThrottleLimits)."""
    given = item.values.get("limits", {})
    if not isinstance(given, dict):
        if objects.is_json(item) or objects.of_tool(item):
            raise item.error("Invalid parameter type for 'limits', expected: object")
        raise item.error("Invalid parameter 'limits'")
    for key in given:
        if key not in NAMES:
            raise item.error(objects.unknown(item).format(f"limits.{key}"))
    return {key: objects.int64(item, f"limits.{key}", value) for key, value in given.items()}


def _check_property(key: str, value: int) -> None:
    """What a single property is told, whatever the others say (throttle_group_set)."""
    if value < 0:
        raise CliError("Property values cannot be negative")
    if key.endswith("-length") and value > UINT_MAX:
        raise CliError(f"{key} value must be in the range [0, {UINT_MAX}]")


class DriveThrottling:
    """What one -drive says of limits: takes that out of its options. Raises CliError."""

    def __init__(self, item: Item, options: dict[str, object]) -> None:
        self.config = ThrottleConfig()
        group = options.pop(f"{PREFIX}group", None)
        self.group = None if group is None else str(group)
        limits = {}
        for name in NAMES:
            if PREFIX + name in options:
                value = options.pop(PREFIX + name)
                limits[name] = item.check(parse_number, PREFIX + name, value)
        set_limits(self.config, limits)
        item.check(self.config.check)

    def enable(self, blk: BlockBackend) -> None:
        """Puts the limits in force."""
        from block.core.backend_limits import io_limits_enable, set_io_limits

        if self.config.enabled:
            io_limits_enable(blk, self.group or blk.name)
            set_io_limits(blk, self.config)
