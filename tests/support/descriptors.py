# SPDX-License-Identifier: GPL-2.0-only
"""Which descriptors this process has open: Linux tells by /proc, other systems by /dev/fd."""

from __future__ import annotations

import os

FOLDER = "/dev/fd"


def open_fds() -> set[int]:
    """All open descriptors."""
    return set(described())


def described() -> dict[int, str]:
    """All open descriptors, and what each one is."""
    found = {}
    for name in os.listdir(FOLDER):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # the one that listed the folder
        found[int(name)] = _describe(name)
    return found


def _describe(name: str) -> str:
    try:
        return os.readlink(f"{FOLDER}/{name}")
    except OSError:
        return "unknown"
