# SPDX-License-Identifier: GPL-2.0-only
"""A quorum over disks in memory, for tests; and what its events said.

    voters = Voters("AAB", threshold=2)
    voters.blk.pread(0, 512)               b"A" * 512
    voters.told                            [("read", 2, None)]: child 2 was outvoted

Each letter is a child, filled with that letter; `!` and `$` are children that fail with EIO
and ENOSPC.
"""

from __future__ import annotations

import errno

from block.core import event
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.node import BlockDriverState
from block.core.open import bdrv_open
from tests.support.drivers import Disk, Ram, backend_on, ram_node

SIZE = 1 << 16
ERRORS = {"!": errno.EIO, "$": errno.ENOSPC}


class Voters:
    """The backend, the disks of the children in order, and the events so far."""

    def __init__(
        self,
        letters: str,
        threshold: int = 2,
        hooks: tuple[str, ...] = ("preadv",),
        *,
        driver: type[Ram] = Ram,
        disk: type[Disk] = Disk,
        **options: object,
    ) -> None:
        self.disks = [disk(SIZE) for _ in letters]
        for made, letter in zip(self.disks, letters, strict=True):
            if letter in ERRORS:
                made.errors = {hook: BlockError(ERRORS[letter]) for hook in hooks}
            else:
                made.data[:] = letter.encode() * SIZE
        self.nodes = [ram_node(made, driver=driver) for made in self.disks]
        named = {name.replace("_", "-"): value for name, value in options.items()}
        try:
            bs = bdrv_open(
                options={
                    "driver": "quorum",
                    "vote-threshold": threshold,
                    "children": [node.node_name for node in self.nodes],
                    **named,
                }
            )
        finally:
            for node in self.nodes:
                node.unref()
        self.blk: BlockBackend = backend_on(bs, name="disk0")
        self.told: list[tuple[object, ...]] = []
        self.events: list[event.Event] = []
        event.subscribe(self._hear)

    @property
    def bs(self) -> BlockDriverState:
        """The quorum's node."""
        assert self.blk.bs is not None
        return self.blk.bs

    def _hear(self, happened: event.Event) -> None:
        self.events.append(happened)
        data = happened.data
        if happened.name == "QUORUM_FAILURE":
            self.told.append(("failure", data["reference"]))
        else:
            names = [node.node_name for node in self.nodes]
            self.told.append((data["type"], names.index(str(data["node-name"])), data.get("error")))

    def close(self) -> None:
        """Hears nothing more, and closes the disk."""
        event.unsubscribe(self._hear)
        self.blk.unref()

    def __enter__(self) -> Voters:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
