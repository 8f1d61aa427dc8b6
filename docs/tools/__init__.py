# SPDX-License-Identifier: GPL-2.0-only
"""Draws the documentation's pictures: `python -m docs.tools`."""
