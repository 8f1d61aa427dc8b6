# SPDX-License-Identifier: GPL-2.0-only
"""qcow2 as it is made by default; as variants one whose data lie in a file of their own, which the
driver moves itself, and one that is encrypted."""

from __future__ import annotations

import os
from pathlib import Path

import block
from block.objects import secret

SIZE = 1 << 20
SECRET = "sample-qcow2"


def options(folder: Path, **how: object) -> dict[str, object]:
    """Returns nested options of a writable node over a new image in `folder`."""
    path = os.fspath(folder / "disk.qcow2")
    block.create(path, "qcow2", SIZE, **how)
    return {"driver": "qcow2", "file": {"driver": "file", "filename": path}}


def data_file(folder: Path) -> dict[str, object]:
    return options(folder, data_file=os.fspath(folder / "data.raw"))


def encrypted(folder: Path) -> dict[str, object]:
    if SECRET not in secret.secrets:
        secret.secret_create(SECRET, "open sesame")
    keys: dict[str, object] = {"encrypt.key-secret": SECRET}
    how = {"encrypt.format": "luks", "encrypt.iter-time": 0, **keys}
    return {**options(folder, **how), **keys}


def close() -> None:
    """The last node is closed: nobody needs the secret."""
    secret.secrets.pop(SECRET, None)


VARIANTS = {"data_file": data_file, "encrypted": encrypted}
