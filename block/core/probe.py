# SPDX-License-Identifier: GPL-2.0-only
"""Guessing the format of an image from its first bytes (block.c, find_image_format).

R1  An image is looked at through an edge that asks for no permission: whatever others do with it,
    its header may be read.
R2  An empty image is raw.

Called in the main thread while a tree is opened.
"""

from __future__ import annotations

from block.core import edge, registry
from block.core import flags as f
from block.core.error import failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState


def probe_format(file_bs: BlockDriverState) -> str:
    """The name of the format in an opened protocol node (find_image_format)."""
    if file_bs.getlength() == 0:
        return "raw"
    probe = edge.root_attach_child(
        file_bs.ref(), "probe", edge.ChildClass(), 0, None, 0, f.BLK_PERM_ALL, None
    )
    try:
        head = probe.pread(0, registry.PROBE_BUF_SIZE)
    except OSError as error:
        raise failed("Could not read image for determining its format", error) from None
    finally:
        edge.root_unref_child(probe)
    return registry.probe_all(head)
