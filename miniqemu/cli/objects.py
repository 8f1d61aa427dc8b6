# SPDX-License-Identifier: GPL-2.0-only
"""What every `-object` has: an id, and numbers as C reads them (user_creatable_add).

The text is key=value or JSON. QEMU complains of the two in different words, and so do we.
"""

from __future__ import annotations

from block.core.options import c_integer, is_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from .config import Item

INT64 = 1 << 63


def split_settings(text: str) -> list[str]:
    """The parts of key=value,...; a doubled comma is one within a value, and stays. JSON is one."""
    if text.startswith("{"):
        return [text]
    return [part.replace("\0", ",,") for part in text.replace(",,", "\0").split(",")]


def of_tool(item: Item) -> bool:
    """Whether it is a tool's --object. QEMU's tools read key=value as they read JSON."""
    return item.where == "--object"


def is_json(item: Item) -> bool:
    """Whether an object was described in JSON."""
    return item.text[:1] == "{"


def unknown(item: Item) -> str:
    """What to say of a property that no object has, with {} for its name."""
    if is_json(item) or of_tool(item):
        return "Parameter '{}' is unexpected"
    return "Invalid parameter '{}'"


def id_of(item: Item) -> str:
    """The object's id. Raises CliError."""
    if "id" not in item.values:
        raise item.error("Parameter 'id' is missing")
    name = text(item, "id")
    if not is_identifier(name):
        from .image_opts import ID_HINT

        hint = f"\n{ID_HINT}" if of_tool(item) else ""
        raise item.error(f"Parameter 'id' expects an identifier{hint}")
    return name


def refuse_duplicate(item: Item, name: str, taken: Container[str]) -> None:
    """Raises CliError where another object has the id."""
    if name in taken and of_tool(item):
        raise item.error(f"attempt to add duplicate property '{name}' to object (type 'container')")
    if name in taken:
        raise item.error(f"Duplicate ID '{name}' for object")


def text(item: Item, key: str) -> str:
    """A property's text. Raises CliError."""
    value = item.values[key]
    if not isinstance(value, str):
        raise item.error(f"Invalid parameter type for '{key}', expected: string")
    return value


def int64(item: Item, key: str, value: object) -> int:
    """A property's number from -2^63 to 2^63 - 1. Raises CliError."""
    if not is_json(item):
        return _int64_of_text(item, key, str(value))
    if not isinstance(value, int) or isinstance(value, bool) or not -INT64 <= value < INT64:
        raise item.error(f"Invalid parameter type for '{key}', expected: integer")
    return value


def _int64_of_text(item: Item, key: str, text: str) -> int:
    """Reads a number as C does, with its prefixes (qemu_strtoi64)."""
    number = c_integer(text)
    if number is None or not -INT64 <= number < INT64:
        what = "integer" if of_tool(item) else "an int64 value"
        raise item.error(f"Parameter '{key}' expects {what}")
    return number
