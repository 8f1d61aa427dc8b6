# SPDX-License-Identifier: GPL-2.0-only
"""Images for programs: open one, make one, in a person's words.

R1  Everything here is a thin layer of keyword arguments over block.core.open; what a keyword does
    not say, `options` can, with QEMU's own names.
R2  Whoever opens an image for writing has it alone, unless `share=True`: a second program or a
    second open is refused with QEMU's message.

Called in the main thread.
"""

from __future__ import annotations

from block.aio.world import the_world
from block.core import flags as f
from block.core.cache import parse_cache_mode
from block.core.open import open_backend
from block.core.options import by_name, flatten, invalid
from block.core.registry import find_format, find_protocol, find_row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from block.aio.context import AioContext
    from block.core.backend import BlockBackend

WRITES = f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE


def open(
    filename: str | None = None,
    *,
    options: Mapping[str, object] | None = None,
    format: str | None = None,
    read_only: bool = False,
    cache: str = "writeback",
    share: bool = False,
    name: str = "",
    aio_context: AioContext | None = None,
) -> BlockBackend:
    """Opens an image and returns its BlockBackend: pread, pwrite, flush, length, close, ...

    filename  a path, 'proto:...', or 'json:{...}'; or leave it out and describe all by options
    options   QEMU's, nested or with dots: {'file.locking': 'off', 'discard': 'unmap'}
    format    'raw', ...; without one the format is guessed from the first bytes
    cache     none, writeback, writethrough, directsync, unsafe

    Raises BlockError; its text is QEMU's.
    """
    cache_flags, writethrough = parse_cache_mode(cache)
    flags = cache_flags if read_only else cache_flags | f.BDRV_O_RDWR | f.BDRV_O_RESIZE
    flat = flatten(options or {})
    if format is not None and flat.setdefault("driver", format) != format:
        raise invalid("Cannot specify both 'driver' and 'format'")
    alone = f.BLK_PERM_ALL & ~WRITES
    return open_backend(
        filename,
        options=flat,
        flags=flags,
        name=name,
        writethrough=writethrough,
        shared_perm=f.BLK_PERM_ALL if share or read_only else alone,
        aio_context=aio_context,
    )


def create(filename: str, format: str = "raw", size: object = 0, **options: object) -> None:
    """Makes an empty image: create("a.img", "raw", "10G", preallocation="falloc").

    `size` is in bytes, or text with a suffix. Option names with '-' or dots go in by
    `**{"name": value}`. Raises BlockError, also for an option that the format has not.
    """
    if find_row(format) is None:
        raise invalid(f"Unknown file format '{format}'")
    driver = find_format(format)
    protocol = find_protocol(filename)
    known = by_name(driver.create_opts, protocol.create_opts)
    for option in options:
        if option not in known:
            raise invalid(f"Invalid parameter '{option}'")
    driver.create(filename, {"size": size, **options})


def close_all() -> None:
    """Drains and closes every disk of this process (bdrv_close_all)."""
    from block.core import drain

    drain.close_all()


def main_context() -> AioContext:
    """The main loop, where every image begins (qemu_get_aio_context)."""
    return the_world().main_context
