# SPDX-License-Identifier: GPL-2.0-only
"""Changing the options of an image that is there (bdrv_amend_options, img_amend of qemu-img.c).

R1  Only what the user says is changed, and only options that the driver names in `amend_opts`.
R2  Messages are QEMU's. An option that only a new image can have is refused with a hint.
Called in the main thread; blocks.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.core.options import by_name, format_help
from block.core.registry import find_format, find_row
from block.ops.create import parse_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.core.driver import BlockDriver
    from block.core.node import BlockDriverState

ONLY_NEW_IMAGES = "This option is only supported for image creation"


def amendable(fmt: str) -> BlockDriver:
    """The driver of a format whose images' options can be changed. Raises BlockError."""
    if find_row(fmt) is None:
        raise BlockError(errno.EINVAL, f"Unknown file format '{fmt}'")
    driver = find_format(fmt)
    if "amend_options" not in driver.hooks:
        message = f"Format driver '{fmt}' does not support option amendment"
        raise BlockError(errno.ENOTSUP, message, driver=fmt)
    return driver


def help_text(fmt: str) -> str:
    """What `amend -o help` prints (print_amend_option_help)."""
    lines = format_help(amendable(fmt).amend_opts)
    return "\n".join([f"Amend options for '{fmt}':", *lines]) + "\n"


def parse(driver: BlockDriver, text: str) -> dict[str, object]:
    """Converted values of 'compat=1.1,size=1G'. Raises BlockError (R1, R2)."""
    try:
        return parse_options(text, by_name(driver.amend_opts))
    except BlockError as error:
        try:
            parse_options(text, by_name(driver.create_opts, driver.amend_opts))
        except BlockError:
            raise error from None
        number = error.errno or errno.EINVAL
        raise BlockError(number, str(error), hint=ONLY_NEW_IMAGES) from None


def amend(
    bs: BlockDriverState,
    options: dict[str, object],
    progress: Callable[[int, int], None],
    force: bool = False,
) -> None:
    """Changes options of an open image (bdrv_amend_options). Raises BlockError."""
    if bs.drv is None:
        raise BlockError(errno.ENOMEDIUM, "Node is ejected", bs.node_name)
    with bs.aio_context:
        bs.drv.amend_options(bs, options, progress, force)
