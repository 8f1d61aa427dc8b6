# SPDX-License-Identifier: GPL-2.0-only
"""Opening a tree: from a name, from options, or both; probing; children and backing files.

    bdrv_open          a node and all below it, from a name and flat options
    blockdev_add       the same from nested options as -blockdev and QMP have them
    open_child         for drivers: a child that their options describe
    open_backend       a tree with a BlockBackend on top: what devices and tools hold

R1  Options are flat here (options.py, R3), and each level pops what it understands. What is left
    over at the end is refused by name.
R2  A child is described by 'key' (the name of an existing node) or by 'key.*' (options of a new
    one), never both.
R3  The protocol below is opened before its format is probed; the guess becomes an option like any.
R4  Whoever fails closes what it has opened: an exception leaves no node behind.
R5  No node is more than MAX_DEPTH nodes deep. A chain of backing files that is a loop ends there.

Called in the main thread. Source: block.c (bdrv_open_inherit and what it calls).
"""

from __future__ import annotations

import errno

from block.core import edge, graph, registry
from block.core import flags as f
from block.core.error import BlockError
from block.core.filename import (
    JSON_PREFIX,
    node_backing_filename,
    parse_json_filename,
    refresh_filename,
)
from block.core.inherit import child_flags, inherit_options, options_from_flags
from block.core.node import BlockDriverState
from block.core.open_node import open_common, refuse_leftovers
from block.core.options import (
    flatten,
    invalid,
    parse_bool,
    parse_string,
    take_sub_options,
)
from block.core.probe import probe_format
from block.core.report import warn_report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from block.aio.context import AioContext
    from block.core.backend import BlockBackend
    from block.core.driver import BlockDriver
    from block.core.edge import BdrvChild


class TooDeep(BlockError):
    """The chain of images is too deep, or a loop; none of its images is more to blame (R5)."""


def bdrv_open(
    filename: str | None = None,
    reference: str | None = None,
    options: Mapping[str, object] | None = None,
    flags: int = f.BDRV_O_RDWR,
) -> BlockDriverState:
    """Opens an image (bdrv_open). The caller holds one reference to what is returned.

    `reference` is the name of an existing node, and then stands alone. `options` may be
    nested or flat. Raises BlockError with QEMU's text.
    """
    return _open_inherit(filename, reference, flatten(options or {}), flags, None, 0)


def blockdev_add(options: Mapping[str, object]) -> BlockDriverState:
    """Opens a tree from -blockdev's nested options (bds_tree_init). The caller holds a reference.

    The defaults are -blockdev's own: nothing is probed, everything is writable.
    """
    from block.core import members

    flat = flatten(options)
    if "driver" not in flat:
        raise invalid("Parameter 'driver' is missing")
    if registry.find_row(parse_string("driver", flat["driver"])) is None:
        raise invalid(f"Parameter 'driver' does not accept value '{flat['driver']}'")
    members.check(flat)
    if not flat.get("node-name"):
        raise invalid("'node-name' must be specified for the root node")
    for name in ("cache.direct", "cache.no-flush", "read-only", "auto-read-only"):
        flat.setdefault(name, False)
    return _open_inherit(None, None, flat, 0, None, 0)


def open_child(
    filename: str | None,
    options: dict[str, object],
    key: str,
    parent: BlockDriverState,
    role: int,
    allow_none: bool = False,
) -> BdrvChild | None:
    """Opens the child that `key` and 'key.*' in the parent's options describe (bdrv_open_child).

    Removes them from `options`. Returns the edge, or None with `allow_none` where nothing
    is described. The driver stores the edge (`bs.file = ...`).
    """
    child_bs = open_child_bs(filename, options, key, parent, role, allow_none)
    return None if child_bs is None else edge.attach_child(parent, child_bs, key, role)


def open_child_bs(
    filename: str | None,
    options: dict[str, object],
    key: str,
    parent: BlockDriverState,
    role: int,
    allow_none: bool = False,
) -> BlockDriverState | None:
    """As open_child, without making the edge; the caller holds a reference."""
    own = take_sub_options(options, key)
    reference = _reference(options.pop(key, None))
    if filename is None and reference is None and not own:
        if allow_none:
            return None
        raise invalid(f'A block device must be specified for "{key}"')
    return _open_inherit(filename, reference, own, 0, parent, role)


def _reference(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _open_inherit(
    filename: str | None,
    reference: str | None,
    options: dict[str, object],
    flags: int,
    parent: BlockDriverState | None,
    role: int,
) -> BlockDriverState:
    if reference is not None:
        if filename is not None or options:
            raise invalid(
                "Cannot reference an existing block device with "
                "additional options or a new filename"
            )
        return graph.lookup_bs(reference).ref()
    _refuse_too_deep(parent)
    bs = BlockDriverState()
    try:
        _open_node(bs, filename, options, flags, parent, role)
    except BaseException:
        bs.unref()
        raise
    return bs


def _refuse_too_deep(parent: BlockDriverState | None) -> None:
    """Raises where a new node below this one would be too deep (R5)."""
    depth = 1
    while parent is not None:
        parent = parent.inherits_from
        depth += 1
    if depth > f.MAX_DEPTH:
        message = f"The chain of images is more than {f.MAX_DEPTH} nodes deep, or a loop"
        raise TooDeep(errno.ELOOP, message)


def _open_node(
    bs: BlockDriverState,
    filename: str | None,
    options: dict[str, object],
    flags: int,
    parent: BlockDriverState | None,
    role: int,
) -> None:
    """Makes a new node what the options say; they are the caller's no more."""
    if filename is not None and filename.startswith(JSON_PREFIX):
        # What is said outright goes before what the name says.
        options = {**parse_json_filename(filename), **options}
        filename = None
    bs.explicit_options = dict(options)
    if parent is not None:
        bs.inherits_from = parent
        inherit_options(options, role, parent.options)
        flags = child_flags(role, _is_format(parent), parent.open_flags)
    flags = fill_options(options, filename, flags)
    if parse_bool("read-only", options["read-only"]):
        flags &= ~f.BDRV_O_RDWR
    else:
        flags |= f.BDRV_O_RDWR | f.BDRV_O_ALLOW_RDWR
    if flags & f.BDRV_O_SNAPSHOT:
        message = "snapshot=on needs an overlay, which block.ops.snapshot_overlay makes"
        raise BlockError(errno.ENOTSUP, message)
    flags = _take_no_backing(bs, options, flags)
    bs.open_flags = flags
    bs.options = dict(options)
    driver, file_bs = _choose_driver(bs, filename, options, flags)
    try:
        open_common(bs, driver, options, file_bs)
    finally:
        if file_bs is not None:
            file_bs.unref()
    if not flags & f.BDRV_O_NO_BACKING:
        open_backing_file(bs, options)
    _forget_child_options(bs)
    refuse_leftovers(bs, options)
    refresh_filename(bs, just_opened=True)


def _is_format(bs: BlockDriverState) -> bool:
    """Whether a parent is a format; one without a driver yet is being probed, so it will be."""
    drv = bs.drv
    return drv is None or (drv.protocol_name is None and not drv.is_filter and drv.is_format)


def fill_options(options: dict[str, object], filename: str | None, flags: int) -> int:
    """Completes options from a name and from flags; returns the flags (bdrv_fill_options).

    BDRV_O_PROTOCOL in the result says whether this node is a protocol.
    """
    protocol = bool(flags & f.BDRV_O_PROTOCOL)
    driver: BlockDriver | None = None
    if "driver" in options:
        driver = registry.find_format(parse_string("driver", options["driver"]))
        protocol = driver.protocol_name is not None
    options_from_flags(options, flags)
    parse_name = protocol and filename is not None
    if parse_name:
        if "filename" in options:
            raise invalid("Can't specify 'file' and 'filename' options at the same time")
        options["filename"] = filename
    if protocol:
        driver = _protocol_driver(options, driver, parse_name)
        if parse_name:
            driver.parse_filename(str(filename), options)
            if not driver.needs_filename:
                options.pop("filename", None)
        return flags | f.BDRV_O_PROTOCOL
    return flags & ~f.BDRV_O_PROTOCOL


def _protocol_driver(
    options: dict[str, object], driver: BlockDriver | None, allow_prefix: bool
) -> BlockDriver:
    if driver is not None:
        return driver
    name = options.get("filename")
    if not isinstance(name, str):
        raise invalid("Must specify either driver or file")
    driver = registry.find_protocol(name, allow_prefix)
    options["driver"] = driver.format_name
    return driver


def _take_no_backing(bs: BlockDriverState, options: dict[str, object], flags: int) -> int:
    """'backing': null means that the image stands alone, whatever its header says."""
    if "backing" in options and options["backing"] in (None, ""):
        if options.pop("backing") == "":
            warn_report('Use of "backing": "" is deprecated; use "backing": null instead')
        bs.explicit_options.pop("backing", None)
        flags |= f.BDRV_O_NO_BACKING
    return flags


def _choose_driver(
    bs: BlockDriverState, filename: str | None, options: dict[str, object], flags: int
) -> tuple[BlockDriver, BlockDriverState | None]:
    """The driver that is named, or the format that the protocol's first bytes look like.

    The protocol is opened for that. It is returned (the caller gets a reference), and its
    node name is left in options['file'] for the driver.
    """
    name = options.get("driver")
    driver = None if name is None else registry.find_format(parse_string("driver", name))
    if flags & f.BDRV_O_PROTOCOL:
        assert driver is not None, "fill_options names a protocol's driver"
        return driver, None
    file_bs = open_child_bs(filename, options, "file", bs, f.BDRV_CHILD_IMAGE, allow_none=True)
    if file_bs is not None:
        options["file"] = file_bs.node_name
    if driver is None:
        if file_bs is None:
            raise invalid("Must specify either driver or file")
        bs.probed = True
        driver = _probed_driver(bs, options, file_bs)
    return driver, file_bs


def _probed_driver(
    bs: BlockDriverState, options: dict[str, object], file_bs: BlockDriverState
) -> BlockDriver:
    try:
        driver = registry.find_format(probe_format(file_bs))
    except BaseException:
        file_bs.unref()
        raise
    options["driver"] = bs.options["driver"] = driver.format_name
    return driver


def open_backing_file(bs: BlockDriverState, options: dict[str, object]) -> None:
    """Opens what an image reads from where it holds nothing itself (bdrv_open_backing_file).

    By 'backing' or 'backing.*' in the options, else as the image's header says; neither:
    there is none. Who says anything of it has overridden the header: the name of the image
    alone does not stand for the chain any more. Raises BlockError: "Could not open backing
    file: ...".
    """
    if bs.backing is not None:
        return
    bs.open_flags &= ~f.BDRV_O_NO_BACKING
    own = take_sub_options(options, "backing")
    reference = _reference(options.pop("backing", None))
    filename, implicit = None, False
    if reference is None and "file.filename" not in own:
        if not bs.backing_file and not own:
            return
        filename = node_backing_filename(bs) or None
        implicit = not own and bs.auto_backing_file == bs.backing_file
    if bs.drv is None or not bs.drv.supports_backing:
        raise invalid("Driver doesn't support backing files")
    if reference is None and bs.backing_format:
        own.setdefault("driver", bs.backing_format)
    _attach_backing(bs, filename, reference, own, implicit)


def _attach_backing(
    bs: BlockDriverState,
    filename: str | None,
    reference: str | None,
    options: dict[str, object],
    implicit: bool,
) -> None:
    try:
        backing = _open_inherit(filename, reference, options, 0, bs, f.BDRV_CHILD_COW)
    except TooDeep:
        raise
    except BlockError as error:
        bs.open_flags |= f.BDRV_O_NO_BACKING
        raise BlockError(
            errno.EINVAL, f"Could not open backing file: {error}", bs.node_name, hint=error.hint
        ) from error
    try:
        refresh_filename(backing)
        if implicit:
            bs.auto_backing_file = backing.filename
        edge.set_backing_hd(bs, backing)
    finally:
        backing.unref()


def _forget_child_options(bs: BlockDriverState) -> None:
    """What described the children is theirs now."""
    for child in bs.children:
        for options in (bs.options, bs.explicit_options):
            take_sub_options(options, child.name)
            options.pop(child.name, None)


def open_backend(
    filename: str | None = None,
    *,
    options: Mapping[str, object] | None = None,
    flags: int = f.BDRV_O_RDWR,
    name: str = "",
    writethrough: bool = False,
    shared_perm: int = f.BLK_PERM_ALL,
    aio_context: AioContext | None = None,
) -> BlockBackend:
    """Opens a tree and puts a BlockBackend on top (blk_new_open). The caller closes it.

    The backend reads, with BDRV_O_RDWR it writes, with BDRV_O_RESIZE it resizes too;
    `shared_perm` is what it lets others do. `name` is its id. It begins in the main loop,
    or is moved to `aio_context`.
    """
    from block.core.backend import BlockBackend

    perm = 0 if flags & f.BDRV_O_NO_IO else f.BLK_PERM_CONSISTENT_READ
    if flags & f.BDRV_O_RDWR:
        perm |= f.BLK_PERM_WRITE
        if flags & f.BDRV_O_RESIZE:
            perm |= f.BLK_PERM_RESIZE
    blk = BlockBackend(perm, shared_perm)
    try:
        if name:
            blk.set_name(name)
        bs = bdrv_open(filename, options=options, flags=flags)
        try:
            blk.insert_bs(bs)
        finally:
            bs.unref()
        blk.enable_write_cache = not writethrough
        if aio_context is not None:
            blk.set_aio_context(aio_context)
    except BaseException:
        blk.unref()
        raise
    return blk
