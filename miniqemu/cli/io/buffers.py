# SPDX-License-Identifier: GPL-2.0-only
"""The memory of requests: made, filled, compared, printed (qemu_io_alloc, create_iovec).

R1  A buffer begins at a page, as O_DIRECT wants it; with -m 16 bytes behind one, so that the
    block layer has to help.

Source: qemu-io-cmds.c.
"""

from __future__ import annotations

from block.core import flags as f

from .numbers import cvtnum
from .session import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from block.core.iov import Iov

    from .session import Session

READ_FILL = 0xAB  # what a read has not touched
WRITE_FILL = 0xCD  # what is written without a pattern
MISALIGN_OFFSET = 16
DUMP_WIDTH = 16
CHUNK = 1 << 20


def allocate(session: Session, nbytes: int, pattern: int) -> memoryview:
    """A buffer full of one byte (qemu_io_alloc)."""
    import mmap  # here, because not every command has a buffer

    skip = MISALIGN_OFFSET if session.misalign else 0
    view = memoryview(mmap.mmap(-1, nbytes + skip or 1))[skip : skip + nbytes]
    if pattern:
        fill(view, bytes([pattern]) * min(CHUNK, nbytes))
    return view


def fill(view: memoryview, content: bytes) -> None:
    """Repeats a content until the buffer is full."""
    for at in range(0, len(view), len(content) or 1):
        part = min(len(content), len(view) - at)
        view[at : at + part] = content[:part]


def allocate_from_file(session: Session, nbytes: int, name: str) -> memoryview:
    """A buffer filled from a file, over and over (qemu_io_alloc_from_file). Raises Failed."""
    try:
        with open(name, "rb") as file:
            content = file.read(nbytes)
    except OSError as error:
        session.complain(f"{name}: {error.strerror}")
        raise Failed from None
    if not content:
        session.complain(f"{name}: file is empty")
        raise Failed
    view = allocate(session, nbytes, 0)
    fill(view, content)
    return view


def create_iovec(session: Session, words: list[str], pattern: int) -> tuple[memoryview, Iov]:
    """A buffer, and the vector of parts with the lengths that words give. Raises Failed."""
    most = f.REQUEST_MAX_BYTES
    sizes: list[int] = []
    for word in words:
        size = cvtnum(word)
        if size > most:
            raise Failed(f"Argument '{word}' exceeds maximum size {most}")
        if sum(sizes) > most - size:
            raise Failed(f"The total number of bytes exceed the maximum size {most}")
        sizes.append(size)
    buffer = allocate(session, sum(sizes), pattern)
    vector = []
    at = 0
    for size in sizes:
        vector.append(buffer[at : at + size])
        at += size
    return buffer, vector


def verify(session: Session, view: memoryview, pattern: int, offset: int) -> bool:
    """Whether all bytes are the pattern; if not, says so. `offset` is the view's in the image."""
    expected = memoryview(bytes([pattern]) * min(CHUNK, len(view)))
    for at in range(0, len(view), CHUNK):
        part = bytes(view[at : at + CHUNK])
        if part != expected[: len(part)]:
            session.say(f"Pattern verification failed at offset {offset}, {len(view)} bytes")
            return False
    return True


def dump(view: memoryview, offset: int) -> Iterator[str]:
    """The lines of a hex dump (dump_buffer)."""
    for at in range(0, len(view), DUMP_WIDTH):
        row = bytes(view[at : at + DUMP_WIDTH])
        numbers = "".join(f"{byte:02x} " for byte in row)
        letters = "".join(chr(b) if b < 128 and chr(b).isalnum() else "." for b in row)
        yield f"{offset + at:08x}:  {numbers} {letters}"
