# SPDX-License-Identifier: GPL-2.0-only
"""How large an image would be before it is made (bdrv_measure).

Called in the main thread.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.core.options import by_name
from block.core.registry import find_format
from block.ops.create import creatable, parse_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState


class BadOptions(BlockError):
    """The options' text is at fault."""


def measure(
    fmt: str, options: str, size: int | None, in_bs: BlockDriverState | None
) -> dict[str, int]:
    """BlockMeasureInfo of QEMU's schema, for a copy of `in_bs` or an empty image of `size` bytes.

    `options` as for create. Raises BlockError, BadOptions where those are wrong.
    """
    driver = creatable(fmt)
    declared = by_name(driver.create_opts, find_format("file").create_opts)
    try:
        values = parse_options(options, declared)
    except BlockError as error:
        raise BadOptions(error.errno or errno.EINVAL, str(error), hint=error.hint) from error
    if size is not None:
        values["size"] = size
    return driver.measure(values, in_bs)
