# SPDX-License-Identifier: GPL-2.0-only
"""Letting go of all that an image holds, so that its backing file shows through
(bdrv_make_empty).

R1  Nothing is in flight meanwhile.
R2  What it holds is lost; whoever calls has written it somewhere else, and flushed that.
Called in the main thread; blocks.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError, failed, no_medium

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState


def make_empty(bs: BlockDriverState) -> None:
    """Empties an image. Raises BlockError: ENOTSUP where its format cannot do that."""
    if bs.drv is None:
        raise no_medium(bs.node_name)
    if "make_empty" not in bs.drv.hooks:
        message = f"{bs.drv.format_name} does not support emptying of image files"
        raise BlockError(errno.ENOTSUP, message, bs.node_name)
    if bs.read_only:
        raise BlockError(errno.EACCES, "Image is read-only", bs.node_name)
    bs.drained_begin()
    try:
        with bs.aio_context:
            bs.drv.make_empty(bs)
    except OSError as error:
        raise failed(f"Failed to empty {bs.filename}", error, bs.node_name) from error
    finally:
        bs.drained_end()
