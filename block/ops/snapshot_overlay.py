# SPDX-License-Identifier: GPL-2.0-only
"""An image whose changes are thrown away: snapshot=on (bdrv_append_temp_snapshot).

    BlockBackend -> qcow2, in a file without a name -> the image, read-only

Nobody sees the overlay again, so the host need not make it durable (BDRV_O_NO_FLUSH).

R1  The image itself is opened for reading only, and stays as it is.
R2  The overlay's file has lost its name before anybody writes to it: when the process ends,
    however it does, the file is gone.
R3  Whoever may only read the image may only read the overlay; it discards where the image would.
R4  It lies in TMPDIR, else in /var/tmp, as QEMU's: /tmp is often memory.
Called in the main thread. Source: block.c.
"""

from __future__ import annotations

import os

from block.core import flags as f
from block.core.error import failed
from block.core.open import bdrv_open, open_backend
from block.core.options import flatten, parse_bool
from block.core.registry import find_format

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from block.core.backend import BlockBackend

FORMAT = "qcow2"
# What was asked for of the image, and is the overlay's matter.
ABOVE = f.BDRV_O_RDWR | f.BDRV_O_COPY_ON_READ | f.BDRV_O_UNMAP


def open_with_overlay(
    filename: str | None,
    options: Mapping[str, object],
    flags: int,
    writethrough: bool = False,
    name: str = "",
) -> BlockBackend:
    """Opens an image as open_backend does, below an overlay that takes all writes.

    Raises BlockError: as open_backend, or where the overlay cannot be made.
    """
    settings = flatten(options)
    read_only = parse_bool("read-only", settings.get("read-only", not flags & f.BDRV_O_RDWR))
    settings["read-only"] = True  # R1
    below = flags & ~(f.BDRV_O_SNAPSHOT | f.BDRV_O_RDWR | f.BDRV_O_COPY_ON_READ)
    image = bdrv_open(filename, options=settings, flags=below)
    try:
        path = _new_file()
        try:
            find_format(FORMAT).create(path, {"size": image.getlength()})
            description = {"driver": FORMAT, "file.driver": "file", "file.filename": path,
                           "backing": image.node_name, "read-only": read_only}  # fmt: skip
            if "discard" in settings:
                description["discard"] = settings["discard"]
            return open_backend(
                options=description,
                flags=flags & ABOVE | f.BDRV_O_NO_FLUSH,
                name=name,
                writethrough=writethrough,
            )
        finally:
            os.unlink(path)
    finally:
        image.unref()


def _new_file() -> str:
    """Makes a new file that nobody else can read; its path (create_tmp_file). Raises BlockError."""
    folder = os.environ.get("TMPDIR") or "/var/tmp"
    while True:
        path = f"{folder}/vl.{os.urandom(6).hex()}"
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            continue
        except OSError as error:
            raise failed(f"Could not open temporary file '{path}'", error) from None
        return path
