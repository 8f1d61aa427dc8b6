# SPDX-License-Identifier: GPL-2.0-only
"""-l of convert and measure: which snapshot of the source is read (internal_snapshot_opts).

-l NAME_OR_ID      an ID if there is such a one, else a name
-l snapshot.id=ID,snapshot.name=NAME      either or both
"""

from __future__ import annotations

from block.core import snapshot
from block.core.error import BlockError
from miniqemu.cli.image_opts import parse_image_opts

from .errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState

ID, NAME = "snapshot.id", "snapshot.name"


class SnapshotOption:
    """What was asked for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.by_option = text.startswith("snapshot.")
        self.id: str | None = None
        self.name: str | None = None
        if self.by_option:
            self._parse()

    def _parse(self) -> None:
        complaint = f"Failed in parsing snapshot param '{self.text}'"
        try:
            options = parse_image_opts(self.text)
        except BlockError as error:
            told = "\n".join(filter(None, (str(error), error.hint)))
            raise Failure(told, complaint) from error
        for name in options:
            if name not in (ID, NAME):
                raise Failure(f"Invalid parameter '{name}'", complaint)
        self.id, self.name = (str(options[key]) if key in options else None for key in (ID, NAME))

    def load(self, bs: BlockDriverState) -> None:
        """Lets the source read that snapshot."""
        try:
            if self.by_option:
                snapshot.load_tmp(bs, self.id, self.name)
            else:
                snapshot.load_tmp_by_id_or_name(bs, self.text)
        except BlockError as error:
            raise Failure(f"Failed to load snapshot: {error}", hint=error.hint) from error
