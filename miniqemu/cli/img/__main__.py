# SPDX-License-Identifier: GPL-2.0-only
"""`python -m miniqemu.cli.img`: miniqemu-img where nothing is installed."""

from __future__ import annotations

from .main import console

if __name__ == "__main__":
    console()
