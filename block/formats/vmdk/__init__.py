# SPDX-License-Identifier: GPL-2.0-only
"""vmdk: VMware's disks, in one file or in many (block/vmdk.c).

layout      what stands on the disk, with the specification's names
descriptor  the text that describes a disk: CID, parent, extents
opening     opening an image with all its extents
extent      one extent of a disk; headers are read and checked here
tables      grain directories and grain tables: from a guest offset to a grain
compressed  grains of streamOptimized images
read        reads, and the question where bytes are
write       writes: new grains, copy on write, zeroes
state       what an open image knows; its CID
check       walking all tables
create      new images
driver      the hooks
"""
