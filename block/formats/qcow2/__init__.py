# SPDX-License-Identifier: GPL-2.0-only
"""qcow2: images that hold only what was written, over a backing file (block/qcow2*.c).

layout      what stands on the disk, with the specification's names
state       what an open image knows; where a guest offset is looked up
header      reading, checking and writing the header; what is refused
cache       L2 tables and refcount blocks in memory; who is written before whom
cluster     from a guest offset to a host offset; L1 and L2 tables
refcount    which clusters are in use; allocating and freeing them
refgrow     new refcount blocks and a larger refcount table
extents     all extents of a slice at once, for a walk over the whole disk
write       allocating writes: who waits for whom, copy on write, linking
zero        zero clusters and discard
subcluster  L2 entries with a bitmap: parts of clusters
datafile    guest data in a file of their own
compressed  reading compressed clusters
dirty       the dirty bit: refcounts that may wait
corrupt     what is done when an image contradicts itself
options     runtime options, the sizes of the caches
create      new images            truncate    longer images, preallocation
shrink      shorter images
snapshots   within the image, and a machine's state: create, goto, delete, read one
shared      refcounts and flags of what disk and snapshots share
snapshot_table, snapshot_check    the table that names them
ranges      where tables of snapshots are
make_empty  nothing is held any more
amend       other options for an image that is there: refcount_order, downgrade
driver      the hooks
"""
