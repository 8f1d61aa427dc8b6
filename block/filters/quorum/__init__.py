# SPDX-License-Identifier: GPL-2.0-only
"""quorum: one disk on several copies, which vote (block/quorum.c).

    driver      the hooks
    state       what a node knows, and how its options become that
    requests    all children are asked side by side
    vote        which version has most
    tell        the two events
"""
