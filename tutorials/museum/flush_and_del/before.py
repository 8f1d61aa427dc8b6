# SPDX-License-Identifier: GPL-2.0-only
"""As it was before f45280cbf6: a disk's tree is taken out while requests are in it.

The edge goes first. When the node is closed, it is drained, so the flush comes to its end there;
its device asks the backend for the event loop, and the backend follows the edge.
"""

from __future__ import annotations

from block.core import edge
from block.core.backend import BlockBackend


def remove_bs(self: BlockBackend) -> None:
    if self.root is None:
        return
    root, bs = self.root, self.root.bs
    with bs.aio_context:
        edge.root_unref_child(root)
    self.root = None
    self.resume()


FORMS = {"block.core.backend:BlockBackend.remove_bs": remove_bs}
