# SPDX-License-Identifier: GPL-2.0-only
"""The bug museum: real mistakes of this machinery, put back and found (README.md)."""
