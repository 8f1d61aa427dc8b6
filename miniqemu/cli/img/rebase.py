# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img rebase`: gives an image another backing file (img_rebase)."""

from __future__ import annotations

import errno
import os

from block.core import flags as f
from block.core.backing import change_backing_file
from block.core.error import BlockError
from block.core.registry import find_row
from block.ops.rebase import Rebase, new_base, old_base, seen_from
from miniqemu.cli.getopt import Words

from .common import SHARED, cache_flags, img_open, one_image, options_of
from .errors import Failure, because, misused
from .progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.backend import BlockBackend


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    words = Words(argv, "hf:F:b:upt:T:qU", SHARED)
    given = dict(options_of(program, words))
    unsafe = "u" in given
    name = one_image(program, words)
    if not unsafe and "b" not in given:
        raise misused(program, "Must specify backing file (-b) or use unsafe mode (-u)")
    with Progress("p" in given and "q" not in given, 2.0, "rebase") as progress:
        progress(0)
        flags, writethrough = cache_flags(given.get("t", "writeback"))
        source_flags, _ = cache_flags(given.get("T", "writeback"), "source cache")
        flags |= f.BDRV_O_RDWR | (f.BDRV_O_NO_BACKING if unsafe else 0)
        blk = img_open(
            name,
            given.get("f"),
            flags,
            image_opts="image-opts" in given,
            writethrough=writethrough,
        )
        with blk:
            fmt = given.get("F", "")
            if fmt and find_row(fmt) is None:
                raise Failure(f"Invalid format name: '{fmt}'")
            if not unsafe:
                keep_data(blk, given, source_flags, progress)
            change(blk, given.get("b"), fmt)
            progress(100)
    return 0


def keep_data(blk: BlockBackend, given: dict[str, str], flags: int, progress: Progress) -> None:
    """Writes into the image what would read otherwise with the new backing file."""
    assert blk.bs is not None
    backing = given["b"]
    old = old_base(blk.bs)
    try:
        try:
            path = seen_from(blk.bs, backing)
        except BlockError as error:
            raise because(error, "Could not resolve backing filename: ") from error
        try:
            new = new_base(path, given.get("F", ""), flags, "U" in given)
        except BlockError as error:
            raise because(error, f"Could not open new backing file '{backing}': ") from error
        try:
            Rebase(blk, old, new, progress).run()
        finally:
            if new is not None:
                new.unref()
    finally:
        if old is not None:
            old.unref()


def change(blk: BlockBackend, backing: str | None, fmt: str) -> None:
    """Writes the new name into the header; none is said by '', or not at all."""
    assert blk.bs is not None
    blk.flush()
    try:
        change_backing_file(blk.bs, backing or "", fmt if backing else "", require=True)
    except BlockError as error:
        name = "(null)" if backing is None else backing
        reason = os.strerror(error.errno or errno.EIO)
        if error.errno == errno.ENOSPC:
            reason = "No space left in the file header"
        elif error.errno == errno.EINVAL and backing and not fmt:
            reason = "backing format must be specified"
        raise Failure(f"Could not change the backing file to '{name}': {reason}") from error
