# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's block layer, in Python, usable without a virtual machine.

    import block

    with block.open("disk.img", format="raw") as disk:
        disk.pwrite(0, b"hello")
        disk.flush()
        print(disk.pread(0, 5))

R1  `import block` costs next to nothing: what it offers is imported at the first use.

Open and close in the main thread; afterwards an image belongs to the thread of its context.
asyncio programs use `block.asyncio_open` (block/for_asyncio.py).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.context import AioContext
    from block.aio.iothread import IOThread
    from block.core.drain import drain_all
    from block.core.error import BlockError
    from block.for_asyncio import asyncio_open
    from block.image import close_all, create, main_context, open

EXPORTS = {
    "AioContext": "block.aio.context",
    "BlockError": "block.core.error",
    "IOThread": "block.aio.iothread",
    "asyncio_open": "block.for_asyncio",
    "close_all": "block.image",
    "create": "block.image",
    "drain_all": "block.core.drain",
    "main_context": "block.image",
    "open": "block.image",
}
"""Name -> the module that it comes from."""

__all__ = [
    "AioContext",
    "BlockError",
    "IOThread",
    "asyncio_open",
    "close_all",
    "create",
    "drain_all",
    "main_context",
    "open",
]


def __getattr__(name: str) -> object:
    if name not in EXPORTS:
        raise AttributeError(f"module 'block' has no attribute {name!r}")
    value = getattr(__import__(EXPORTS[name], fromlist=[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *EXPORTS])
