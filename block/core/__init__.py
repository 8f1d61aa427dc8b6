# SPDX-License-Identifier: GPL-2.0-only
"""The tree: nodes, the edges between them, and requests on their way through.

The tree
    node, edge, graph       a node, what a parent holds of a child, all nodes by name
    permissions             who may do what with a node
    backend, backend_io, backend_limits, accounting    what a device holds, its requests, its
                            limits, its figures
    replace, change, backing    another node, another child, another name of a backing file
    frozen                  edges that must stay as they are
    context, drain, wait    moving to another loop; standing still; waiting in a node's loop

Opening
    registry, probe         which drivers there are; whose image this is
    open, open_node         a whole tree, and one node of it
    filename, keyval, options, inherit, cache    names and options, from text to values
    members                 what -blockdev cannot do without
    reopen                  other options for a tree that is open
    new_files               files of an image that is being made

Drivers
    driver, request_hooks   the hooks
    limits, flags, error    what a node takes, QEMU's numbers, the one exception
    filter                  what all plain filters share
    record                  headers by name
    compress, packed, zstd_library    packing; clusters that are packed; the library for zstd

Requests
    io, align, serialise    reads and writes; those that do not fit; who waits for whom
    aiocb, iov              a device's request on its way; lists of memory
    zero, discard, flush, truncate, copy_range, copy_on_read, vmstate    the other kinds
    status                  where bytes are
    debug, verify, event, report    what a layer announces; two copies that differ; who is told

The image as a whole
    check, snapshot, make_empty
    dirty_bitmap, hbitmap   what was written since
"""
