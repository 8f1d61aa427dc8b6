# SPDX-License-Identifier: GPL-2.0-only
"""Which drivers there are: one static table, read without importing any of them.

R1  A row says what is needed to choose a driver: its name, the prefix of its URLs, its magic, or
    a function where a format begins with a text. The driver's module, and the library that
    it needs, is imported when its row wins.
R2  Probing goes by score: the row with the highest one wins, of equals the first in the table.
    `raw` matches everything with score 1.
R3  A row without a module is a format that QEMU has and this version has not. It stands here
    because an image with its magic must not be taken for a raw one.
R4  A driver is one stateless object for the whole process (BlockDriver), made on first use.

Called in the main thread while trees are opened. What went wrong once: probing calls a raw image
whatever a guest wrote into its first sector (CVE-2008-2004), so a guess of 'raw' restricts
writes to that sector (block/formats/raw.py). Source: block.c (bdrv_find_format,
bdrv_find_protocol, bdrv_probe_all).
"""

from __future__ import annotations

import errno
import os
import stat

from block.core.error import BlockError
from block.core.filename import path_has_protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.core.driver import BlockDriver

PROBE_BUF_SIZE = 512
"""How many bytes of an image probing looks at (BLOCK_PROBE_BUF_SIZE)."""

Magic = tuple[int, bytes, int]
"""Offset, bytes that stand there, score when they do."""


class Row:
    """One line of the table.

    `protocol` is the URL prefix without its colon; a row with one is a protocol driver, the
    others are formats and filters. `is_text` knows an image by its first bytes where no magic
    does. `needs` is the command that installs what the driver imports.
    """

    __slots__ = ("class_name", "driver", "is_text", "magic", "module", "name", "needs", "protocol")

    def __init__(
        self,
        name: str,
        module: str = "",
        class_name: str = "",
        *,
        protocol: str = "",
        magic: tuple[Magic, ...] = (),
        is_text: Callable[[bytes], bool] | None = None,
        needs: str = "",
    ) -> None:
        self.name = name
        self.module = module
        self.class_name = class_name
        self.protocol = protocol
        self.magic = magic
        self.is_text = is_text
        self.needs = needs
        self.driver: BlockDriver | None = None

    def score(self, head: bytes) -> int:
        """How sure this row is that an image which begins with `head` is its own, 0 to 100."""
        if self.is_text is not None and self.is_text(head):
            return 100
        return max(
            (
                score
                for offset, expected, score in self.magic
                if head[offset : offset + len(expected)] == expected
            ),
            default=0,
        )

    def load(self) -> BlockDriver:
        """Imports the driver and makes its one object.

        Raises BlockError(ENOENT) where this version has no such driver, or a library that
        it needs is missing.
        """
        if self.driver is None:
            self.driver = self._import()
        return self.driver

    def _import(self) -> BlockDriver:
        if not self.module:
            raise BlockError(
                errno.ENOENT, f"Driver '{self.name}' is not available in this version of miniqemu"
            )
        try:
            module = __import__(self.module, fromlist=[self.class_name])
        except ModuleNotFoundError as error:
            if not self.needs or (error.name or "").split(".")[0] == "block":
                raise
            raise BlockError(
                errno.ENOENT,
                f"Driver '{self.name}' needs the Python module '{error.name}': {self.needs}",
            ) from None
        driver: BlockDriver = getattr(module, self.class_name)()
        return driver


def _is_vmdk_descriptor(head: bytes) -> bool:
    """Whether there are comments and blank lines, and then a version (vmdk_probe)."""
    for line in head.split(b"\n")[:-1]:  # behind the last newline there is no whole line
        if line.startswith(b"#") or (line.startswith(b" ") and line.lstrip(b" ") in (b"", b"\r")):
            continue
        return line.removesuffix(b"\r") in (b"version=1", b"version=2", b"version=3")
    return False


QCOW_MAGIC = b"QFI\xfb"

TABLE: list[Row] = [
    Row("raw", "block.formats.raw", "RawDriver", magic=((0, b"", 1),)),
    Row("file", "block.protocols.file.driver", "FileDriver", protocol="file"),
    Row(
        "host_device",
        "block.protocols.file.host_device",
        "HostDeviceDriver",
        protocol="host_device",
    ),
    Row("null-co", "block.protocols.null", "NullCoDriver", protocol="null-co"),
    Row("null-aio", "block.protocols.null", "NullAioDriver", protocol="null-aio"),
    Row("copy-on-read", "block.filters.copy_on_read", "CopyOnReadDriver"),
    Row("delay", "block.filters.delay", "DelayDriver"),
    Row("preallocate", "block.filters.preallocate", "PreallocateDriver"),
    Row("trace", "block.filters.trace", "TraceDriver"),
    Row("blkverify", "block.filters.blkverify", "BlkverifyDriver", protocol="blkverify"),
    Row("blkdebug", "block.filters.blkdebug.driver", "BlkdebugDriver", protocol="blkdebug"),
    Row("blklogwrites", "block.filters.blklogwrites.driver", "BlklogwritesDriver"),
    Row("quorum", "block.filters.quorum.driver", "QuorumDriver"),
    Row("qcow", magic=((0, QCOW_MAGIC + b"\0\0\0\1", 100),)),
    Row("qcow2", "block.formats.qcow2.driver", "Qcow2Driver", magic=((0, QCOW_MAGIC, 100),)),
    Row("qed", "block.formats.qed.driver", "QedDriver", magic=((0, b"QED\0", 100),)),
    Row(
        "vmdk",
        "block.formats.vmdk.driver",
        "VmdkDriver",
        magic=((0, b"KDMV", 100), (0, b"COWD", 100)),
        is_text=_is_vmdk_descriptor,
    ),
    Row("vdi", magic=((0x40, b"\x7f\x10\xda\xbe", 100),)),
    Row("vhdx", magic=((0, b"vhdxfile", 100),)),
    Row("vpc", magic=((0, b"conectix", 100),)),
    Row("parallels", magic=((0, b"WithoutFreeSpace", 100), (0, b"WithouFreSpacExt", 100))),
    Row("bochs", magic=((0, b"Bochs Virtual HD Image", 100),)),
    Row("cloop", magic=((0, b"#!/bin/sh\n#V2.0 Format\n", 2),)),
    Row("luks", "block.formats.luks.driver", "LuksDriver", magic=((0, b"LUKS\xba\xbe\0\1", 100),)),
    Row("throttle", "block.filters.throttle", "ThrottleDriver"),
]


def add_row(row: Row) -> None:
    """Puts a driver of one's own into the table: a plug-in's, or a test's."""
    assert find_row(row.name) is None, f"driver {row.name} twice"
    TABLE.append(row)


def remove_row(row: Row) -> None:
    """Takes out what `add_row` put in."""
    TABLE.remove(row)


def find_row(name: str) -> Row | None:
    """The row of a driver by its name, 'qcow2' or 'file', without loading it."""
    return next((row for row in TABLE if row.name == name), None)


def find_format(name: str) -> BlockDriver:
    """The driver called `name`, format or protocol (bdrv_find_format).

    Raises BlockError(ENOENT): "Unknown driver 'x'".
    """
    row = find_row(name)
    if row is None:
        raise BlockError(errno.ENOENT, f"Unknown driver '{name}'")
    return row.load()


def find_protocol(filename: str, allow_prefix: bool = True) -> BlockDriver:
    """The protocol driver that opens a name: by 'prefix:', else `file` (bdrv_find_protocol).

    `allow_prefix=False` takes 'a:b' as a plain path. Raises BlockError(EINVAL):
    "Unknown protocol 'x'". A name that belongs to a device of this machine is that device.
    """
    if is_host_device(filename):
        return find_format("host_device")
    if not allow_prefix or not path_has_protocol(filename):
        return find_format("file")
    prefix = filename.partition(":")[0]
    for row in TABLE:
        if row.protocol == prefix:
            return row.load()
    raise BlockError(errno.EINVAL, f"Unknown protocol '{prefix}'")


def is_host_device(filename: str) -> bool:
    """True when the path is a block or character device of this machine (hdev_probe_device)."""
    try:
        mode = os.stat(filename).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISBLK(mode) or stat.S_ISCHR(mode)


def probe_all(head: bytes) -> str:
    """The name of the format that the first bytes of an image look like (bdrv_probe_all)."""
    scores = [(row.score(head), row.name) for row in TABLE]
    best = max(score for score, _ in scores)
    return next(name for score, name in scores if score == best)


def format_names() -> list[str]:
    """The names of all drivers that this version has, sorted."""
    return sorted(row.name for row in TABLE if row.module or row.driver is not None)
