# SPDX-License-Identifier: GPL-2.0-only
"""Images that are refused: what we say, and what QEMU says of the same image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

import block
from block.core.error import BlockError
from tests.support.qemu_tools import qemu


def refused(
    path: Path, format: str, read_only: bool = False, options: Mapping[str, object] | None = None
) -> BlockError:
    """Opens an image that must not open; returns why it does not."""
    with pytest.raises(BlockError) as caught:
        block.open(os.fspath(path), format=format, read_only=read_only, options=options).close()
    return caught.value


def qemu_says(path: Path, format: str) -> str:
    """What qemu-io says instead of opening an image, without its own name and the image's."""
    done = qemu("qemu-io", "-f", format, "-c", "quit", path)
    return done.stderr.removeprefix(f"qemu-io: can't open device {path}: ").rstrip("\n")
