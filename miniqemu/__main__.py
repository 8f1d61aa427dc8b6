# SPDX-License-Identifier: GPL-2.0-only
"""`python -m miniqemu` is the program `miniqemu`."""

from __future__ import annotations

import sys

from miniqemu.cli.miniqemu import console

sys.exit(console())
