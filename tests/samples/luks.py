# SPDX-License-Identifier: GPL-2.0-only
"""luks: a volume whose sectors have been written once, so that they read as zeroes.

It is made once for all tests and then copied: to hash takes its time.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

import block
from block.objects import secret

SIZE = 1 << 20
SECRET = "sample-luks"


@cache
def volume() -> bytes:
    """A whole file."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "disk.luks")
        how: dict[str, object] = {"key-secret": SECRET, "iter-time": 0}
        block.create(path, "luks", SIZE, **how)
        with block.open(path, format="luks", options={"key-secret": SECRET}) as disk:
            disk.pwrite(0, bytes(SIZE))
        return Path(path).read_bytes()


def options(folder: Path) -> dict[str, object]:
    """Returns nested options of a writable node over a new file in `folder`."""
    if SECRET not in secret.secrets:
        secret.secret_create(SECRET, "open sesame")
    path = folder / "disk.luks"
    path.write_bytes(volume())
    below = {"driver": "file", "filename": os.fspath(path)}
    return {"driver": "luks", "key-secret": SECRET, "file": below}


def close() -> None:
    """The last node is closed: nobody needs the secret."""
    secret.secrets.pop(SECRET, None)
