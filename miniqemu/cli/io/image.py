# SPDX-License-Identifier: GPL-2.0-only
"""Commands about the image as a whole: flush truncate length info map alloc."""

from __future__ import annotations

import os

from block.core import flags as f
from block.core.error import errno_of
from block.core.status import co_is_allocated
from block.core.wait import run_sync

from .numbers import cvtnum, cvtstr
from .session import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .session import Session


def do_flush(session: Session, argv: list[str]) -> None:
    """Makes all that was written durable; one that fails says nothing, as QEMU's."""
    try:
        session.disk.flush()
    except OSError:
        raise Failed from None


def do_truncate(session: Session, argv: list[str]) -> None:
    """Changes the length."""
    given = session.options(
        argv, {"m": lambda text: _prealloc_mode(session, text)}, operands=(1, 3)
    )
    length = cvtnum(given.words[0])
    session.disk.truncate(length, exact=False, prealloc=str(given.get("m", "off")))


def _prealloc_mode(session: Session, text: str) -> str:
    if text not in f.PREALLOC_MODES:
        raise session.refused(f"Invalid preallocation mode '{text}'")
    return text


def do_length(session: Session, argv: list[str]) -> None:
    """Prints the length."""
    try:
        session.say(cvtstr(session.disk.length))
    except OSError as error:
        raise Failed(f"getlength: {os.strerror(errno_of(error))}") from None


def do_info(session: Session, argv: list[str]) -> None:
    """Prints the format, and what it knows of itself."""
    bs = session.disk.bs
    assert bs is not None, "an open disk has a tree"
    assert bs.drv is not None, "and a driver"
    for name in (bs.drv.format_name, bs.drv.protocol_name):
        if name:
            session.say(f"format name: {name}")
    info = bs.get_info()
    if info is None:
        raise Failed
    session.say(f"cluster size: {cvtstr(info.cluster_size)}")
    session.say(f"vm state offset: {cvtstr(info.vm_state_offset)}")
    specific = bs.drv.get_specific_info(bs)
    if specific is not None:
        from miniqemu.cli.img.info import dump

        session.say("Format specific information:\n" + "".join(dump(specific["data"], 1))[:-1])


def do_alloc(session: Session, argv: list[str]) -> None:
    """Counts the bytes of a range that this image holds itself, without its backing file."""
    start = cvtnum(argv[1])
    count = cvtnum(argv[2]) if len(argv) == 3 else f.SECTOR_SIZE
    total = offset = 0
    while offset < count:
        try:
            allocated, nbytes = _allocation(session, start + offset, count - offset)
        except OSError as error:
            raise Failed(f"is_allocated failed: {os.strerror(errno_of(error))}") from None
        offset += nbytes
        total += nbytes if allocated else 0
        if not nbytes:
            break
    session.say(f"{total}/{offset} bytes allocated at offset {cvtstr(start)}")


def do_map(session: Session, argv: list[str]) -> None:
    """Prints where the image holds something itself, and where it does not."""
    offset, length = 0, session.disk.length
    while offset < length:
        try:
            allocated, nbytes = _extent(session, offset, length - offset)
        except OSError as error:
            reason = os.strerror(errno_of(error))
            raise session.refused(f"Failed to get allocation status: {reason}") from None
        if not nbytes:
            raise session.refused("Unexpected end of image")
        what = "    allocated" if allocated else "not allocated"
        size, place = cvtstr(nbytes), cvtstr(offset)
        session.say(f"{size} ({nbytes:#x}) bytes {what} at offset {place} ({offset:#x})")
        offset += nbytes


def _extent(session: Session, offset: int, length: int) -> tuple[bool, int]:
    """The whole extent that begins at an offset (map_is_allocated)."""
    first, total = _allocation(session, offset, length)
    while total < length:
        allocated, nbytes = _allocation(session, offset + total, length - total)
        if allocated != first or not nbytes:
            break
        total += nbytes
    return first, total


def _allocation(session: Session, offset: int, nbytes: int) -> tuple[bool, int]:
    """(is it held here, for how many bytes); 0 bytes at the end. Raises BlockError."""
    bs = session.disk.bs
    assert bs is not None, "an open disk has a tree"
    nbytes = min(nbytes, f.INT64_MAX - offset)
    return run_sync(bs.aio_context, lambda: co_is_allocated(bs, offset, nbytes))
