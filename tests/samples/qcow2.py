# SPDX-License-Identifier: GPL-2.0-only
"""qcow2 as it is made by default; as a variant one whose data lie in a file of their own, which the
driver moves itself."""

from __future__ import annotations

import os
from pathlib import Path

import block

SIZE = 1 << 20


def options(folder: Path, **how: object) -> dict[str, object]:
    """Returns nested options of a writable node over a new image in `folder`."""
    path = os.fspath(folder / "disk.qcow2")
    block.create(path, "qcow2", SIZE, **how)
    return {"driver": "qcow2", "file": {"driver": "file", "filename": path}}


def data_file(folder: Path) -> dict[str, object]:
    return options(folder, data_file=os.fspath(folder / "data.raw"))


VARIANTS = {"data_file": data_file}
