# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of small protocols share: virtual time."""

from __future__ import annotations

from tests.support.virtual_tree import elsewhere, world

__all__ = ["elsewhere", "world"]
