# SPDX-License-Identifier: GPL-2.0-only
"""copy-on-read over an empty overlay over a base full of zeroes: every first read copies."""

from __future__ import annotations

from pathlib import Path

import block

READ_ONLY = False  # it writes when it is read
SIZE = 1 << 20


def options(folder: Path) -> dict[str, object]:
    (folder / "base.raw").write_bytes(bytes(SIZE))
    top = str(folder / "top.qcow2")
    block.create(top, "qcow2", SIZE, backing_file="base.raw", backing_fmt="raw", cluster_size=4096)
    overlay = {"driver": "qcow2", "file": {"driver": "file", "filename": top}}
    return {"driver": "copy-on-read", "file": overlay}
