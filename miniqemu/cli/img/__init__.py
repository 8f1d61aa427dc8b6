# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img`: QEMU's tool for disk images, a module for each of its commands.

    main, help, errors      the program; its texts; how a command ends early
    common, progress        what commands share; how far one is
    amend bench bitmap check commit compare convert create dd info map measure rebase resize
    snapshot                the commands
    copy_bitmaps, snapshot_list, snapshot_option    parts of convert, of snapshot, and -l

What they do to images is in block.ops.
"""
