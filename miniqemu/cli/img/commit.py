# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img commit`: writes what an image holds into the one below it (img_commit).

Then the image is emptied, unless -d or -b is given, where its format can do that (qcow2): what it
held shows through from below.
"""

from __future__ import annotations

import errno
import os

from block.core import flags as f
from block.core.error import BlockError, errno_of
from block.core.filename import (
    JSON_PREFIX,
    node_backing_filename,
    node_dirname,
    parse_json_filename,
    path_has_protocol,
    path_is_absolute,
)
from block.core.make_empty import make_empty
from block.core.open import open_backend
from block.core.options import take_sub_options
from block.ops.commit import Commit
from miniqemu.cli.getopt import Words
from miniqemu.cli.output import write

from .common import IMAGE, cache_flags, cvtnum, img_open, limit_rate, one_image, options_of
from .errors import Failure, because
from .progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from block.core.backend import BlockBackend
    from block.core.node import BlockDriverState


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    words = Words(argv, "f:ht:b:dpqr:", IMAGE)
    given: dict[str, str] = {}
    rate = 0
    for option, value in options_of(program, words):
        given[option] = value
        if option == "r":
            rate = cvtnum("rate limit", value)
    name = one_image(program, words)
    flags, writethrough = cache_flags(given.get("t", "writeback"))
    flags |= f.BDRV_O_RDWR | f.BDRV_O_UNMAP
    quiet = "q" in given
    options = described(name, given)
    below = take_sub_options(options, "backing")
    # From here on the top, then what is below it, down to the base.
    opened = [
        img_open(
            name,
            given.get("f"),
            flags | f.BDRV_O_NO_BACKING,
            image_opts="image-opts" in given,
            writethrough=writethrough,
        )
        if not below
        else open_layer(name, 0, None, options, flags | f.BDRV_O_NO_BACKING, writethrough)
    ]
    with Progress("p" in given and not quiet, 1.0, "commit") as progress:
        progress(0)
        try:
            open_chain(opened, given.get("b"), flags, name, below)
            if rate:
                limit_rate(opened[-1], rate)
            try:
                Commit(opened[-2::-1], opened[-1], progress).run()
            except BlockError as error:
                # Of a job's mistake, QEMU knows the number.
                raise because(BlockError(errno_of(error)), "Block job failed: ") from error
            if not given.keys() & {"b", "d"}:
                empty(opened[0])
            progress(100)
        finally:
            for blk in opened:
                blk.unref()
    return 0 if quiet else write(1, "Image committed.\n")


def empty(blk: BlockBackend) -> None:
    """Lets go of what is below now. A format that cannot do that keeps it."""
    assert blk.bs is not None
    try:
        make_empty(blk.bs)
    except BlockError as error:
        if error.errno != errno.ENOTSUP:
            raise


def described(name: str, given: Mapping[str, str]) -> dict[str, object]:
    """The options that describe an image and what is below it, if a name of a file does not."""
    if name.startswith(JSON_PREFIX):
        return parse_json_filename(name)
    if "image-opts" in given and "f" not in given and "backing." in name:
        from miniqemu.cli.image_opts import parse_image_opts

        return parse_image_opts(name, "file")
    return {}


def open_layer(
    top: str,
    depth: int,
    where: str | None,
    options: dict[str, object],
    flags: int,
    writethrough: bool = False,
) -> BlockBackend:
    """Opens one image as options describe it, in `where` if they do not say; `depth` below the
    top, which messages name as if it had been opened with all that is below."""
    try:
        return open_backend(
            None if "file.filename" in options else where,
            options=options,
            flags=flags,
            writethrough=writethrough,
            shared_perm=f.BLK_PERM_ALL,
        )
    except BlockError as error:
        below = "Could not open backing file: " * depth
        raise because(error, f"Could not open '{top}': {below}") from error


def open_chain(
    opened: list[BlockBackend],
    wanted: str | None,
    flags: int,
    top: str,
    options: dict[str, object],
) -> None:
    """Opens the layers below the top, each by itself, until that of the wanted name: the base,
    which is opened for writing. None: the first. `options` are for what is below."""
    while True:
        bs = opened[-1].bs
        assert bs is not None
        if not bs.backing_file and not options:
            if wanted is None:
                raise Failure("Image does not have a backing file")
            raise Failure(f"Did not find '{wanted}' in the backing chain of '{top}'")
        name, fmt = node_backing_filename(bs), bs.backing_format or None
        is_base = wanted is None or is_same(bs, wanted, name)
        how = flags | f.BDRV_O_RESIZE if is_base else flags & ~f.BDRV_O_RDWR | f.BDRV_O_NO_BACKING
        below = {} if is_base else take_sub_options(options, "backing")
        named = {"driver": fmt} if fmt else {}
        opened.append(open_layer(top, len(opened), name, {**named, **options}, how))
        if is_base:
            return
        options = below


def is_same(bs: BlockDriverState, wanted: str, path: str) -> bool:
    """Whether a person's name for an image is the one in a header; a relative one is seen from
    where that header is (bdrv_find_backing_image)."""
    if path_has_protocol(wanted) or path_has_protocol(bs.backing_file):
        return wanted in (bs.backing_file, path)
    from_here = wanted if path_is_absolute(wanted) else node_dirname(bs) + wanted
    try:
        return os.path.realpath(from_here, strict=True) == os.path.realpath(path, strict=True)
    except OSError:
        return False
