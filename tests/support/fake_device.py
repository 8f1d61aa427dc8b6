# SPDX-License-Identifier: GPL-2.0-only
"""A file that passes for a disk of this machine, so that nobody needs root and a real one.

It stands in the two places where the driver `host_device` asks the kernel what it is, and tells it
what to do (block/protocols/file/device.py, R3). All else goes to the file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from block.protocols.file import device

NAMES = {device.BLKDISCARD: "discard", device.BLKZEROOUT: "zeroes"}


class FakeDisk:
    """What all files pass for while it stands there.

    asked      (what, offset, nbytes) of each discard and each request for zeroes, in order
    mode       the kind of file: a disk, or another device
    read_only  the disk was made read-only
    refuses    the errno of each discard and request for zeroes, 0: they are done
    """

    def __init__(self, sector: int = 512) -> None:
        self.sector = sector
        self.asked: list[tuple[str, int, int]] = []
        self.mode = stat.S_IFBLK
        self.read_only = False
        self.refuses = 0
        self._before = device.mode_of, device.ioctl

    def install(self) -> None:
        """Takes the kernel's place."""
        device.mode_of, device.ioctl = self._mode_of, self._ioctl

    def remove(self) -> None:
        """Puts it back."""
        device.mode_of, device.ioctl = self._before

    def _mode_of(self, fd: int) -> int:
        return self.mode

    def _ioctl(self, fd: int, request: int, argument: bytes) -> bytes:
        if request == device.BLKROGET:
            return device.INT.pack(self.read_only)
        if request == device.BLKSSZGET:
            return device.INT.pack(self.sector)
        offset, nbytes = device.RANGE.unpack(argument)
        self.asked.append((NAMES[request], offset, nbytes))
        if self.refuses:
            raise OSError(self.refuses, os.strerror(self.refuses))
        if (offset | nbytes) % self.sector:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        os.pwrite(fd, bytes(nbytes), offset)
        return argument


@contextmanager
def fake_disk(sector: int = 512) -> Iterator[FakeDisk]:
    """A disk in the kernel's place, for a while."""
    disk = FakeDisk(sector)
    disk.install()
    try:
        yield disk
    finally:
        disk.remove()
