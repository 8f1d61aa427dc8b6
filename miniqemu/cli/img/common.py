# SPDX-License-Identifier: GPL-2.0-only
"""What the commands of miniqemu-img share: numbers, option lists, opening images (qemu-img.c)."""

from __future__ import annotations

from block.core import flags as f
from block.core.cache import parse_cache_mode
from block.core.error import BlockError
from block.core.open import open_backend
from block.core.options import c_integer, size_of_text
from miniqemu.cli.getopt import Words

from .errors import Failure, Stop, because, misused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from block.core.backend import BlockBackend
    from miniqemu.cli.user_objects import Made

SUFFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
# Long options that most commands have.
HELP = {"help": ("h", False), "object": ("object", True)}
IMAGE = {**HELP, "image-opts": ("image-opts", False)}
SHARED = {**IMAGE, "force-share": ("U", False)}
FORMAT = {"format": ("f", True)}
OUTPUT = {"output": ("output", True)}

objects: Made = {}  # what --object has made for the command that runs


def options_of(program: str, words: Words, status: int = 1) -> Iterator[tuple[str, str]]:
    """A command's options, without those that mean the same to all commands.

    `status` is the exit status where an object cannot be made.
    """
    for option, value in words:
        if option == "h":
            from .help import help_text

            raise Stop(help_text(program))
        if option == "object":
            _make_object(value, status)
        else:
            yield option, value


def one_image(program: str, words: Words) -> str:
    """The image that a command is about; most know of one only."""
    if len(words.rest) != 1:
        raise misused(program, "Expecting one image file name")
    return words.rest[0]


def _make_object(text: str, status: int) -> None:
    from miniqemu.cli.config import CliError
    from miniqemu.cli.user_objects import Asked, create

    try:
        create(text, objects)
    except Asked as answer:
        raise Stop(str(answer)) from None
    except CliError as error:
        raise Failure(str(error), status=status) from None


def drop_objects() -> None:
    """The command is done: what --object made goes."""
    if objects:
        from miniqemu.cli.user_objects import drop

        drop(objects)


def wants_json(output: str | None) -> bool:
    """Whether --output asks for JSON."""
    if output not in (None, "json", "human"):
        raise Failure("--output must be used with human or json as argument.")
    return output == "json"


def cvtnum(name: str, text: str, least: int = 0, most: int = f.INT64_MAX) -> int:
    """A number of bytes from its text (cvtnum_full)."""
    size = size_of_text(text)
    if size is None:
        raise Failure(
            f"Invalid {name} specified. You may use k, M, G, T, P or E suffixes for",
            "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
        )
    if not least <= size <= most:
        raise Failure(f"Invalid {name} specified. Must be between {least} and {most}.")
    return size


def size_to_str(size: int) -> str:
    """A size as a person reads it: '10 MiB', '1.5 GiB' (size_to_str)."""
    # Three digits at most: the next unit begins at 1000 of a lower one.
    exponent = max(0, (size * 128 // 125).bit_length() - 1) // 10
    return f"{size / (1 << exponent * 10):.3g} {SUFFIXES[exponent]}B"


def add_options(options: list[str], text: str) -> None:
    """Keeps one more -o, which may be given several times (accumulate_options).

    Lists are joined by commas, so none may begin with one, or end with an odd number.
    """
    commas = len(text) - len(text.rstrip(","))
    if not text or text.startswith(",") or commas % 2:
        raise Failure(f"Invalid option list: {text}")
    options.append(text)


def has_help_option(options: list[str]) -> bool:
    """Whether one of the options is a cry for help; 'help=on' is none (has_help_option)."""
    from block.core.keyval import is_help, split_value

    text, at, found = ",".join(options), 0, False
    while at < len(text) and not found:
        word, at = split_value(text, at)
        found = is_help(word)
    return found


def cache_flags(mode: str, what: str = "cache", status: int = 1) -> tuple[int, bool]:
    """Open flags and `writethrough` of a cache mode."""
    try:
        return parse_cache_mode(mode)
    except BlockError:
        raise Failure(f"Invalid {what} option: {mode}", status=status) from None


def img_open(
    filename: str,
    fmt: str | None,
    flags: int,
    *,
    image_opts: bool = False,
    writethrough: bool = False,
    force_share: bool = False,
    shared: int = f.BLK_PERM_ALL,
    status: int = 1,
    more: Mapping[str, object] | None = None,
) -> BlockBackend:
    """Opens an image as the command line describes it (img_open); the caller closes it.

    `shared` is what others may do with it meanwhile (BLK_PERM_*); `more` are options of its driver.
    """
    options: dict[str, object] = dict(more or {})
    name: str | None = filename
    if image_opts:
        if fmt is not None:
            raise Failure("--image-opts and --format are mutually exclusive", status=status)
        from miniqemu.cli.image_opts import parse_image_opts

        options, name = parse_image_opts(filename, "file"), None
        if force_share and options.get("force-share", "on") != "on":
            raise Failure("--force-share/-U conflicts with image options", status=status)
    elif fmt is not None:
        options["driver"] = fmt
    if force_share:
        options["force-share"] = True
    try:
        return open_backend(
            name, options=options, flags=flags, writethrough=writethrough, shared_perm=shared
        )
    except BlockError as error:
        raise because(error, f"Could not open '{filename}': ", status) from error


def integer(text: str, least: int, most: int, complaint: str) -> int:
    """A whole number as C's strtol reads it: decimal, 0x or 0 octal (qemu_strtol)."""
    number = c_integer(text)
    if number is None or not least <= number <= most:
        raise Failure(complaint)
    return number


def limit_rate(blk: BlockBackend, rate: int) -> None:
    """Lets a backend write so many bytes a second at most (set_rate_limit)."""
    from block.core.backend_limits import io_limits_enable, set_io_limits
    from block.objects.throttle_options import config_of

    io_limits_enable(blk, "img_throttle")
    set_io_limits(blk, config_of({"bps-write": rate}))
