# SPDX-License-Identifier: GPL-2.0-only
"""quorum: one disk on several copies, which vote (block/quorum.c)."""
