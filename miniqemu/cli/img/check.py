# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img check`: whether an image's tables are as they should be (img_check).

The exit status: 0 all is well, 1 something could not be checked, 2 the image is corrupt, 3 it has
only leaks, 63 the format has no checks.
"""

from __future__ import annotations

import errno
import os

from block.core import flags as f
from block.core.check import FIX_ERRORS, FIX_LEAKS, FIX_NOTHING, BdrvCheckResult
from block.core.check import check as bdrv_check
from block.core.error import BlockError
from miniqemu.cli.getopt import Words
from miniqemu.cli.output import write

from .common import (
    FORMAT,
    OUTPUT,
    SHARED,
    cache_flags,
    img_open,
    one_image,
    options_of,
    wants_json,
)
from .errors import Failure, misused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.node import BlockDriverState

LONG = {**SHARED, **FORMAT, **OUTPUT, "repair": ("r", True)}
FIXES = {"leaks": FIX_LEAKS, "all": FIX_LEAKS | FIX_ERRORS}


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    words = Words(argv, "hf:r:T:qU", LONG)
    given: dict[str, str] = {}
    for option, value in options_of(program, words):
        given[option] = value
        if option == "r" and value not in FIXES:
            message = "Unknown option value for -r (expecting 'leaks' or 'all')"
            raise misused(program, f"{message}: {value}")
    name = one_image(program, words)
    as_json = wants_json(given.get("output"))
    flags, writethrough = cache_flags(given.get("T", "writeback"), "source cache")
    flags |= f.BDRV_O_CHECK | (f.BDRV_O_RDWR if "r" in given else 0)
    blk = img_open(
        name,
        given.get("f"),
        flags,
        image_opts="image-opts" in given,
        writethrough=writethrough,
        force_share="U" in given,
    )

    def say(text: str) -> None:
        if "q" not in given:
            write(1, text)

    with blk:
        assert blk.bs is not None
        result = collect(blk.bs, FIXES.get(given.get("r", ""), FIX_NOTHING))
        fixed = (result.leaks_fixed, result.corruptions_fixed)
        if any(fixed):
            if not as_json:
                say(REPAIRED.format(*fixed))
            result = collect(blk.bs, FIX_NOTHING)
            result.leaks_fixed, result.corruptions_fixed = fixed
        assert blk.bs.drv is not None
        if as_json:
            from block.qapi.qjson import to_json

            image = image_check(result, name, blk.bs.drv.format_name)
            say(to_json(image, pretty=True) + "\n")
        else:
            say("".join(human(result)))
    if result.check_errors:
        raise Failure("Check failed")
    if result.corruptions:
        return 2
    return 3 if result.leaks else 0


REPAIRED = (
    "The following inconsistencies were found and repaired:\n\n"
    "    {} leaked clusters\n"
    "    {} corruptions\n\n"
    "Double checking the fixed image now...\n"
)


def collect(bs: BlockDriverState, fix: int) -> BdrvCheckResult:
    """Runs the format's check (collect_image_check)."""
    try:
        return bdrv_check(bs, fix)
    except BlockError as error:
        if error.errno == errno.ENOTSUP:
            raise Failure("This image format does not support checks", status=63) from error
        reason = os.strerror(error.errno or errno.EIO)
        raise Failure(f"Check failed: {reason}") from error


def image_check(result: BdrvCheckResult, filename: str, fmt: str) -> dict[str, object]:
    """The result in QEMU's schema (ImageCheck); numbers that are 0 are left out."""
    numbers = {
        "image-end-offset": result.image_end_offset,
        "corruptions": result.corruptions,
        "leaks": result.leaks,
        "corruptions-fixed": result.corruptions_fixed,
        "leaks-fixed": result.leaks_fixed,
        "total-clusters": result.bfi.total_clusters,
        "allocated-clusters": result.bfi.allocated_clusters,
        "fragmented-clusters": result.bfi.fragmented_clusters,
        "compressed-clusters": result.bfi.compressed_clusters,
    }
    known: dict[str, object] = {name: number for name, number in numbers.items() if number}
    return {"filename": filename, "format": fmt, "check-errors": result.check_errors, **known}


def human(result: BdrvCheckResult) -> list[str]:
    """The lines for a person (dump_human_image_check)."""
    lines = []
    if result.corruptions:
        lines.append(
            f"\n{result.corruptions} errors were found on the image.\n"
            "Data may be corrupted, or further writes to the image may corrupt it.\n"
        )
    if result.leaks:
        lines.append(
            f"\n{result.leaks} leaked clusters were found on the image.\n"
            "This means waste of disk space, but no harm to data.\n"
        )
    if result.check_errors:
        count = result.check_errors
        lines.append(f"\n{count} internal errors have occurred during the check.\n")
    if not lines:
        lines.append("No errors were found on the image.\n")
    bfi = result.bfi
    if bfi.total_clusters and bfi.allocated_clusters:
        allocated = bfi.allocated_clusters * 100 / bfi.total_clusters
        fragmented = bfi.fragmented_clusters * 100 / bfi.allocated_clusters
        compressed = bfi.compressed_clusters * 100 / bfi.allocated_clusters
        lines.append(
            f"{bfi.allocated_clusters}/{bfi.total_clusters} = {allocated:.2f}% allocated, "
            f"{fragmented:.2f}% fragmented, {compressed:.2f}% compressed clusters\n"
        )
    if result.image_end_offset:
        lines.append(f"Image end offset: {result.image_end_offset}\n")
    return lines
