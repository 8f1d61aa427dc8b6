# SPDX-License-Identifier: GPL-2.0-only
"""Words of the command line for how an image is cached, and by whom read (block/core/cache.py)."""

from __future__ import annotations

import pytest

from block.core import cache
from block.core import flags as f
from block.core.error import BlockError


@pytest.mark.parametrize(
    ("mode", "flags", "writethrough"),
    [
        ("writeback", 0, False),
        ("none", f.BDRV_O_NOCACHE, False),
        ("off", f.BDRV_O_NOCACHE, False),
        ("writethrough", 0, True),
        ("directsync", f.BDRV_O_NOCACHE, True),
        ("unsafe", f.BDRV_O_NO_FLUSH, False),
    ],
)
def test_a_cache_mode_is_two_flags_and_a_promise(mode: str, flags: int, writethrough: bool) -> None:
    assert cache.parse_cache_mode(mode) == (flags, writethrough)


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(BlockError, match=r"^invalid cache option$"):
        cache.parse_cache_mode("x")
    with pytest.raises(BlockError, match=r"^invalid aio option$"):
        cache.parse_aio("x")
