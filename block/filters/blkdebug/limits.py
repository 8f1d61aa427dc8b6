# SPDX-License-Identifier: GPL-2.0-only
"""Limits that a user puts on the requests of a blkdebug node, to see how others bear them.

    option           changes in bs.bl             must be a multiple of
    align            request_alignment            (a power of two)
    max-transfer     max_transfer                 align
    opt-write-zero   pwrite_zeroes_alignment      align
    max-write-zero   max_pwrite_zeroes            opt-write-zero, align
    opt-discard      pdiscard_alignment           align
    max-discard      max_pdiscard                 opt-discard, align

All are in bytes; 0, and what is not said, leaves what the image has.

R1  `align` here is the larger of the option and of what the image demands.
R2  A limit is below 2 GiB.
Pure functions, but for `apply`: the thread at home in the node's context.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.options import Option, invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from block.core.limits import BlockLimits

OPTIONS = (
    Option("align", "size", "Required alignment in bytes", 0),
    Option("max-transfer", "size", "Maximum transfer size in bytes", 0),
    Option("opt-write-zero", "size", "Optimum write zero alignment in bytes", 0),
    Option("max-write-zero", "size", "Maximum write zero size in bytes", 0),
    Option("opt-discard", "size", "Optimum discard alignment in bytes", 0),
    Option("max-discard", "size", "Maximum discard size in bytes", 0),
)
FIELDS = {
    "align": "request_alignment",
    "max-transfer": "max_transfer",
    "opt-write-zero": "pwrite_zeroes_alignment",
    "max-write-zero": "max_pwrite_zeroes",
    "opt-discard": "pdiscard_alignment",
    "max-discard": "max_pdiscard",
}
# A maximum must also be a multiple of the optimum for the same requests.
OPTIMUM = {"max-write-zero": "opt-write-zero", "max-discard": "opt-discard"}


def check(limits: Mapping[str, int], image_align: int) -> None:
    """Raises where the limits contradict each other or the image (blkdebug_open, R1, R2)."""
    align = limits["align"]
    if align.bit_count() > 1:
        raise _contradiction("align", align)
    align = max(align, image_align)
    for name, value in limits.items():
        unit = max(align, limits.get(OPTIMUM.get(name, ""), 0))
        if value >= f.INT_MAX or (name != "align" and value % unit):
            raise _contradiction(name, value)


def _contradiction(name: str, value: int) -> Exception:
    return invalid(f"Cannot meet constraints with {name} {value}")


def apply(limits: Mapping[str, int], bl: BlockLimits) -> None:
    """Puts them into a node's limits (blkdebug_refresh_limits)."""
    for name, value in limits.items():
        if value:
            setattr(bl, FIELDS[name], value)
