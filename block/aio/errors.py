# SPDX-License-Identifier: GPL-2.0-only
"""Errors of the event loop.

What C frees, Python only marks: a deleted bottom half, timer or closed context still
exists as long as somebody remembers it. Touching it is the bug that crashed QEMU in C,
so here it raises.
"""

from __future__ import annotations


class UsedAfterFree(RuntimeError):
    """A deleted object was used (in C: use after free)."""
