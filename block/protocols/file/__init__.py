# SPDX-License-Identifier: GPL-2.0-only
"""The `file` protocol: images in files of this machine (block/file-posix.c).

driver.py      the BlockDriver: options, opening, the hooks
state.py       what one node keeps, and the table of I/O engines
threads.py     the engine aio=threads: each call to the kernel in the context's thread pool
near.py        a worker on the processor of its loop, for calls of a few microseconds
kernel.py      the engines aio=native and aio=io_uring
page_cache.py  lends what the page cache has of a file, instead of copying it
syscalls.py    preadv and pwritev until all is done, fallocate, ioctls
align.py       which alignment O_DIRECT wants
zero.py        discard and zero writes
host_device.py the driver for disks of this machine, where they differ from files
device.py      what the kernel says of such disks, and does with them
status.py      data and holes by SEEK_DATA and SEEK_HOLE
truncate.py    resizing, preallocation, creating a file
locks.py       the byte locks that keep two writers apart
perm.py        permissions become locks, and a new descriptor where one is needed; reopen
"""
