# SPDX-License-Identifier: GPL-2.0-only
"""Options of drivers: how one is declared, how its text becomes a value, flat and nested forms.

R1  A driver declares its options as a tuple of Option; `take_options` removes those from the
    dictionary that it is given and converts them. What stays there is for someone else: in
    the end the core refuses leftovers by name.
R2  Values come as text (-drive, key=value) or as JSON types (-blockdev, json:{}). Both are
    accepted everywhere: 'on' and True, '4k' and 4096.
R3  Two forms of one tree of options: nested {'file': {'filename': 'a'}} and flat
    {'file.filename': 'a'}. The core works on the flat form (as QEMU does on flat QDicts).
R4  Messages are QEMU's: they name the parameter and what it expects.

Nothing here knows of a command line: miniqemu, -img and -io all use these functions.
Called from any thread; pure functions, but for one warning. Source: util/qemu-option.c,
util/cutils.c, qobject/block-qdict.c.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.core.report import warn_report

TYPE_CHECKING = False  # `typing` costs 3 ms of a tool's start
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

SIZE_HINT = (
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
    "and exabytes, respectively."
)
SUFFIXES = "BKMGTPE"
DIGITS = frozenset("0123456789")
DIGITS_OF = {8: frozenset("01234567"), 10: DIGITS, 16: frozenset("0123456789abcdefABCDEF")}
MOST_DIGITS = 99
"""Of longer numbers no more is looked at: they are out of every range, and int() takes 4300."""
TYPE_NAMES = {"string": "str", "bool": "bool (on/off)", "number": "num", "size": "size"}


class Option:
    """One option that a driver or a command accepts (QemuOptDesc).

    `kind` is 'string', 'bool', 'number' or 'size'; `default` is what `take_options` gives
    when the user did not say, already converted.
    """

    __slots__ = ("default", "help", "kind", "name")

    def __init__(self, name: str, kind: str, help: str = "", default: object = None) -> None:
        assert kind in TYPE_NAMES, kind
        self.name = name
        self.kind = kind
        self.help = help
        self.default = default

    def parse(self, value: object, name: str | None = None) -> object:
        """Converts a user's value; `name` replaces the option's own name in messages."""
        return PARSERS[self.kind](name or self.name, value)


def invalid(message: str, hint: str = "") -> BlockError:
    """An EINVAL with QEMU's text."""
    return BlockError(errno.EINVAL, message, hint=hint)


def is_identifier(name: str) -> bool:
    """Whether a person may use this as an id: a letter, then letters, digits, '-', '.' and '_'
    (id_wellformed)."""
    rest = name.replace("-", "").replace(".", "").replace("_", "")
    return name.isascii() and name[:1].isalpha() and rest.isalnum()


def parse_string(name: str, value: object) -> str:
    """The text of a value; JSON numbers and booleans become what a user would have typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str | int | float):
        return str(value)
    raise invalid(f"Parameter '{name}' expects a string")


def parse_bool(name: str, value: object) -> bool:
    """'on' or 'off' and what else QEMU takes for them, or JSON's true and false
    (qapi_bool_parse)."""
    if isinstance(value, bool):
        return value
    if value in ("on", "yes", "true", "y"):
        return True
    if value in ("off", "no", "false", "n"):
        return False
    raise invalid(f"Parameter '{name}' expects 'on' or 'off'")


def parse_number(name: str, value: object) -> int:
    """An unsigned number below 2^64, decimal, 0x or 0 octal (parse_option_number).

    A minus sign wraps around at 2^64, as strtoull has it: drivers then find it too large.
    """
    number = c_integer(value) if isinstance(value, str) else value
    if not isinstance(number, int) or isinstance(number, bool):
        raise invalid(f"Parameter '{name}' expects a number")
    if abs(number) >= 1 << 64:
        raise invalid(f"Value '{value}' is too large for parameter '{name}'")
    return number % (1 << 64)


def c_integer(text: str) -> int | None:
    """A whole number as C's strtol reads it: decimal, 0x or 0 octal, with a sign or none.

    None where the text is no number, or has something behind it.
    """
    digits = text.lstrip()
    sign = -1 if digits[:1] == "-" else 1
    digits = digits[1:] if digits[:1] in ("+", "-") else digits
    if digits[:2].lower() == "0x":
        number = _number_of(digits[2:], 16)
    else:
        number = _number_of(digits, 8 if digits[:1] == "0" else 10)
    return None if number is None else sign * number


def _number_of(digits: str, base: int) -> int | None:
    """What digits say. int() would let more than digits pass: signs, blanks, '_', prefixes."""
    if not digits or not DIGITS_OF[base].issuperset(digits):
        return None
    return int(digits.lstrip("0")[:MOST_DIGITS] or "0", base)


def parse_size(name: str, value: object) -> int:
    """Bytes, from '4096', '0x1000', '4k', '1.5M' (parse_option_size, qemu_strtosz).

    A fraction needs a suffix above B, and hexadecimal should have none (size_of_text); below 2^64.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < 1 << 64:
            return value
        raise invalid(f"Parameter '{name}' expects a non-negative number below 2^64", SIZE_HINT)
    size = size_of_text(value) if isinstance(value, str) else None
    if size is None:
        raise invalid(f"Parameter '{name}' expects a non-negative number below 2^64", SIZE_HINT)
    if size >= 1 << 64:
        raise invalid(f"Value '{value}' is out of range for parameter '{name}'")
    return size


def size_of_text(value: str, default_suffix: str = "B") -> int | None:
    """The bytes that a size such as '1.5G' means, or None where it is no size (qemu_strtosz).

    '0x1K' is 1024, with a warning: whether B and E are digits or suffixes, few people know.
    """
    text = value.lstrip().removeprefix("+").upper()
    exponent = SUFFIXES.find(text[-1:]) if text else -1
    if text.startswith("0X"):
        return _hexadecimal(text[2:], value)
    if exponent < 0:
        exponent = SUFFIXES.index(default_suffix)
    else:
        text = text[:-1]
    digits, _, fraction = text.partition(".")
    whole = _number_of(digits, 10)
    if whole is None or not DIGITS.issuperset(fraction):
        return None
    fraction = fraction[:MOST_DIGITS].rstrip("0")
    if not fraction:
        return whole << 10 * exponent
    if exponent == 0:
        return None
    scale: int = 10 ** len(fraction)
    return (whole << 10 * exponent) + ((int(fraction) << 10 * exponent) + scale // 2) // scale


def _hexadecimal(digits: str, value: str) -> int | None:
    suffix = digits[-1:] if digits[-1:] in ("K", "M", "G", "T", "P") else ""
    number = _number_of(digits.removesuffix(suffix), 16)
    if number is None or not suffix:
        return number
    warn_report(f"Using a multiplier suffix on hex numbers is deprecated: {value}")
    return number << 10 * SUFFIXES.index(suffix)


def parse_enum(name: str, value: object, choices: Iterable[str], default: str) -> str:
    """One of `choices`; None means `default` (qapi_enum_parse)."""
    if value is None:
        return default
    if isinstance(value, str) and value in choices:
        return value
    raise invalid(f"Parameter '{name}' does not accept value '{parse_string(name, value)}'")


PARSERS = {
    "string": parse_string,
    "bool": parse_bool,
    "number": parse_number,
    "size": parse_size,
}


def by_name(*lists: Iterable[Option]) -> dict[str, Option]:
    """Declared options by their names; of two with one name the first counts
    (qemu_opts_append)."""
    found: dict[str, Option] = {}
    for declared in lists:
        for option in declared:
            found.setdefault(option.name, option)
    return found


def take_options(options: dict[str, object], declared: Iterable[Option]) -> dict[str, Any]:
    """Removes the declared options from `options` and returns them converted
    (qemu_opts_absorb_qdict). Options that are absent come with their default.

    Raises BlockError(EINVAL) that names the parameter.
    """
    taken: dict[str, Any] = {}
    for option in declared:
        if option.name in options:
            taken[option.name] = option.parse(options.pop(option.name))
        else:
            taken[option.name] = option.default
    return taken


def take_sub_options(options: dict[str, object], key: str) -> dict[str, object]:
    """Removes the flat options under 'key.' and returns them without that prefix
    (qdict_extract_subqdict)."""
    prefix = key + "."
    mine = [name for name in options if name.startswith(prefix)]
    return {name[len(prefix) :]: options.pop(name) for name in mine}


def flatten(nested: Mapping[str, object]) -> dict[str, object]:
    """{'file': {'filename': 'a'}} -> {'file.filename': 'a'} (qdict_flatten).

    Lists become 'key.0', 'key.1'; an empty object or list stays as it is, None is JSON's null.
    """
    flat: dict[str, object] = {}
    _flatten_into(flat, "", nested.items())
    return flat


def _flatten_into(
    flat: dict[str, object], prefix: str, items: Iterable[tuple[str, object]]
) -> None:
    for key, value in items:
        if isinstance(value, dict) and value:
            _flatten_into(flat, f"{prefix}{key}.", value.items())
        elif isinstance(value, list) and value:
            numbered = ((str(index), element) for index, element in enumerate(value))
            _flatten_into(flat, f"{prefix}{key}.", numbered)
        else:
            flat[prefix + key] = value


def crumple(flat: Mapping[str, object]) -> dict[str, object]:
    """{'file.filename': 'a'} -> {'file': {'filename': 'a'}} (qdict_crumple).

    Raises BlockError(EINVAL) where a name is a value and a tree at once.
    """
    nested: dict[str, object] = {}
    for key, value in flat.items():
        tree, name = tree_of(nested, key)
        if name in tree:
            raise inconsistent(key)
        tree[name] = value
    return {key: listify(value, (key,)) for key, value in nested.items()}


def tree_of(nested: dict[str, object], key: str) -> tuple[dict[str, object], str]:
    """The tree in which a dotted key has its value, made where there is none, and its name there.

    Raises BlockError(EINVAL) where a name on the way is a value.
    """
    *path, last = key.split(".")
    here = nested
    for depth, step in enumerate(path):
        there = here.setdefault(step, {})
        if not isinstance(there, dict):
            raise inconsistent(".".join(path[: depth + 1]))
        here = there
    return here, last


def inconsistent(key: str) -> BlockError:
    """The error for a key that is a value and a tree at once, or a list and none."""
    return invalid(f"Parameters '{key}.*' used inconsistently")


def listify(value: object, path: tuple[str, ...]) -> object:
    """Turns trees whose keys are 0, 1, 2 ... into lists, recursively (keyval_listify)."""
    if not isinstance(value, dict):
        return value
    tree = {key: listify(inner, (*path, key)) for key, inner in value.items()}
    numbers = [key for key in tree if key and DIGITS.issuperset(key)]
    if not numbers:
        return tree
    if len(numbers) != len(tree):
        raise inconsistent(".".join(path))
    by_index = {int(key): element for key, element in tree.items()}
    missing = next((index for index in range(max(by_index)) if index not in by_index), None)
    if missing is not None:
        raise invalid(f"Parameter '{'.'.join(path)}.{missing}' missing")
    return [by_index[index] for index in sorted(by_index)]


def format_help(declared: Iterable[Option]) -> list[str]:
    """The lines that `-o help` prints for a list of options (qemu_opts_print_help)."""
    lines = []
    for option in declared:
        head = f"  {option.name}=<{TYPE_NAMES[option.kind]}>"
        lines.append(f"{head:<24} - {option.help}" if option.help else head)
    return sorted(lines)
