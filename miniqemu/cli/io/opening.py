# SPDX-License-Identifier: GPL-2.0-only
"""Commands that open and close the image, and change how it is open: open close reopen."""

from __future__ import annotations

from block.core import flags as f
from block.core import reopen
from block.core.cache import parse_aio, parse_cache_mode, parse_discard
from block.core.error import BlockError
from block.core.open import open_backend
from block.core.options import invalid
from block.lean import partial
from miniqemu.cli.image_opts import parse_image_opts

from .session import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from block.core.backend import BlockBackend

    from .session import Session

    T = TypeVar("T")

FORCE_SHARE = "force-share"
WRITES = f.BLK_PERM_WRITE | f.BLK_PERM_WRITE_UNCHANGED


class Mode:
    """How an image is to be opened: what -s -n -C -r -k -t -d -i -U say."""

    def __init__(self) -> None:
        self.flags = f.BDRV_O_UNMAP
        self.writethrough = True
        self.read_only = False
        self.force_share = False

    def take(self, session: Session, letter: str, value: str) -> None:
        """Takes one option. Raises Failed."""
        if letter in FLAGS:
            self.flags |= FLAGS[letter]
            self.writethrough = self.writethrough and letter != "n"
        elif letter == "r":
            self.read_only = True
        elif letter == "U":
            self.force_share = True
        elif letter == "t":
            flags, self.writethrough = _parse(session, "cache", parse_cache_mode, value)
            self.flags = self.flags & ~f.BDRV_O_CACHE_MASK | flags
        elif letter == "d":
            unmap = _parse(session, "discard", parse_discard, value)
            self.flags = self.flags & ~f.BDRV_O_UNMAP | unmap
        elif letter == "i":
            self.flags |= _parse(session, "aio", parse_aio, value)


FLAGS = {
    "s": f.BDRV_O_SNAPSHOT,
    "n": f.BDRV_O_NOCACHE,
    "C": f.BDRV_O_COPY_ON_READ,
    "k": f.BDRV_O_NATIVE_AIO,
}
MODE_OPTIONS = "snCrktidU"


def _parse(session: Session, what: str, parse: Callable[[str], T], value: str) -> T:
    try:
        return parse(value)
    except BlockError:
        raise session.refused(f"Invalid {what} option: {value}") from None


def open_file(
    session: Session, filename: str | None, mode: Mode, options: dict[str, object]
) -> None:
    """Opens an image for the commands that follow (openfile). Raises Failed."""
    if session.blk is not None:
        raise session.refused("file open already, try 'help close'")
    if mode.force_share:
        if options.get(FORCE_SHARE, "on") != "on":
            raise session.refused("-U conflicts with image options")
        options[FORCE_SHARE] = "on"
    flags = mode.flags if mode.read_only else mode.flags | f.BDRV_O_RDWR
    try:
        session.blk = _open_tree(filename, options, flags, mode.writethrough)
    except BlockError as error:
        device = "" if filename is None else f" device {filename}"
        session.report_error(error, f"can't open{device}: ")
        raise Failed from None


def _open_tree(
    filename: str | None, options: dict[str, object], flags: int, writethrough: bool
) -> BlockBackend:
    if flags & f.BDRV_O_SNAPSHOT:
        from block.ops.snapshot_overlay import open_with_overlay

        return open_with_overlay(filename, options, flags, writethrough)
    return open_backend(filename, options=options, flags=flags, writethrough=writethrough)


def do_open(session: Session, argv: list[str]) -> None:
    """Opens an image."""
    mode = Mode()
    options: dict[str, object] = {}
    convert: dict[str, Callable[[str], object]] = {
        letter: partial(mode.take, session, letter) for letter in MODE_OPTIONS
    }
    convert["o"] = partial(_add_options, session, options)
    given = session.options(argv, convert, operands=(0, 1))
    filename = given.words[0] if given.words else None
    if session.image_opts and filename is not None:
        options.update(parse_image_opts(filename))
        filename = None
    open_file(session, filename, mode, options)


def _add_options(session: Session, options: dict[str, object], text: str) -> None:
    if session.image_opts:
        raise Failed("--image-opts and 'open -o' are mutually exclusive")
    options.update(parse_image_opts(text))


def do_close(session: Session, argv: list[str]) -> None:
    """Closes the image, after what is in flight."""
    session.disk.unref()
    session.blk = None


def do_reopen(session: Session, argv: list[str]) -> None:
    """Changes how the image is open, all or nothing."""
    disk = session.disk
    assert disk.bs is not None, "an open disk has a tree"
    change = Change(session, disk.bs.open_flags, not disk.enable_write_cache)
    convert: dict[str, Callable[[str], object]] = {
        "c": change.cache, "o": change.more, "r": change.read_only, "w": change.writable,
    }  # fmt: skip
    session.options(argv, convert, operands=(0, 0))
    if not change.flags & f.BDRV_O_RDWR:
        # Who reads only must not hold on to what it once asked for.
        disk.drain()
        disk.set_perm(disk.perm & ~WRITES, disk.shared_perm)
    reopen.reopen(disk.bs, change.complete())
    disk.enable_write_cache = not change.writethrough


class Change:
    """What a reopen is to change: open flags, the write cache, options by name."""

    def __init__(self, session: Session, flags: int, writethrough: bool) -> None:
        self.session = session
        self.flags = flags
        self.writethrough = writethrough
        self.options: dict[str, object] = {}
        self.has_mode = False
        self.has_cache = False

    def cache(self, mode: str) -> None:
        """-c."""
        flags, self.writethrough = _parse(self.session, "cache", parse_cache_mode, mode)
        self.flags = self.flags & ~f.BDRV_O_CACHE_MASK | flags
        self.has_cache = True

    def more(self, text: str) -> None:
        """-o."""
        options = parse_image_opts(text)
        if "id" in options:
            raise invalid("Invalid parameter 'id'")
        self.options.update(options)

    def read_only(self, _: str) -> None:
        """-r."""
        self._once()
        self.flags &= ~f.BDRV_O_RDWR

    def writable(self, _: str) -> None:
        """-w."""
        self._once()
        self.flags |= f.BDRV_O_RDWR

    def _once(self) -> None:
        if self.has_mode:
            raise self.session.refused("Only one -r/-w option may be given")
        self.has_mode = True

    def complete(self) -> dict[str, object]:
        """All options: what was given by letters, too. Raises Failed where one is given twice."""
        options = self.options
        if "read-only" not in options:
            options["read-only"] = not self.flags & f.BDRV_O_RDWR
        elif self.has_mode:
            raise self.session.refused("Cannot set both -r/-w and 'read-only'")
        if "cache.direct" not in options and "cache.no-flush" not in options:
            options["cache.direct"] = bool(self.flags & f.BDRV_O_NOCACHE)
            options["cache.no-flush"] = bool(self.flags & f.BDRV_O_NO_FLUSH)
        elif self.has_cache:
            raise self.session.refused("Cannot set both -c and the cache options")
        return options
