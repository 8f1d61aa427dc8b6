# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img snapshot`: snapshots within an image (img_snapshot)."""

from __future__ import annotations

import errno
import os
import time

from block.core import flags as f
from block.core import snapshot as core
from block.core.error import BlockError
from miniqemu.cli.getopt import Words
from miniqemu.cli.output import write

from .common import SHARED, img_open, one_image, options_of
from .errors import Failure, because, misused
from .snapshot_list import snapshot_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState

ACTIONS = "lacd"


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    words = Words(argv, "la:c:d:hqU", SHARED)
    given: dict[str, str] = {}
    action, name = "", ""
    for option, value in options_of(program, words):
        if option in ACTIONS:
            if action:
                raise misused(program, "Cannot mix '-l', '-a', '-c', '-d'")
            action, name = option, value
        given[option] = value
    filename = one_image(program, words)
    flags = 0 if action == "l" else f.BDRV_O_RDWR
    image_opts = "image-opts" in given
    blk = img_open(filename, None, flags, image_opts=image_opts, force_share="U" in given)
    with blk:
        assert blk.bs is not None
        if action == "l":
            return show(blk.bs)
        if action:
            DOERS[action](blk.bs, name)
    return 0


def show(bs: BlockDriverState) -> int:
    """Lists them; a format without prints nothing (dump_snapshots)."""
    try:
        infos = core.snapshots_of(bs)
    except BlockError:
        return 0
    return write(1, "".join(snapshot_lines(infos))) if infos else 0


def create(bs: BlockDriverState, name: str) -> None:
    """Keeps what the disk holds now."""
    sec, nsec = divmod(time.time_ns(), 1_000_000_000)
    # So many instructions a program executes that has no machine: QEMU 7.2 notes them, too.
    info = core.SnapshotInfo(name, date_sec=sec, date_nsec=nsec // 1000 * 1000, icount=0)
    try:
        core.create(bs, info)
    except BlockError as error:
        number = error.errno or errno.EIO
        reason = os.strerror(number)
        message = f"Could not create snapshot '{name}': -{number} ({reason})"
        raise Failure(message) from error


def apply(bs: BlockDriverState, name: str) -> None:
    """Lets the disk be what it was."""
    try:
        core.goto(bs, name)
    except BlockError as error:
        message = f"Could not apply snapshot '{name}': {error}"
        reason = str(error.__cause__ or "")
        known = reason in ("", os.strerror(error.errno or errno.EIO))
        raise Failure(*([] if known else [reason]), message) from error


def delete(bs: BlockDriverState, name: str) -> None:
    """Forgets one; it is looked for by its name only."""
    complaint = f"Could not delete snapshot '{name}': "
    info = core.find(bs, name)
    if info is None:
        raise Failure(f"{complaint}snapshot not found")
    try:
        core.delete(bs, info.id, info.name)
    except BlockError as error:
        raise because(error, complaint) from error


DOERS = {"c": create, "a": apply, "d": delete}
