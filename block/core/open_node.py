# SPDX-License-Identifier: GPL-2.0-only
"""One node's part of opening: the core's own options, then the driver's open.

R1  The core takes what is its own; the driver takes the rest. What nobody took is refused.
R2  A driver whose open failed is never closed: the node is as if it had no driver.
R3  A node has its name, its length and its limits before anybody else can see it.

Called by open.py, in the main thread. Source: block.c (bdrv_open_common, bdrv_open_driver).
"""

from __future__ import annotations

import errno

from block.core import edge, graph
from block.core import flags as f
from block.core.cache import parse_detect_zeroes, parse_discard
from block.core.error import BlockError, failed
from block.core.filename import refresh_filename
from block.core.inherit import COMMON_OPTS, flags_from_options
from block.core.options import invalid, take_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.driver import BlockDriver
    from block.core.node import BlockDriverState

# Flags that are for the core, not for a driver's open.
CORE_FLAGS = f.BDRV_O_SNAPSHOT | f.BDRV_O_NO_BACKING | f.BDRV_O_PROTOCOL


def open_common(
    bs: BlockDriverState,
    driver: BlockDriver,
    options: dict[str, object],
    file_bs: BlockDriverState | None,
) -> None:
    """Takes the core's own options, then lets the driver open the image (bdrv_open_common)."""
    taken = take_options(options, COMMON_OPTS)
    bs.open_flags = flags_from_options(bs.open_flags, taken)
    bs.force_share = taken["force-share"]
    if bs.force_share and bs.open_flags & f.BDRV_O_RDWR:
        raise invalid("force-share=on can only be used with read-only images")
    if file_bs is not None:
        refresh_filename(file_bs, just_opened=file_bs.inherits_from is bs)
        bs.filename = file_bs.filename
    elif isinstance(options.get("filename"), str):
        bs.filename = str(options["filename"])
    if driver.needs_filename and not bs.filename:
        raise invalid(f"The '{driver.format_name}' block driver requires a file name")
    bs.exact_filename = bs.filename
    bs.read_only = not bs.open_flags & f.BDRV_O_RDWR
    if bs.open_flags & f.BDRV_O_COPY_ON_READ:
        from block.core.copy_on_read import enable_copy_on_read

        enable_copy_on_read(bs)
    if taken["discard"] is not None:
        bs.open_flags = bs.open_flags & ~f.BDRV_O_UNMAP | parse_discard(taken["discard"])
    bs.detect_zeroes = parse_detect_zeroes(taken["detect-zeroes"], bs.open_flags)
    _open_driver(bs, driver, taken["node-name"], options)


def _open_driver(
    bs: BlockDriverState, driver: BlockDriver, node_name: str | None, options: dict[str, object]
) -> None:
    """Gives the node its name, its driver, its length and its limits (bdrv_open_driver)."""
    graph.assign_node_name(bs, node_name)
    bs.drv = driver
    bs.debugged = "debug_event" in driver.hooks
    try:
        driver.open(bs, options, bs.open_flags & ~CORE_FLAGS)
    except BaseException as error:
        _undo_open(bs)
        if isinstance(error, BlockError) or not isinstance(error, OSError):
            raise
        raise _could_not_open(bs, error) from error
    try:
        bs.refresh_total_sectors()
    except OSError as error:
        raise failed("Could not refresh total sector count", error) from None
    bs.refresh_limits()
    for _ in range(bs.quiesce_counter):
        driver.drain_begin(bs)


def _undo_open(bs: BlockDriverState) -> None:
    """Leaves a node without a driver, as if it had not been opened: close() of a driver that
    did not open is never called."""
    bs.drv = None
    bs.debugged = False
    bs.opaque = None
    for child in list(bs.children):
        edge.unref_child(bs, child)


def _could_not_open(bs: BlockDriverState, error: OSError) -> BlockError:
    what = f"Could not open '{bs.filename}'" if bs.filename else "Could not open image"
    return failed(what, error, bs.node_name)


def refuse_leftovers(bs: BlockDriverState, options: dict[str, object]) -> None:
    """An option that nobody took stands in the way of what its writer wanted (R1)."""
    if not options:
        return
    assert bs.drv is not None
    name, option = bs.drv.format_name, next(iter(options))
    if bs.drv.protocol_name is not None:
        raise invalid(f"Block protocol '{name}' doesn't support the option '{option}'")
    raise invalid(f"Block format '{name}' does not support the option '{option}'")


def apply_auto_read_only(bs: BlockDriverState, message: str = "") -> None:
    """For drivers whose image turns out to be read-only: makes the node read-only where
    auto-read-only allows that (bdrv_apply_auto_read_only).

    Raises BlockError(EACCES): `message` or "Image is read-only".
    """
    if not bs.open_flags & f.BDRV_O_RDWR:
        return
    if not bs.open_flags & f.BDRV_O_AUTO_RDONLY or bs.copy_on_read:
        raise BlockError(errno.EACCES, message or "Image is read-only", bs.node_name)
    bs.read_only = True
    bs.open_flags &= ~f.BDRV_O_RDWR
