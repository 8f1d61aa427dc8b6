# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of filters share: an empty world around each, and IOThreads."""

from __future__ import annotations

from tests.block.core.conftest import iothread, main, nothing_left_behind, second_iothread

__all__ = ["iothread", "main", "nothing_left_behind", "second_iothread"]
