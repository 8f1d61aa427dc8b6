# SPDX-License-Identifier: GPL-2.0-only
"""4 KiB requests to an allocated qcow2 image in the page cache, ours against `qemu-img bench`.

As block_cases, with an image in which every cluster is there: a read finds its entry in the L2
cache, a write goes to the cluster that it has.
"""

from __future__ import annotations

from benchmarks import images
from benchmarks.block_cases import Plan, cases_of
from benchmarks.harness import Case

PLAN: Plan = (
    ("read", 1, 75_000, 1.3),
    ("read", 32, 75_000, 0.9),
    ("write", 1, 15_000, None),
    ("write", 32, 40_000, None),
)


def cases(quick: bool) -> list[Case]:
    """Returns reads and writes at depth 1 and 32."""
    return cases_of("qcow2", PLAN, images.qcow2, quick)
