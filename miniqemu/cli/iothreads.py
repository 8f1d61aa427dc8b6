# SPDX-License-Identifier: GPL-2.0-only
"""`-object iothread,...`: a thread for disks, and how long it looks for work (iothread.c)."""

from __future__ import annotations

from . import objects
from .config import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from block.aio.iothread import IOThread

    from .config import Item

POLLING = {"poll-max-ns": "poll_max_ns", "poll-grow": "poll_grow", "poll-shrink": "poll_shrink"}
OF_QEMU = ("aio-max-batch", "thread-pool-max", "thread-pool-min")


def make(item: Item, taken: Container[str]) -> IOThread:
    """Makes what one -object asks for; `taken` are the ids of others. Raises CliError."""
    from block.aio.iothread import IOThread

    item.refuse_others(("qom-type", "id", *POLLING), OF_QEMU, objects.unknown(item))
    name = objects.id_of(item)
    polling = {POLLING[key]: _duration(item, key) for key in item.values if key in POLLING}
    objects.refuse_duplicate(item, name, taken)
    return IOThread(name, None, **polling)


def _duration(item: Item, key: str) -> int:
    """A number from 0 to 2^63 - 1 (iothread_set_param); in hexadecimal and octal, too."""
    number = objects.int64(item, key, item.values[key])
    if number < 0:
        raise CliError(f"{key} value must be in range [0, {objects.INT64 - 1}]")
    return number
