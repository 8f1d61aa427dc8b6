# SPDX-License-Identifier: GPL-2.0-only
"""The images that the fuzzers of formats begin with: small, and with all in them that a format
has. They are made, not kept: a driver that learns something new has it in its seeds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import block
from block.objects import secret
from block.ops import bitmap as ops
from tests.support import vmdk_images

SIZE = 1 << 20


def made(fmt: str, bitmaps: tuple[str, ...] = (), **options: Any) -> bytes:
    """An image with some data, some zeroes and some holes, and with bitmaps of these names."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "seed")
        block.create(path, fmt, SIZE, **options)
        with block.open(path, format=fmt, cache="unsafe", options={"discard": "unmap"}) as disk:
            for name in bitmaps:
                ops.add(disk.bs, name, 512, persistent=True)
            disk.pwrite(1000, b"a" * 3000)
            disk.pwrite(300_000, b"b" * 600)
            disk.pwrite_zeroes(4096, 8192)
            disk.pwrite_zeroes(300_000, 100)
        return Path(path).read_bytes()


def qcow2() -> dict[str, bytes]:
    """Small clusters, so that there are many tables; both versions; narrow and wide refcounts."""
    small = {"cluster_size": 512}
    return {
        "v3": made("qcow2", **small),
        "v2": made("qcow2", compat="0.10", **small),
        "4k": made("qcow2", cluster_size=4096),
        "bits-1": made("qcow2", refcount_bits=1, **small),
        "bits-64": made("qcow2", refcount_bits=64, **small),
        "lazy": made("qcow2", lazy_refcounts=True, **small),
        "bitmaps": made("qcow2", bitmaps=("one", "two"), **small),
        "extended": made("qcow2", extended_l2=True, cluster_size=16384),
    }


def qed() -> dict[str, bytes]:
    """The smallest tables."""
    whole = made("qed", cluster_size=4096, table_size=1)
    dirty = bytearray(whole)
    dirty[16] |= 2  # NEED_CHECK
    return {"clean": whole, "needs-check": bytes(dirty)}


def vmdk() -> dict[str, bytes]:
    """Each kind that is one file."""
    return {
        "sparse": made("vmdk"),
        "zeroed": made("vmdk", zeroed_grain=True),
        "stream": vmdk_images.exported({0: b"a" * 65536, 3: b"b" * 65536}, SIZE),
        "esx": vmdk_images.cowd(2048, grain=8, text=vmdk_images.descriptor("vmfsSparse")),
        "text": vmdk_images.descriptor("monolithicFlat", 'RW 2048 FLAT "flat" 0').encode(),
    }


def luks() -> dict[str, bytes]:
    """A short key, so that its slots are small."""
    cipher = {"cipher-alg": "aes-128", "cipher-mode": "cbc", "ivgen-alg": "plain64"}
    with a_secret("seed"), tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "seed")
        options = {"key-secret": "seed", "iter-time": 0, **cipher}
        block.create(path, "luks", 16384, **options)
        with block.open(path, format="luks", options={"key-secret": "seed"}) as disk:
            disk.pwrite(1000, b"a" * 3000)
        return {"one-slot": Path(path).read_bytes()}


@contextmanager
def a_secret(name: str) -> Iterator[None]:
    """There is a password of this name, for as long as somebody needs one."""
    made = secret.secret_create(name, "open sesame")
    try:
        yield
    finally:
        made.unref()


FORMATS: dict[str, Callable[[], dict[str, bytes]]] = {
    "qcow2": qcow2,
    "qed": qed,
    "vmdk": vmdk,
    "luks": luks,
}


def images(fmt: str) -> dict[str, bytes]:
    """The seeds of a format: name -> image."""
    return FORMATS[fmt]()
