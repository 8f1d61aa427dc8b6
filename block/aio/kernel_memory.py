# SPDX-License-Identifier: GPL-2.0-only
"""Where a request's memory is: addresses for the kernel, and what keeps them valid.

R1  The objects that these functions return keep the memory alive, and nothing else does: they live
    as long as the request is in flight.
R2  Memory that Python lends for reading only (bytes) has no address to be had; it is copied for a
    write. A read into it is a mistake: TypeError.
"""

from __future__ import annotations

import ctypes

addressof = ctypes.addressof
_lent = ctypes.c_char.from_buffer


def memory_of(view: memoryview, write: bool) -> ctypes.c_char:
    """Returns an object that begins where the view does; it is not empty."""
    try:
        return _lent(view)
    except TypeError:
        if not write:
            raise
        return _lent(bytearray(view))


def iovec(
    qiov: list[memoryview], write: bool
) -> tuple[ctypes.Array[ctypes.c_ulong], list[ctypes.c_char]]:
    """Returns an array of struct iovec, two words each, and what keeps its memory alive."""
    words: list[int] = []
    memory = []
    for view in qiov:
        if len(view):
            part = memory_of(view, write)
            memory.append(part)
            words += (addressof(part), len(view))
    return (ctypes.c_ulong * len(words))(*words), memory
