# SPDX-License-Identifier: GPL-2.0-only
"""`-object iothread,...`: a thread for disks, and how long it looks for work (iothread.c)."""

from __future__ import annotations

from .config import CliError
from .options import is_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.iothread import IOThread

    from .config import Item

POLLING = {"poll-max-ns": "poll_max_ns", "poll-grow": "poll_grow", "poll-shrink": "poll_shrink"}
OF_QEMU = ("aio-max-batch", "thread-pool-max", "thread-pool-min")
INT64 = 1 << 63
INTEGER = r"\s*[+-]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)"


def make(item: Item, others: dict[str, IOThread]) -> IOThread:
    """Makes what one -object asks for. Raises CliError."""
    from block.aio.iothread import IOThread

    is_json = item.text[:1] == "{"
    unknown = "Parameter '{}' is unexpected" if is_json else "Invalid parameter '{}'"
    item.refuse_others(("qom-type", "id", *POLLING), OF_QEMU, unknown)
    if "id" not in item.values:
        raise item.error("Parameter 'id' is missing")
    name = item.values["id"]
    if not isinstance(name, str):
        raise item.error("Invalid parameter type for 'id', expected: string")
    if not is_identifier(name):
        raise item.error("Parameter 'id' expects an identifier")
    polling = {POLLING[key]: _duration(item, key, is_json) for key in item.values if key in POLLING}
    if name in others:
        raise item.error(f"Duplicate ID '{name}' for object")
    return IOThread(name, None, **polling)


def _duration(item: Item, key: str, is_json: bool) -> int:
    """A number from 0 to 2^63 - 1 (iothread_set_param); in hexadecimal and octal, too."""
    value = item.values[key]
    if is_json:
        if not isinstance(value, int) or isinstance(value, bool) or not -INT64 <= value < INT64:
            raise item.error(f"Invalid parameter type for '{key}', expected: integer")
        number = value
    else:
        number = _int64(item, key, str(value))
    if number < 0:
        raise CliError(f"{key} value must be in range [0, {INT64 - 1}]")
    return number


def _int64(item: Item, key: str, text: str) -> int:
    """Reads a number as C does, with its prefixes (qemu_strtoi64)."""
    import re  # here, because most starts read no number

    if match := re.fullmatch(INTEGER, text):
        digits = match.group(1)
        octal = digits.startswith("0") and digits[1:2] not in ("x", "X")
        number = int(digits, 8 if octal else 0)
        if "-" in text:
            number = -number
        if -INT64 <= number < INT64:
            return number
    raise item.error(f"Parameter '{key}' expects an int64 value")
