# SPDX-License-Identifier: GPL-2.0-only
"""The documentation's pages, and beside them what draws and fills them."""
