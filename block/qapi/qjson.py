# SPDX-License-Identifier: GPL-2.0-only
"""JSON as QEMU prints it, byte for byte (qobject/qjson.c, qobject/qdict.c).

R1  The members of an object come in the order of QEMU's hash table, so that a text of ours can
    be compared with one of QEMU's. That order depends on the names, and where two of them meet
    in one bucket the later one comes first.
R2  Everything but printable ASCII is escaped, with capital digits. Text is UTF-8 with
    surrogateescape, as Python has file names: a sequence that is no UTF-8, as C's
    mod_utf8_codepoint sees it, becomes one U+FFFD.

Pure functions; any thread.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BUCKETS = 512
ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
}  # fmt: skip
# The least code point that takes a sequence of two bytes, of three, ...
LEAST = (0x80, 0x800, 0x10000, 0x200000, 0x4000000)


def dict_items(members: Mapping[str, object]) -> list[tuple[str, object]]:
    """An object's members in the order of QEMU's hash table (qdict_first, qdict_next; R1)."""
    items = list(members.items())
    items.reverse()
    items.sort(key=lambda item: _bucket(item[0]))
    return items


def _bucket(name: str) -> int:
    """Where a name goes (tdb_hash)."""
    data = name.encode(errors="surrogateescape")
    value = 0x238F13AF * len(data)
    for index, byte in enumerate(data):
        value += byte << (index * 5 % 24)
    return (1103515243 * value + 12345) % (1 << 32) % BUCKETS


def to_json(value: object, pretty: bool = False, indent: int = 0) -> str:
    """The text of a value (qobject_to_json, with `pretty` qobject_to_json_pretty).

    Objects are dictionaries with str keys; lists, str, bool, int, float and None are themselves.
    """
    if isinstance(value, dict):
        parts = [
            f"{quoted(name)}: {to_json(member, pretty, indent + 1)}"
            for name, member in dict_items(value)
        ]
        return _enclosed("{", parts, "}", pretty, indent)
    if isinstance(value, list):
        parts = [to_json(member, pretty, indent + 1) for member in value]
        return _enclosed("[", parts, "]", pretty, indent)
    return _scalar(value)


def _enclosed(begin: str, parts: list[str], end: str, pretty: bool, indent: int) -> str:
    if not pretty:
        return begin + ", ".join(parts) + end
    margin = "\n" + "    " * indent
    inner = ",".join(f"{margin}    {part}" for part in parts)
    return f"{begin}{inner}{margin}{end}"


def _scalar(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return f"{value:.17g}"
    assert isinstance(value, int), f"no JSON for {value!r}"
    return str(value)


def quoted(text: str) -> str:
    """A string between quotation marks, escaped (R2)."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    data = text.encode(errors="surrogateescape")
    return '"' + "".join(_escaped(code) for code in _code_points(data)) + '"'


def _escaped(code: int) -> str:
    char = chr(code)
    if char in ESCAPES:
        return ESCAPES[char]
    if 0x20 <= code < 0x7F:
        return char
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04X}\\u{0xDC00 + (code & 0x3FF):04X}"
    return f"\\u{code:04X}"


def _code_points(data: bytes) -> Iterator[int]:
    """The characters of UTF-8 text, U+FFFD for each sequence that is none
    (mod_utf8_codepoint)."""
    at = 0
    while at < len(data):
        code, at = _code_point(data, at)
        yield code


def _code_point(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    at += 1
    if first < 0x80:
        return first, at
    if first >= 0xFE or not first & 0x40:
        return 0xFFFD, at
    length = 8 - (first ^ 0xFF).bit_length()
    code = first & (0x7F >> length)
    for _ in range(1, length):
        if at >= len(data) or data[at] & 0xC0 != 0x80:
            return 0xFFFD, at
        code = code << 6 | data[at] & 0x3F
        at += 1
    return (code if _is_valid(code, LEAST[length - 2]) else 0xFFFD), at


def _is_valid(code: int, least: int) -> bool:
    """Neither too long a form, nor a surrogate, nor a noncharacter (is_valid_codepoint)."""
    if not least <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        return False
    return not (0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE)
