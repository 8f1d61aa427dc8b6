# SPDX-License-Identifier: GPL-2.0-only
"""Options that every node has, and what a child takes over from its parent.

    option             a child's default                  of a backing file
    cache.direct       as the parent                      as the parent
    cache.no-flush     as the parent                      as the parent
    force-share        as the parent                      as the parent
    read-only          as the parent                      on
    auto-read-only     as the parent                      off
    discard            unmap (the parent has refused what it does not want)
    detect-zeroes      off: found once, at the top

R1  What the user says for a child goes before what it inherits.
R2  Open flags and options say the same things twice; options win, and flags_from_options and
    options_from_flags keep them in step.

Pure functions. Source: block.c (bdrv_inherited_options, update_flags_from_options).
"""

from __future__ import annotations

from block.core import flags as f
from block.core.options import Option

COMMON_OPTS = (
    Option("node-name", "string", "Node name of the block device node"),
    Option("driver", "string", "Block driver to use for the node"),
    Option("cache.direct", "bool", "Bypass software writeback cache on the host", False),
    Option("cache.no-flush", "bool", "Ignore flush requests", False),
    Option("read-only", "bool", "Node is opened in read-only mode", False),
    Option(
        "auto-read-only", "bool", "Node can become read-only if opening read-write fails", False
    ),
    Option("detect-zeroes", "string", "try to optimize zero writes (off, on, unmap)", "off"),
    Option("discard", "string", "discard operation (ignore/off, unmap/on)"),
    Option("force-share", "bool", "always accept other writers (default: off)", False),
)
"""What the core itself understands (bdrv_runtime_opts)."""

INHERITED = ("cache.direct", "cache.no-flush", "force-share")
INHERITED_UNLESS_BACKING = ("read-only", "auto-read-only")

FLAG_OPTIONS = (
    ("cache.direct", f.BDRV_O_NOCACHE),
    ("cache.no-flush", f.BDRV_O_NO_FLUSH),
    ("auto-read-only", f.BDRV_O_AUTO_RDONLY),
)


def inherit_options(
    options: dict[str, object], role: int, parent_options: dict[str, object]
) -> None:
    """Adds to a child's options what it inherits (bdrv_inherited_options; child_flags is the other
    half)."""
    for name in INHERITED:
        copy_default(options, parent_options, name)
    if role & f.BDRV_CHILD_COW:
        options.setdefault("read-only", True)
        options.setdefault("auto-read-only", False)
    else:
        for name in INHERITED_UNLESS_BACKING:
            copy_default(options, parent_options, name)
    options.setdefault("discard", "unmap")


def copy_default(options: dict[str, object], source: dict[str, object], name: str) -> None:
    """Copies one option where the source has it and the target has not."""
    if name in source:
        options.setdefault(name, source[name])


def child_flags(role: int, parent_is_format: bool, parent_flags: int) -> int:
    """A child's open flags. BDRV_O_PROTOCOL decides whether its format is probed: never that
    of a format's own file or of metadata, always that of a filter's or a quorum's data."""
    flags = parent_flags & ~(f.BDRV_O_SNAPSHOT | f.BDRV_O_NO_BACKING | f.BDRV_O_COPY_ON_READ)
    other_roles = f.BDRV_CHILD_METADATA | f.BDRV_CHILD_FILTERED
    if not parent_is_format and role & f.BDRV_CHILD_DATA and not role & other_roles:
        flags &= ~f.BDRV_O_PROTOCOL
    if (parent_is_format and not role & f.BDRV_CHILD_COW) or role & f.BDRV_CHILD_METADATA:
        flags |= f.BDRV_O_PROTOCOL
    if role & f.BDRV_CHILD_METADATA:
        flags &= ~f.BDRV_O_NO_IO
    if role & f.BDRV_CHILD_COW:
        flags &= ~f.BDRV_O_TEMPORARY
    return flags


def flags_from_options(flags: int, taken: dict[str, object]) -> int:
    """The flags that follow from converted common options (update_flags_from_options)."""
    flags &= ~(f.BDRV_O_CACHE_MASK | f.BDRV_O_RDWR | f.BDRV_O_AUTO_RDONLY)
    for name, flag in FLAG_OPTIONS:
        if taken[name]:
            flags |= flag
    return flags if taken["read-only"] else flags | f.BDRV_O_RDWR


def options_from_flags(options: dict[str, object], flags: int) -> None:
    """Spells flags out as options where the user said nothing (update_options_from_flags)."""
    for name, flag in FLAG_OPTIONS:
        options.setdefault(name, bool(flags & flag))
    options.setdefault("read-only", not flags & f.BDRV_O_RDWR)
