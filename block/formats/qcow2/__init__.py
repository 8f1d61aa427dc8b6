# SPDX-License-Identifier: GPL-2.0-only
"""qcow2: images that hold only what was written, over a backing file (block/qcow2*.c).

The image and its tables
    layout            what stands on the disk, with the specification's names
    header            reading and checking the header; what is refused
    header_update     writing it anew
    state             what an open image knows; where a guest offset is looked up
    cache             L2 tables and refcount blocks in memory; who is written before whom
    cache_clean       the timer that empties the caches of what nobody uses
    corrupt           what is done when an image contradicts itself
    dirty             the dirty bit: refcounts that may wait
    switch            the write that makes other tables hold, and what becomes of it where it fails

Clusters of the file
    refcount          how often each is in use
    refgrow           new refcount blocks and a larger refcount table
    alloc             which ones are taken next
    free, let_go      those that nobody needs any more; those that must not be taken again yet

The guest's requests
    driver            the hooks
    cluster           from a guest offset to a host offset; L1 and L2 tables
    read, extents     reads; where bytes are, and all extents of a slice at once
    write             allocating writes: who waits for whom, copy on write, linking
    zero              zero clusters and discard
    subcluster        L2 entries with a bitmap: parts of clusters
    compressed, compressed_write, compressed_entry    clusters that are packed
    crypto            encrypted images
    datafile          guest data in a file of their own

The image as a whole
    create, measure   new images, and how large they would be
    options, reopen   runtime options: what they are, and others for an image that is in use
    truncate, shrink  longer and shorter disks
    make_empty        nothing is held any more
    amend             other options for an image that is there: refcount_order, downgrade
    check             whether the tables fit together:
        walk, runs, refmap    who refers to which cluster, counted
        copied, repair        the flags in the entries; what a repair writes

What else lies in the image
    snapshots         within the image, and a machine's state: create, goto, delete, read one
    snapshot_table, snapshot_check    the table that names them
    shared, ranges    refcounts and flags of what disk and snapshots share; where their tables are
    bitmaps, bitmap_directory, bitmap_store    dirty bitmaps: in use, found, written
"""
