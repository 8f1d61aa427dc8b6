# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of blkdebug share: nothing left behind, and an IOThread."""

from __future__ import annotations

from tests.block.core.conftest import iothread, main, nothing_left_behind

__all__ = ["iothread", "main", "nothing_left_behind"]
