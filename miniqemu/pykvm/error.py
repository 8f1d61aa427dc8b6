# SPDX-License-Identifier: GPL-2.0-only
"""How an ioctl on KVM is made and how it fails: with the name of the ioctl in the message."""

from __future__ import annotations

import os
from fcntl import ioctl

from miniqemu.pykvm import ioctls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import Structure


class KvmError(OSError):
    """An ioctl failed: `name` says which one, `errno` how."""

    def __init__(self, name: str, number: int, detail: str = "") -> None:
        super().__init__(number, f"{name}: {detail or os.strerror(number)}")
        self.name = name

    def __str__(self) -> str:
        return str(self.strerror)


def kvm_ioctl(fd: int, name: str, argument: int | bytearray | Structure = 0) -> int:
    """One ioctl by its name. A buffer is read and written in place; an integer must fit a
    C int (Python's ioctl has no unsigned long; KVM_SET_TSS_ADDR finds its own way).

    Raises InterruptedError for EINTR as it is, and KvmError for the rest.
    """
    try:
        return ioctl(fd, ioctls.IOCTL_NAMES[name], argument)
    except InterruptedError:
        raise
    except OSError as error:
        raise KvmError(name, error.errno or 0) from None
