# SPDX-License-Identifier: GPL-2.0-only
"""What tools do with whole images: create (convert, compare, check ... will stand beside it)."""
