# SPDX-License-Identifier: GPL-2.0-only
"""What is done with whole images. Knows no command line.

    create, amend, measure  making one, changing its options, how large it would be
    convert, turns, sparse  copying images into one; in which order; what is not written
    sources, salvage        what is copied; what can be read of a broken source
    compare, dd, bench      two images, a part of one, many requests
    info, map               what is known of an image, and where its data are
    commit, rebase          into the backing file; onto another one
    bitmap                  dirty bitmaps
    snapshot_overlay        changes that are thrown away
    replay_log              the log of blklogwrites, up to any moment
"""
