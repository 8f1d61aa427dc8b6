# SPDX-License-Identifier: GPL-2.0-only
"""New volumes, and how large one would be (block_crypto_co_create_generic, _measure).

R1  Options are checked, and the secret is looked up, before the file is touched.
R2  `size` is the disk's; the file is longer by the header.
Who may call it: the main thread; it blocks, mostly to find out how fast this machine hashes.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.error import BlockError
from block.core.new_files import NewFiles, open_to_fill
from block.core.options import Option, parse_enum, take_options
from block.crypto.options import LUKS_CREATE_OPTS, take_luks_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState

SIZE = Option("size", "size", "Virtual disk size", 0)
CREATE_OPTS = (Option("size", "size", "Virtual disk size"), *LUKS_CREATE_OPTS)


def create(filename: str, options: dict[str, object]) -> None:
    """Makes a volume by that name."""
    size: int = take_options(options, (SIZE,))["size"]
    asked = options.pop("preallocation", None)
    prealloc = parse_enum("preallocation", asked, f.PREALLOC_MODES, "off")
    if prealloc == "metadata":
        prealloc = "off"
    plan = take_luks_plan(options)
    if size + plan.payload_offset > f.MAX_LENGTH:
        raise BlockError(errno.EFBIG, "The requested file size is too large")
    with NewFiles() as files:
        files.make(filename, {**options, "size": 0})
        options.clear()
        with open_to_fill(filename) as blk:
            plan.create(lambda length: blk.truncate(size + length, False, prealloc), blk.pwrite)
            blk.flush()


def measure(options: dict[str, object], in_bs: BlockDriverState | None) -> dict[str, int]:
    """BlockMeasureInfo: what was never written is encrypted, too, so it counts."""
    options.pop("preallocation", None)
    size: int = take_options(options, (SIZE,))["size"]
    if in_bs is not None:
        size = in_bs.getlength()
    length = size + take_luks_plan(options).payload_offset
    return {"required": length, "fully-allocated": length}
