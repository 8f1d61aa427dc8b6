# SPDX-License-Identifier: GPL-2.0-only
"""file with each of its engines: what they register with the loop differs."""

from __future__ import annotations

from pathlib import Path

DIRECT = {"cache": {"direct": True}}  # aio=native takes nothing else


def options(folder: Path) -> dict[str, object]:
    image = folder / "disk.img"
    image.write_bytes(bytes(1 << 20))
    return {"driver": "file", "filename": str(image)}


def native(folder: Path) -> dict[str, object]:
    return {**options(folder), **DIRECT, "aio": "native"}


def io_uring(folder: Path) -> dict[str, object]:
    return {**options(folder), "aio": "io_uring"}


def require(variant: str, folder: Path) -> None:
    from tests.support import needs

    if variant:
        needs.engine(variant.removeprefix("aio="))
    if variant == "aio=native":
        needs.direct_io(folder)


VARIANTS = {"aio=native": native, "aio=io_uring": io_uring}
