# SPDX-License-Identifier: GPL-2.0-only
"""The part of `ctypes` that KVM's structures need, at a fifth of its price.

`ctypes` is a Python module around `_ctypes`, which does the work: importing it makes a class for
each type of C in both byte orders, and loads the interpreter itself as a library, in 4 ms. Here
are the seven types that <linux/kvm.h> uses, made as `ctypes` makes them. For mypy they are its own.
"""

from __future__ import annotations

__all__ = [
    "Structure",
    "Union",
    "addressof",
    "c_char",
    "c_int32",
    "c_int64",
    "c_uint8",
    "c_uint16",
    "c_uint32",
    "c_uint64",
    "ioctl_unsigned",
    "sizeof",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import (
        Structure,
        Union,
        addressof,
        c_char,
        c_int32,
        c_int64,
        c_uint8,
        c_uint16,
        c_uint32,
        c_uint64,
        sizeof,
    )
else:
    from _ctypes import Structure, Union, _SimpleCData, addressof, sizeof

    class c_char(_SimpleCData):
        _type_ = "c"

    class c_uint8(_SimpleCData):
        _type_ = "B"

    class c_uint16(_SimpleCData):
        _type_ = "H"

    class c_int32(_SimpleCData):
        _type_ = "i"

    class c_uint32(_SimpleCData):
        _type_ = "I"

    class c_int64(_SimpleCData):
        _type_ = "l"

    class c_uint64(_SimpleCData):
        _type_ = "L"


def ioctl_unsigned(fd: int, request: int, argument: int) -> int:
    """libc's ioctl(2) with an unsigned long, which `fcntl.ioctl` cannot pass. 0, or an errno."""
    from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, dlopen, dlsym, get_errno

    class Ioctl(CFuncPtr):
        _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
        _restype_ = c_int32

    itself = dlopen(None, 0)  # type: ignore[arg-type]  # as dlopen(3): the program
    ioctl = Ioctl(dlsym(itself, "ioctl"))
    return get_errno() if ioctl(c_int32(fd), c_uint64(request), c_uint64(argument)) < 0 else 0
