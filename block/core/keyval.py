# SPDX-License-Identifier: GPL-2.0-only
"""The texts in which options arrive: 'a=b,c.d=e', and JSON.

R1  Two grammars that look alike. QemuOpts ('-drive', '-device', '-o'): flat, a name without '='
    is a flag, later settings win. keyval ('-blockdev', '-object'): dots nest, numbers make
    lists, every name needs its '='; only the first may leave out an implied key.
R2  In both a comma inside a value is doubled: 'file=a,,b.img' names 'a,b.img'.
R3  Text that begins with '{' is JSON, where a command takes JSON at all.

Nothing here knows which command is parsed. Pure functions, callable from any thread.
Source: util/qemu-option.c, util/keyval.c, block.c (parse_json_filename).
"""

from __future__ import annotations

from block.core import options as opt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FRAGMENT = 127
# What follows a backslash in JSON: a pair of surrogates, which is a character; half of one, which
# is caught; or all else.
ESCAPES = r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)"


def split_value(text: str, start: int) -> tuple[str, int]:
    """Reads a value up to the next single comma (get_opt_value).

    Returns the value with doubled commas halved, and the index behind the ending comma.
    """
    parts = []
    while True:
        comma = text.find(",", start)
        if comma < 0:
            parts.append(text[start:])
            return ",".join(parts), len(text)
        parts.append(text[start:comma])
        if text[comma + 1 : comma + 2] != ",":
            return ",".join(parts), comma + 1
        start = comma + 2


def split_opts(
    text: str,
    implied: str | None = None,
    on_flag: Callable[[str, str, str], None] | None = None,
) -> list[tuple[str, str]]:
    """Splits QemuOpts text into (name, value) pairs, in order (get_opt_name_value).

    `implied` names the first value when it has no '='. Elsewhere a bare 'foo' means foo=on
    and 'nofoo' means foo=off; `on_flag(word, name, value)` hears of each such flag, so that
    a program can warn as QEMU does.
    """
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        equals, comma = text.find("=", at), text.find(",", at)
        if equals >= 0 and (comma < 0 or equals < comma):
            value, after = split_value(text, equals + 1)
            pairs.append((text[at:equals], value))
        elif implied is not None and not pairs:
            value, after = split_value(text, at)
            pairs.append((implied, value))
        else:
            end = comma if comma >= 0 else len(text)
            pairs.append(_flag(text[at:end], on_flag))
            after = end + 1
        at = after
    return pairs


def _flag(word: str, on_flag: Callable[[str, str, str], None] | None) -> tuple[str, str]:
    if is_help(word):
        return word, "on"
    name, value = (word[2:], "off") if word.startswith("no") else (word, "on")
    if on_flag is not None:
        on_flag(word, name, value)
    return name, value


def is_help(word: str) -> bool:
    """True for the words that ask for help instead of naming an option (is_help_option)."""
    return word in ("help", "?")


def parse_opts(text: str, implied: str | None = None) -> dict[str, object]:
    """QemuOpts text as a flat dictionary; of two settings of one name the later wins
    (qemu_opts_parse)."""
    return dict(split_opts(text, implied))


def escape(value: str) -> str:
    """Doubles the commas of a value, so that it can stand in option text."""
    return value.replace(",", ",,")


def parse_keyval(text: str, implied: str | None = None) -> dict[str, object]:
    """keyval text as nested dictionaries and lists of strings (keyval_parse).

    Raises BlockError(EINVAL): a name that is none, a missing '=', a name used as a value
    and as a tree, a gap in a list.
    """
    nested: dict[str, object] = {}
    at = 0
    while at < len(text):
        key, at = _keyval_key(text, at, implied)
        value, at = split_value(text, at)
        tree, name = opt.tree_of(nested, key)
        if isinstance(tree.get(name), dict):
            raise opt.inconsistent(key)
        tree[name] = value
        implied = None
    return {key: opt.listify(value, (key,)) for key, value in nested.items()}


def _keyval_key(text: str, at: int, implied: str | None) -> tuple[str, int]:
    """Returns a key and where its value begins."""
    stops = [found for found in (text.find("=", at), text.find(",", at)) if found >= 0]
    end = min(stops, default=len(text))
    has_equals = text[end : end + 1] == "="
    if implied is not None and end > at and not has_equals:
        return implied, at
    key = text[at:end]
    for position, fragment in enumerate(key.split(".")):
        _check_fragment(key, fragment, position)
    if not has_equals:
        raise opt.invalid(f"Expected '=' after parameter '{key}'")
    return key, end + 1


def _check_fragment(key: str, fragment: str, position: int) -> None:
    if not (position and fragment.isascii() and fragment.isdecimal()) and not is_name(fragment):
        raise opt.invalid(f"Invalid parameter '{key}'")
    if len(fragment) > MAX_FRAGMENT:
        what = " fragment" if fragment != key else ""
        raise opt.invalid(f"Parameter{what} '{fragment}' is too long")


def is_name(fragment: str) -> bool:
    """True for a name that QAPI could have: a letter, then letters, digits, '-' and '_'
    (parse_qapi_name)."""
    word = fragment.replace("-", "").replace("_", "")
    return fragment[:1].isalpha() and word.isalnum() and fragment.isascii()


def parse_json_object(text: str) -> dict[str, object]:
    """The object that a JSON text describes, nested (qobject_from_json).

    Single quotes are accepted around strings, as QEMU's parser has it. Raises
    BlockError(EINVAL): 'JSON parse error, ...' or 'Invalid JSON object given'.
    """
    import json

    try:
        value = json.loads(text)
    except RecursionError:
        raise opt.invalid("JSON parse error, nesting is too deep") from None
    except ValueError as error:
        try:
            value = json.loads(_double_quoted(text))
        except (ValueError, RecursionError):
            raise opt.invalid(f"JSON parse error, {_reason(error)}") from None
    if not isinstance(value, dict):
        raise opt.invalid("Invalid JSON object given")
    _refuse_half_characters(text)
    return value


def _refuse_half_characters(text: str) -> None:
    """Python reads what is no character, \\ud800 alone; no name of a file can have it."""
    import re  # `json` has imported it

    for escape in re.finditer(ESCAPES, text, re.DOTALL):
        if escape[1]:
            raise opt.invalid(f"JSON parse error, \\{escape[1]} is not a valid Unicode character")


def _reason(error: ValueError) -> str:
    message = getattr(error, "msg", str(error))
    column = getattr(error, "colno", 0)
    return f"{message[:1].lower()}{message[1:]} at column {column}"


def _double_quoted(text: str) -> str:
    """The same JSON with 'single' quoted strings in double quotes."""
    out: list[str] = []
    quote = ""
    escaped = False
    for char in text:
        if escaped:
            escaped = False
            if char == "'":
                out.pop()
        elif quote and char == "\\":
            escaped = True
        elif char == quote or (not quote and char in "'\""):
            quote = "" if quote else char
            char = '"'
        elif quote == "'" and char == '"':
            out.append("\\")
        out.append(char)
    return "".join(out)


def parse_either(text: str, implied: str | None = None) -> dict[str, object]:
    """What '-blockdev' and '-object' take: JSON when it begins with '{', else keyval."""
    return parse_json_object(text) if text.startswith("{") else parse_keyval(text, implied)
