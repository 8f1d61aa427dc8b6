# SPDX-License-Identifier: GPL-2.0-only
"""Making an image as a tool does it: options as text, the size from the backing file
(bdrv_img_create).

R1  The backing file is looked at before the new image is made: does it exist, is its format
    what the user says? An image made `unsafe` skips that, and then needs a size and a format.
R2  `say` gets the line that shows all options with their values, before anything is written.
R3  Messages are QEMU's, without the name of the program and of the image.
Called in the main thread; blocks.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.error import BlockError
from block.core.filename import full_backing_filename
from block.core.keyval import escape, split_opts
from block.core.open import open_backend
from block.core.options import Option, by_name, format_help, invalid
from block.core.registry import find_format, find_protocol, find_row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.core.backend import BlockBackend
    from block.core.driver import BlockDriver


class Request:
    """What the user asks for; `size` in bytes, None: that of the backing file. A `backing` of ""
    was asked for too, and is none."""

    def __init__(
        self,
        filename: str,
        fmt: str = "raw",
        size: int | None = None,
        options: str = "",
        backing: str | None = None,
        backing_fmt: str = "",
        unsafe: bool = False,
    ) -> None:
        self.filename = filename
        self.fmt = fmt
        self.size = size
        self.options = options
        self.backing = backing
        self.backing_fmt = backing_fmt
        self.unsafe = unsafe


def img_create(request: Request, say: Callable[[str], None]) -> None:
    """Makes the image. Raises BlockError."""
    driver, values = prepare(request)
    if request.size is not None and "size" in dict(split_opts(request.options)):
        raise invalid("The image size must be specified only once")
    if "backing_file" in values:
        _look_at_backing(request, values)
    if "size" not in values:
        raise invalid("Image creation needs a size parameter")
    say(_summary(request, driver, values))
    has_clusters = "cluster_size" in by_name(driver.create_opts)
    try:
        driver.create(request.filename, values)
    except BlockError as error:
        if error.errno != errno.EFBIG:
            raise
        hint = " (try using a larger cluster size)" if has_clusters else ""
        message = f"The image size is too large for file format '{request.fmt}'{hint}"
        raise BlockError(errno.EFBIG, message) from error


def _look_at_backing(request: Request, values: dict[str, object]) -> None:
    """Refuses a backing file that cannot be one; takes its length, if none was given (R1)."""
    backing, fmt = str(values["backing_file"]), values.get("backing_fmt")
    if backing == request.filename:
        raise invalid("Error: Trying to create an image with the same filename as the backing file")
    if not backing:
        raise invalid("Expected backing file name, got empty string")
    if not request.unsafe:
        values.setdefault("size", _backing_size(request, backing, fmt))
    elif fmt is None:
        raise invalid("Backing file specified without backing format")


def prepare(request: Request) -> tuple[BlockDriver, dict[str, object]]:
    """The driver that will make the image, and its options, converted. Nothing is made yet."""
    driver, declared = _declared(request.fmt, request.filename)
    values = parse_options(request.options, declared)
    _add_backing(request, driver, values)
    if request.size is not None:
        values["size"] = request.size
    return driver, values


def help_text(fmt: str, filename: str | None) -> str:
    """What `-o help` prints."""
    driver = creatable(fmt)
    text = "\n".join([f"Supported {fmt} options:", *format_help(driver.create_opts)])
    if filename is None:
        return (
            f"{text}\n\nThe protocol level may support further options.\n"
            "Specify the target filename to include those options.\n"
        )
    _, declared = _declared(fmt, filename)
    return "\n".join(["Supported options:", *format_help(declared.values())]) + "\n"


def creatable(fmt: str) -> BlockDriver:
    """The driver of a format whose images can be made. Raises BlockError."""
    if find_row(fmt) is None:
        raise invalid(f"Unknown file format '{fmt}'")
    driver = find_format(fmt)
    if "create" not in driver.hooks:
        raise BlockError(errno.ENOTSUP, f"Format driver '{fmt}' does not support image creation")
    return driver


def _declared(fmt: str, filename: str) -> tuple[BlockDriver, dict[str, Option]]:
    """The format's driver, and its options before the protocol's."""
    driver, protocol = creatable(fmt), find_protocol(filename)
    if "create" not in protocol.hooks:
        name = protocol.format_name
        raise BlockError(errno.ENOTSUP, f"Protocol driver '{name}' does not support image creation")
    return driver, by_name(driver.create_opts, protocol.create_opts)


def parse_options(text: str, declared: dict[str, Option]) -> dict[str, object]:
    """Converted values of 'a=b,c=d'; the last of several holds."""
    values: dict[str, object] = {}
    for name, value in split_opts(text):
        if name not in declared:
            raise invalid(f"Invalid parameter '{name}'")
        values[name] = declared[name].parse(value)
    return values


def _add_backing(request: Request, driver: BlockDriver, values: dict[str, object]) -> None:
    known = by_name(driver.create_opts)
    for name, value, what in (
        ("backing_file", request.backing, "Backing file"),
        ("backing_fmt", request.backing_fmt or None, "Backing file format"),
    ):
        if value is not None and name not in known:
            raise invalid(f"{what} not supported for file format '{request.fmt}'")
        if value is not None:
            values[name] = value


def _backing_size(request: Request, backing: str, fmt: object) -> int:
    """Opens the backing file, as the new image would, and returns its length (R1). Nothing is read
    from it, so nobody need know its password, and a guest may write to it: so an overlay is made
    for a machine that runs."""
    name = full_backing_filename(request.filename, backing)
    options: dict[str, object] = {} if fmt is None else {"driver": fmt}
    options["force-share"] = True
    try:
        disk = open_backend(name, options=options, flags=f.BDRV_O_NO_IO)
    except BlockError as error:
        raise BlockError(
            error.errno or errno.EIO, str(error), hint="Could not open backing image."
        ) from error
    try:
        if fmt is None:
            raise invalid(
                "Backing file specified without backing format",
                f"Detected format of {_format_of(disk)}.",
            )
        return disk.length
    finally:
        disk.unref()


def _format_of(disk: BlockBackend) -> str:
    assert disk.bs is not None
    assert disk.bs.drv is not None
    return disk.bs.drv.format_name


def _summary(request: Request, driver: BlockDriver, values: dict[str, object]) -> str:
    """'Formatting 'a.img', fmt=raw size=1048576' (R2)."""
    words = [f"Formatting '{request.filename}', fmt={request.fmt}"]
    for option in driver.create_opts:
        value = values.get(option.name, option.default)
        if value is not None:
            words.append(f"{option.name}={_spelled(value)}")
    known = by_name(driver.create_opts)
    words += [f"{n}={_spelled(v)}" for n, v in values.items() if n not in known]
    return " ".join(words) + "\n"


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return escape(str(value))
