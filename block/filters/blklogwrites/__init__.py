# SPDX-License-Identifier: GPL-2.0-only
"""blklogwrites: a filter that writes down every change of a disk, so that it can be replayed.

layout.py   the log as it stands on the disk, and how it is read
log.py      the log while it grows
driver.py   the filter
"""
