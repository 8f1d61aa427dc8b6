# SPDX-License-Identifier: GPL-2.0-only
"""Runtime options: the sizes of the caches, overlap checks, discards (read_cache_sizes,
qcow2_update_options_prepare).

    l2-cache-size          default 32 MiB, at most what the whole disk needs
    refcount-cache-size    default 4 refcount blocks
    cache-size             both together: the L2 cache gets what it can use, the rest is for
                           refcounts
    l2-cache-entry-size    default a cluster; 4 KiB where the cache cannot hold all L2 tables

R1  Sizes are upper bounds, rounded down to whole tables; 2 slices and 4 blocks are the least.
R2  They are checked as a whole before any is taken over: a reopen that fails changes none.

Called in the main thread, while an image is opened or reopened; `follow_size` in the
node's context.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.options import Option, invalid
from block.formats.qcow2 import crypto
from block.formats.qcow2.corrupt import TEMPLATES
from block.formats.qcow2.layout import COMPAT_LAZY_REFCOUNTS, ENTRY_SIZE, MIN_CLUSTER_BITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from block.formats.qcow2.state import Qcow2State

DEFAULT_CACHE_CLEAN_INTERVAL = 600

OVERLAPS = {
    "main-header": "the main qcow2 header",
    "active-l1": "the active L1 table",
    "active-l2": "an active L2 table",
    "refcount-table": "the refcount table",
    "refcount-block": "a refcount block",
    "snapshot-table": "the snapshot table",
    "inactive-l1": "an inactive L1 table",
    "inactive-l2": "an inactive L2 table",
    "bitmap-directory": "the bitmap directory",
}
"""The options that say one overlap check, in the order of the bits OL_* (corrupt.py)."""

OVERLAP_HELP = (
    "Selects which overlap checks to perform from a range of templates "
    "(none, constant, cached, all)"
)

RUNTIME_OPTS = (
    *crypto.RUNTIME_OPTS,
    Option("lazy-refcounts", "bool", "Postpone refcount updates"),
    Option("pass-discard-request", "bool", "Pass guest discard requests to the layer below"),
    Option(
        "pass-discard-snapshot",
        "bool",
        "Generate discard requests when snapshot related space is freed",
        True,
    ),
    Option(
        "pass-discard-other",
        "bool",
        "Generate discard requests when other clusters are freed",
        False,
    ),
    Option("overlap-check", "string", OVERLAP_HELP),
    Option("overlap-check.template", "string", OVERLAP_HELP),
    *(
        Option(f"overlap-check.{name}", "bool", f"Check for unintended writes into {what}")
        for name, what in OVERLAPS.items()
    ),
    Option(
        "cache-size",
        "size",
        "Maximum combined metadata (L2 tables and refcount blocks) cache size",
    ),
    Option("l2-cache-size", "size", "Maximum L2 table cache size"),
    Option("l2-cache-entry-size", "size", "Size of each entry in the L2 cache"),
    Option("refcount-cache-size", "size", "Maximum refcount block cache size"),
    Option(
        "cache-clean-interval",
        "number",
        "Clean unused cache entries after this time (in seconds)",
        DEFAULT_CACHE_CLEAN_INTERVAL,
    ),
)

MIN_L2_CACHE_SIZE = 2
MIN_REFCOUNT_CACHE_SIZE = 4
DEFAULT_L2_CACHE_MAX_SIZE = 32 << 20


class CacheSizes:
    """What comes out: bytes of one L2 slice, how many slices, how many refcount blocks."""

    __slots__ = ("l2_entry_size", "l2_tables", "refcount_tables")

    def __init__(self, l2_entry_size: int, l2_tables: int, refcount_tables: int) -> None:
        self.l2_entry_size = l2_entry_size
        self.l2_tables = l2_tables
        self.refcount_tables = refcount_tables


def cache_sizes(
    taken: dict[str, Any], cluster_size: int, disk_size: int, l2_entry: int = ENTRY_SIZE
) -> CacheSizes:
    """Computes them (read_cache_sizes); an L2 entry has `l2_entry` bytes.

    Raises BlockError with QEMU's text.
    """
    entries = -(-disk_size // cluster_size)
    max_l2 = -(-entries * l2_entry // cluster_size) * cluster_size
    l2_size, refcount_size = _divide(taken, max_l2, MIN_REFCOUNT_CACHE_SIZE * cluster_size)
    entry_size = taken["l2-cache-entry-size"]
    if entry_size is None:
        entry_size = min(cluster_size, 4096) if l2_size < max_l2 else cluster_size
    smallest = 1 << MIN_CLUSTER_BITS
    if not smallest <= entry_size <= cluster_size or entry_size & (entry_size - 1):
        raise invalid(
            f"L2 cache entry size must be a power of two between {smallest} and the cluster "
            f"size ({cluster_size})"
        )
    l2_tables = max(l2_size // entry_size, MIN_L2_CACHE_SIZE)
    refcount_tables = max(refcount_size // cluster_size, MIN_REFCOUNT_CACHE_SIZE)
    if l2_tables > f.INT_MAX:
        raise invalid("L2 cache size too big")
    if refcount_tables > f.INT_MAX:
        raise invalid("Refcount cache size too big")
    return CacheSizes(entry_size, l2_tables, refcount_tables)


def join(options: Mapping[str, object], old: dict[str, object]) -> None:
    """Takes from the old options what new ones stand against (qcow2_join_options).

    A new template means all overlap checks, a new total both caches; and where both caches are
    said in the end, an old total is nobody's.
    """
    gone: set[str] = set()
    if options.keys() & {"overlap-check", "overlap-check.template"}:
        gone = {name for name in old if name.startswith("overlap-check")}
    if "cache-size" in options:
        gone |= {"l2-cache-size", "refcount-cache-size"}
    elif {"l2-cache-size", "refcount-cache-size"} <= options.keys() | old.keys():
        gone.add("cache-size")
    for name in gone & old.keys():
        del old[name]


def _divide(taken: dict[str, Any], max_l2: int, min_refcount: int) -> tuple[int, int]:
    """How many bytes go to the L2 cache, and how many to the refcount cache."""
    both, wanted, refcounts = (
        taken[name] for name in ("cache-size", "l2-cache-size", "refcount-cache-size")
    )
    l2_size = min(max_l2, DEFAULT_L2_CACHE_MAX_SIZE if wanted is None else wanted)
    if both is None:
        return l2_size, refcounts or 0
    if wanted is not None and refcounts is not None:
        raise invalid(
            "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time"
        )
    if wanted is not None:
        if wanted > both:
            raise invalid("l2-cache-size may not exceed cache-size")
        return l2_size, both - l2_size
    if refcounts is not None:
        if refcounts > both:
            raise invalid("refcount-cache-size may not exceed cache-size")
        return both - refcounts, refcounts
    if both >= max_l2 + min_refcount:
        return max_l2, both - max_l2
    refcounts = min(both, min_refcount)
    return both - refcounts, refcounts


def follow_size(s: Qcow2State, disk_size: int) -> None:
    """The disk has another length: the L2 cache holds more, or less, in slices as before."""
    sizes = cache_sizes(s.cache_options, s.cluster_size, disk_size, 1 << s.entry_bits)
    nbytes = sizes.l2_entry_size * sizes.l2_tables
    s.l2_cache.resize(max(nbytes // s.l2_cache.table_size, MIN_L2_CACHE_SIZE))


class Settings:
    """What the options ask for; checked (Qcow2ReopenState)."""

    __slots__ = (
        "clean_interval",
        "lazy_refcounts",
        "overlap_checks",
        "pass_discard",
        "pass_other_discard",
        "pass_snapshot_discard",
        "sizes",
        "taken",
    )

    def __init__(self, s: Qcow2State, taken: dict[str, Any], flags: int, disk_size: int) -> None:
        self.taken = taken
        self.sizes = cache_sizes(taken, s.cluster_size, disk_size, 1 << s.entry_bits)
        self.clean_interval: int = taken["cache-clean-interval"]
        if self.clean_interval > f.UINT_MAX:
            raise invalid("Cache clean interval too big")
        self.lazy_refcounts = _lazy_refcounts(s, taken["lazy-refcounts"])
        self.overlap_checks = _overlap_checks(taken)
        request = taken["pass-discard-request"]
        self.pass_discard = bool(flags & f.BDRV_O_UNMAP) if request is None else bool(request)
        self.pass_snapshot_discard: bool = taken["pass-discard-snapshot"]
        self.pass_other_discard: bool = taken["pass-discard-other"]


def _lazy_refcounts(s: Qcow2State, wanted: bool | None) -> bool:
    """What the user says, or else the header."""
    if wanted and s.version < 3:
        raise invalid(
            "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level"
        )
    return bool(s.compatible_features & COMPAT_LAZY_REFCOUNTS) if wanted is None else wanted


def _overlap_checks(taken: dict[str, Any]) -> int:
    """OL_* of a template, each of which may be said otherwise."""
    short, long = taken["overlap-check"], taken["overlap-check.template"]
    if short is not None and long is not None and short != long:
        raise invalid(
            f"Conflicting values for qcow2 options 'overlap-check' ('{short}') and "
            f"'overlap-check.template' ('{long}')"
        )
    template = short or long or "cached"
    if template not in TEMPLATES:
        raise invalid(
            f"Unsupported value '{template}' for qcow2 option 'overlap-check'. Allowed are any of "
            "the following: none, constant, cached, all"
        )
    checks = TEMPLATES[template]
    for bit, name in enumerate(OVERLAPS):
        wanted = taken[f"overlap-check.{name}"]
        if wanted is not None:
            checks = checks & ~(1 << bit) | wanted << bit
    return checks


def apply(s: Qcow2State, new: Settings) -> None:
    """Takes them over, but for the sizes of the caches (qcow2_update_options_commit)."""
    s.overlap_checks = new.overlap_checks
    s.lazy_refcounts = new.lazy_refcounts
    s.cache_options = new.taken
    s.clean_interval = new.clean_interval
    s.pass_discard = new.pass_discard
    s.pass_snapshot_discard = new.pass_snapshot_discard
    s.pass_other_discard = new.pass_other_discard
