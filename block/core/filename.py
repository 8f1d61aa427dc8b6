# SPDX-License-Identifier: GPL-2.0-only
"""Names of images: protocol prefixes, names relative to another image, json: names.

R1  'name:rest' has a protocol when the colon comes before the first slash: './a:b' has none.
R2  A backing name is relative to the image that mentions it, not to the working directory.
R3  A node's `exact_filename` opens the same tree again by itself; where no plain name does,
    `filename` is 'json:{...}' with all options that matter.

Called in the main thread while a tree is opened or shown. Source: block.c.
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.core.flags import BDRV_O_NO_IO
from block.core.keyval import parse_json_object
from block.core.options import crumple, flatten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState

JSON_PREFIX = "json:"


def path_has_protocol(path: str) -> bool:
    """True for 'nbd:...' and 'http://...', False for './a:b' (path_has_protocol)."""
    head, colon, _ = path.partition(":")
    return bool(colon) and "/" not in head


def path_is_absolute(path: str) -> bool:
    """True when the name begins at the root (path_is_absolute)."""
    return path.startswith("/")


def path_combine(base: str, name: str) -> str:
    """`name` as seen from the directory of `base`; both may be URLs (path_combine)."""
    if path_is_absolute(name):
        return name
    start = base.index(":") + 1 if path_has_protocol(base) else 0
    return base[: max(start, base.rfind("/") + 1)] + name


def strip_protocol(filename: str, prefix: str, options: dict[str, object]) -> None:
    """Stores the name without 'file:' into options['filename']
    (bdrv_parse_filename_strip_prefix).

    What remains may look like a protocol of its own ('file:a:b'): './' in front prevents it.
    """
    if filename.startswith(prefix):
        rest = filename[len(prefix) :]
        options["filename"] = "./" + rest if path_has_protocol(rest) else rest


def parse_json_filename(filename: str) -> dict[str, object]:
    """The flat options of a 'json:{...}' name. Raises BlockError(EINVAL)."""
    try:
        return flatten(parse_json_object(filename[len(JSON_PREFIX) :]))
    except BlockError as error:
        if str(error).startswith("JSON parse error"):
            raise BlockError(errno.EINVAL, f"Could not parse the JSON options: {error}") from None
        raise


def full_backing_filename(backed: str, backing: str) -> str:
    """Where the backing name found in the image `backed` points to; '' when there is none
    (bdrv_get_full_backing_filename_from_filename)."""
    if not backing or path_has_protocol(backing) or path_is_absolute(backing):
        return backing
    if not backed or backed.startswith(JSON_PREFIX):
        raise BlockError(errno.EINVAL, f"Cannot use relative backing file names for '{backed}'")
    return path_combine(backed, backing)


def node_backing_filename(bs: BlockDriverState) -> str:
    """The backing name in the header of `bs`, made absolute (bdrv_get_full_backing_filename)."""
    backing = bs.backing_file
    if not backing or path_has_protocol(backing) or path_is_absolute(backing):
        return backing
    return node_dirname(bs) + backing


def node_dirname(bs: BlockDriverState) -> str:
    """The directory of a node's image with a slash at its end, '' for the working directory
    (bdrv_dirname)."""
    if bs.drv is not None and "dirname" in bs.drv.hooks:
        return bs.drv.dirname(bs)
    primary = primary_child(bs)
    if primary is not None:
        return node_dirname(primary)
    refresh_filename(bs)
    if bs.exact_filename:
        return path_combine(bs.exact_filename, "")
    name = bs.drv.format_name if bs.drv else "closed"
    raise BlockError(errno.EINVAL, f"Cannot generate a base directory for {name} nodes")


def primary_child(bs: BlockDriverState) -> BlockDriverState | None:
    """The child that holds the node's own data: 'file', of a filter the filtered one
    (bdrv_primary_bs)."""
    if bs.file is not None:
        return bs.file.bs
    if bs.drv is not None and bs.drv.is_filter and bs.backing is not None:
        return bs.backing.bs
    return None


def refresh_filename(bs: BlockDriverState, just_opened: bool = False) -> None:
    """Recomputes filename, exact_filename and full_open_options of a tree
    (bdrv_refresh_filename).

    `just_opened`: the children that were opened together with the node have done so already.
    Else each node of a chain would do it for all below once more.
    """
    if bs.drv is None:
        return
    for child in bs.children:
        if not just_opened or child.bs.inherits_from is not bs:
            refresh_filename(child.bs)
    # Who opens without I/O leaves the chain out to look at a header, not to change what is read.
    overridden = backing_overridden(bs) and not bs.open_flags & BDRV_O_NO_IO
    strong = _strong_options(bs)
    bs.full_open_options = {**_nested(bs, strong), **_child_options(bs, overridden)}
    bs.full_open_options.setdefault("driver", bs.drv.format_name)
    primary = primary_child(bs)
    if "refresh_filename" in bs.drv.hooks:
        bs.exact_filename = ""
        bs.drv.refresh_filename(bs)
    elif primary is not None:
        plain = (
            bool(primary.exact_filename)
            and bool(primary.drv and primary.drv.protocol_name)
            and not bs.drv.is_filter
            and not strong
            and not overridden
        )
        bs.exact_filename = primary.exact_filename if plain else ""
    bs.filename = bs.exact_filename or json_filename(bs.full_open_options)


def _strong_options(bs: BlockDriverState) -> dict[str, object]:
    """What decides what a guest reads: the options that the driver claims in strong_runtime_opts,
    by 'name.' all below, or one by its name."""
    assert bs.drv is not None
    claimed = bs.drv.strong_runtime_opts
    trees = tuple(name for name in claimed if name.endswith("."))
    return {
        name: value
        for name, value in bs.options.items()
        if name in claimed or name.startswith(trees)
    }


def _nested(bs: BlockDriverState, strong: dict[str, object]) -> dict[str, object]:
    """Their nested form; what was claimed by its name keeps its dots, as QEMU has it."""
    assert bs.drv is not None
    as_it_is = {name: strong[name] for name in bs.drv.strong_runtime_opts if name in strong}
    return {**crumple({n: v for n, v in strong.items() if n not in as_it_is}), **as_it_is}


def _child_options(bs: BlockDriverState, overridden: bool) -> dict[str, object]:
    if bs.drv is not None and "gather_child_options" in bs.drv.hooks:
        return bs.drv.gather_child_options(bs)
    options: dict[str, object] = {}
    for child in bs.children:
        if child is not bs.backing or overridden:
            options[child.name] = child.bs.full_open_options
    if overridden and bs.backing is None:
        options["backing"] = None
    return options


def backing_overridden(bs: BlockDriverState) -> bool:
    """True when the chain is another one than the image's header says."""
    if bs.backing is not None:
        return bs.backing.bs.filename != bs.auto_backing_file
    return bool(bs.auto_backing_file)


def json_filename(options: dict[str, object]) -> str:
    """The 'json:{...}' name for full, nested options, in QEMU's order and spacing."""
    from block.qapi.qjson import to_json

    return JSON_PREFIX + to_json(options)
