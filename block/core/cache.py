# SPDX-License-Identifier: GPL-2.0-only
"""Cache modes and the other words that stand for open flags.

    mode          cache.direct  cache.no-flush  write cache (the device's)
    writeback     off           off             on
    none          on            off             on
    writethrough  off           off             off: each write is followed by a flush
    directsync    on            off             off
    unsafe        off           on              on

R1  'write cache' belongs to the device (BlockBackend.enable_write_cache), the two others to the
    node; children inherit those two from their parent, unless they say otherwise.

Pure functions. Source: block.c (bdrv_parse_cache_mode and its neighbours).
"""

from __future__ import annotations

import errno

from block.core.error import BlockError
from block.core.flags import (
    BDRV_O_IO_URING,
    BDRV_O_NATIVE_AIO,
    BDRV_O_NO_FLUSH,
    BDRV_O_NOCACHE,
    BDRV_O_UNMAP,
)

CACHE_MODES: dict[str, tuple[int, bool]] = {
    "writeback": (0, False),
    "none": (BDRV_O_NOCACHE, False),
    "off": (BDRV_O_NOCACHE, False),
    "writethrough": (0, True),
    "directsync": (BDRV_O_NOCACHE, True),
    "unsafe": (BDRV_O_NO_FLUSH, False),
}
"""Mode -> open flags, and whether writes go through to the disk."""

AIO_MODES = {"threads": 0, "native": BDRV_O_NATIVE_AIO, "io_uring": BDRV_O_IO_URING}
DISCARD_MODES = {"off": 0, "ignore": 0, "on": BDRV_O_UNMAP, "unmap": BDRV_O_UNMAP}
DETECT_ZEROES_MODES = ("off", "on", "unmap")


def parse_cache_mode(mode: str) -> tuple[int, bool]:
    """Open flags and `writethrough` of a mode by name (bdrv_parse_cache_mode).

    Raises BlockError(EINVAL): "invalid cache option".
    """
    if mode not in CACHE_MODES:
        raise BlockError(errno.EINVAL, "invalid cache option")
    return CACHE_MODES[mode]


def parse_aio(mode: str) -> int:
    """The open flag of an I/O engine by name (bdrv_parse_aio)."""
    if mode not in AIO_MODES:
        raise BlockError(errno.EINVAL, "invalid aio option")
    return AIO_MODES[mode]


def parse_discard(mode: str) -> int:
    """The open flag of a discard mode (bdrv_parse_discard_flags)."""
    if mode not in DISCARD_MODES:
        raise BlockError(errno.EINVAL, "Invalid discard option")
    return DISCARD_MODES[mode]


def parse_detect_zeroes(mode: str, flags: int) -> str:
    """Checks a detect-zeroes mode against the open flags (bdrv_parse_detect_zeroes)."""
    if mode not in DETECT_ZEROES_MODES:
        raise BlockError(errno.EINVAL, f"invalid parameter value: {mode}")
    if mode == "unmap" and not flags & BDRV_O_UNMAP:
        raise BlockError(
            errno.EINVAL,
            "setting detect-zeroes to unmap is not allowed "
            "without setting discard operation to unmap",
        )
    return mode
