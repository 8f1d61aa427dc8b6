# SPDX-License-Identifier: GPL-2.0-only
"""Damaged qcow2 images: a small whole one, and many ways to hurt it.

The whole one has ten guest clusters of data, every second one of the first twenty:

    file cluster   0        1              2               3         4         5 ... 14
                   header   refcount table refcount block  L1 table  L2 table  data
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import block
from block.core import check
from block.core import flags as f
from block.core.open import open_backend

CLUSTER = 65536
SIZE = 8 << 20
REFTABLE, REFBLOCK, L1, L2, DATA = (number * CLUSTER for number in range(1, 6))
GUEST = range(0, 20, 2)
COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1


def make_whole(path: Path) -> bytes:
    """Makes the image without any fault; returns what the guest sees."""
    block.create(os.fspath(path), "qcow2", SIZE)
    seen = bytearray(SIZE)
    with block.open(os.fspath(path), format="qcow2", cache="unsafe") as disk:
        for index in GUEST:
            data = bytes([index + 1]) * CLUSTER
            disk.pwrite(index * CLUSTER, data)
            seen[index * CLUSTER : (index + 1) * CLUSTER] = data
    return bytes(seen)


class Image:
    """The bytes of an image file, to be hurt."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = bytearray(path.read_bytes())

    def put(self, offset: int, value: int) -> None:
        struct.pack_into(">Q", self.data, offset, value)

    def get(self, offset: int) -> int:
        (value,) = struct.unpack_from(">Q", self.data, offset)
        return int(value)

    def refcount(self, cluster: int, value: int) -> None:
        struct.pack_into(">H", self.data, REFBLOCK + 2 * cluster, value)

    def entry(self, guest_cluster: int, value: int) -> None:
        self.put(L2 + 8 * guest_cluster, value)

    def save(self) -> None:
        self.path.write_bytes(self.data)


class Damage(NamedTuple):
    """What is done to the image, and what a check must find: (corruptions, leaks, check errors)."""

    hurt: Callable[[Image], object]
    found: tuple[int, int, int]
    mended: bool = True  # a repair of all leaves nothing to be found
    same_data: bool = True  # the guest sees afterwards what it saw before the damage


DAMAGES = {
    "nothing": Damage(lambda i: None, (0, 0, 0)),
    "an entry is gone": Damage(lambda i: i.entry(18, 0), (0, 1, 0), same_data=False),
    "a refcount is too high": Damage(lambda i: i.refcount(7, 3), (1, 1, 0)),
    "a refcount is 0": Damage(lambda i: i.refcount(6, 0), (2, 0, 0)),
    "all refcounts of data are 0": Damage(
        lambda i: [i.refcount(n, 0) for n in range(5, 15)], (20, 0, 0)
    ),
    "two entries for one cluster": Damage(
        lambda i: i.entry(2, DATA | COPIED), (1, 1, 0), same_data=False
    ),
    "COPIED is missing": Damage(lambda i: i.entry(4, DATA + 2 * CLUSTER), (1, 0, 0)),
    "COPIED is missing in L1": Damage(lambda i: i.put(L1, L2), (1, 0, 0)),
    "COPIED on a shared cluster": Damage(
        lambda i: (i.entry(1, DATA | COPIED), i.refcount(5, 2)), (2, 0, 0),
        same_data=False,
    ),
    "an entry beyond the end": Damage(
        lambda i: i.entry(0, 99 * CLUSTER | COPIED), (2, 1, 0), mended=False, same_data=False
    ),
    "an entry at an odd place": Damage(
        lambda i: i.entry(0, (DATA + 512) | COPIED), (2, 0, 0), mended=False, same_data=False
    ),
    "a zero cluster at an odd place": Damage(
        lambda i: i.entry(1, (DATA + 512) | ZERO), (4, 0, 0)
    ),
    "reserved bits in L2": Damage(
        lambda i: i.entry(0, DATA | COPIED | 1 << 57), (1, 0, 0), mended=False
    ),
    "reserved bits in L1": Damage(
        lambda i: i.put(L1, L2 | COPIED | 1 << 57), (1, 0, 0), mended=False
    ),
    "an L2 table beyond the end": Damage(
        lambda i: i.put(L1, 99 * CLUSTER | COPIED), (2, 11, 0), mended=False, same_data=False
    ),
    "a compressed cluster with COPIED": Damage(
        lambda i: i.entry(0, DATA | COPIED | COMPRESSED), (1, 0, 0), mended=False, same_data=False
    ),
    "no refcount block": Damage(lambda i: i.put(REFTABLE, 0), (25, 0, 0)),
    "no refcount table": Damage(lambda i: i.put(56, 0), (24, 0, 0)),
    "reserved bits in the refcount table": Damage(
        lambda i: i.put(REFTABLE, REFBLOCK | 2), (1, 1, 0)
    ),
    "a refcount block at an odd place": Damage(
        lambda i: i.put(REFTABLE, REFBLOCK + 512), (1, 0, 15)
    ),
    "a refcount block beyond the end": Damage(lambda i: i.put(REFTABLE, 50 * CLUSTER), (26, 0, 0)),
    "a refcount block in a data cluster": Damage(lambda i: i.put(REFTABLE, DATA), (12, 15, 0)),
    "a refcount block twice": Damage(lambda i: i.put(REFTABLE + 8, REFBLOCK), (2, 0, 0)),
    "marked dirty": Damage(lambda i: i.put(72, 1), (0, 0, 0)),
    "marked corrupt": Damage(lambda i: i.put(72, 2), (0, 0, 0)),
    "marked dirty, and refcounts are old": Damage(
        lambda i: [i.put(72, 1), *(i.refcount(n, 0) for n in range(8, 15))], (14, 0, 0)
    ),
}  # fmt: skip


def make_damaged(path: Path, name: str) -> bytes:
    """Makes an image with one of the DAMAGES; returns what the guest saw before."""
    seen = make_whole(path)
    image = Image(path)
    DAMAGES[name].hurt(image)
    image.save()
    return seen


def run_check(path: Path, fix: int = 0) -> tuple[check.BdrvCheckResult, list[str]]:
    """Opens an image to check it, as `check` does; returns the result and the lines said."""
    lines: list[str] = []
    flags = f.BDRV_O_CHECK | (f.BDRV_O_RDWR | f.BDRV_O_RESIZE if fix else 0)
    with open_backend(os.fspath(path), options={"driver": "qcow2"}, flags=flags) as disk:
        assert disk.bs is not None
        return check.check(disk.bs, fix, lines.append), lines


def counts(result: check.BdrvCheckResult) -> tuple[int, int, int]:
    """(corruptions, leaks, check errors)."""
    return result.corruptions, result.leaks, result.check_errors
