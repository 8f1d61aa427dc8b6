# SPDX-License-Identifier: GPL-2.0-only
"""The name of the backing file in an image's header (bdrv_change_backing_file).

R1  Only the name is changed. The node below stays as it is until the image is opened anew, or
    somebody calls edge.set_backing_hd.
Who may call it: the main thread; it blocks.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError, no_medium

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState


def change_backing_file(
    bs: BlockDriverState, backing_file: str, backing_fmt: str = "", require: bool = False
) -> None:
    """Writes another backing file into the header; '' for none (bdrv_change_backing_file).

    `require`: a name without a format is refused. Raises BlockError: EINVAL, or ENOTSUP
    where the format has no backing files.
    """
    if bs.drv is None:
        raise no_medium(bs.node_name)
    if backing_fmt and not backing_file:
        message = "Backing format cannot be used without backing file"
        raise BlockError(errno.EINVAL, message, bs.node_name)
    if require and backing_file and not backing_fmt:
        message = "Backing file specified without backing format"
        raise BlockError(errno.EINVAL, message, bs.node_name)
    with bs.aio_context:
        bs.drv.change_backing_file(bs, backing_file, backing_fmt)
    bs.backing_file = bs.auto_backing_file = backing_file
    bs.backing_format = backing_fmt
