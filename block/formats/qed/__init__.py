# SPDX-License-Identifier: GPL-2.0-only
"""qed: images that hold only what was written, with as little bookkeeping as can be (block/qed*.c).

layout      what stands on the disk, with the specification's names
state       what an open image knows; arithmetic; where the next cluster comes from
header      reading, checking and writing the header; another backing file
table       reading and writing L1 and L2 tables
l2_cache    pieces of L2 tables in memory
cluster     from a guest offset to a place in the file
read        reads, and the question where bytes are
write       writes in place, and allocating ones: copy on write, linking
need_check  the NEED_CHECK bit, and the timer that takes it away
check       consistency check and repair
create      new images            truncate    longer images
driver      the hooks
"""
