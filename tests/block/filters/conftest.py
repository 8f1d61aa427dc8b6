# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of filters share: an empty world around each, IOThreads, and virtual time."""

from __future__ import annotations

from tests.block.core.conftest import iothread, main, nothing_left_behind, second_iothread
from tests.support.virtual_tree import elsewhere, world

__all__ = ["elsewhere", "iothread", "main", "nothing_left_behind", "second_iothread", "world"]
