# SPDX-License-Identifier: GPL-2.0-only
"""Contexts to move among."""

from __future__ import annotations

from tests.block.core.conftest import iothread, main

__all__ = ["iothread", "main"]
