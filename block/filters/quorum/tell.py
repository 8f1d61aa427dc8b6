# SPDX-License-Identifier: GPL-2.0-only
"""The two events of quorum (quorum_report_bad, quorum_report_failure).

    QUORUM_REPORT_BAD   one child failed, or was outvoted; the disk goes on
    QUORUM_FAILURE      too few agree: the request fails

Offsets come in bytes and go out in sectors of 512 bytes, all that the range touches.
Who may call it: coroutines of the node.
"""

from __future__ import annotations

import os

from block.core import event, graph
from block.core import flags as f
from block.core.error import errno_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState


def _sectors(offset: int, nbytes: int) -> dict[str, object]:
    start = offset // f.SECTOR_SIZE
    end = -(-(offset + nbytes) // f.SECTOR_SIZE)
    return {"sector-num": start, "sectors-count": end - start}


def report_bad(
    kind: str, offset: int, nbytes: int, child: BdrvChild, error: OSError | None = None
) -> None:
    """Tells of a child that failed, or (no error) was outvoted; `kind` is read, write or flush."""
    if event.subscribers:
        data: dict[str, object] = {"type": kind}
        if error is not None:
            data["error"] = os.strerror(errno_of(error))
        data["node-name"] = child.bs.node_name
        event.emit("QUORUM_REPORT_BAD", {**data, **_sectors(offset, nbytes)})


def report_failure(bs: BlockDriverState, offset: int, nbytes: int) -> None:
    """Tells that a request failed since too few children agree."""
    if event.subscribers:
        reference = graph.device_or_node_name(bs)
        event.emit("QUORUM_FAILURE", {"reference": reference, **_sectors(offset, nbytes)})
