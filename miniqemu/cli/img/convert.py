# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img convert`: copies images into one, in any format (img_convert).

Copy offloading (-C) is a wish, as in QEMU: where there is none, all is read and written.
"""

from __future__ import annotations

from block.core import flags as f
from block.core.error import BlockError
from block.core.report import warn_report
from block.ops.convert import MAX_BUFFER_SIZE, MAX_WORKERS, Convert
from block.ops.create import Request, help_text, prepare
from block.ops.sources import ConvertFailed
from miniqemu.cli.getopt import Words
from miniqemu.cli.output import write

from .common import (
    SHARED,
    add_options,
    cache_flags,
    cvtnum,
    has_help_option,
    img_open,
    integer,
    limit_rate,
    options_of,
)
from .errors import Failure, because
from .progress import Progress
from .snapshot_option import SnapshotOption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.backend import BlockBackend
    from block.core.driver import BlockDriver

LONG = {
    **SHARED,
    "target-image-opts": ("target-image-opts", False),
    "salvage": ("salvage", False),
    "target-is-zero": ("target-is-zero", False),
    "bitmaps": ("bitmaps", False),
    "skip-broken-bitmaps": ("skip-broken-bitmaps", False),
}
BAD_SPARSE = (
    "Invalid buffer size for sparse output specified. Valid sizes are multiples of "
    f"{f.SECTOR_SIZE} up to {MAX_BUFFER_SIZE}. Select 0 to disable sparse detection (fully "
    "allocates output)."
)
BAD_WORKERS = (
    f"Invalid number of coroutines. Allowed number of coroutines is between 1 and {MAX_WORKERS}"
)
MISTAKES = (
    ("c", "C", "Cannot enable copy offloading when -c is used"),
    ("S", "C", "Cannot enable copy offloading when -S is used"),
    ("C", "salvage", "Cannot use copy offloading in salvaging mode"),
)


class Wishes:
    """What the command line asks for."""

    def __init__(self, program: str, argv: list[str]) -> None:
        words = Words(argv, "hf:O:B:CcF:o:l:S:pt:T:qnm:WUr:", LONG)
        self.given: dict[str, str] = {}
        self.options: list[str] = []
        self.key_secrets: dict[str, object] = {}  # of the new image
        self.snapshot: SnapshotOption | None = None
        self.min_sparse, self.workers, self.rate = 4096, 8, 0
        for option, value in options_of(program, words):
            self.given[option] = value
            self._note(option, value)
        self.names = words.rest
        self.fmt = self.given.get("O")
        if self.fmt is None and not self.has("target-image-opts"):
            self.fmt = "raw"
        self._refuse_mistakes()

    def has(self, option: str) -> bool:
        return option in self.given

    def _note(self, option: str, value: str) -> None:
        if option == "o":
            add_options(self.options, value)
        elif option == "S":
            self.min_sparse = cvtnum("buffer size for sparse output", value)
            if self.min_sparse % f.SECTOR_SIZE or self.min_sparse > MAX_BUFFER_SIZE:
                raise Failure(BAD_SPARSE)
        elif option == "m":
            self.workers = integer(value, 1, MAX_WORKERS, BAD_WORKERS)
        elif option == "l":
            self.snapshot = SnapshotOption(value)
        elif option == "r":
            self.rate = cvtnum("rate limit", value)

    def _refuse_mistakes(self) -> None:
        if self.has("skip-broken-bitmaps") and not self.has("bitmaps"):
            raise Failure("Use of --skip-broken-bitmaps requires --bitmaps")
        for one, other, message in MISTAKES:
            if self.has(one) and self.has(other):
                raise Failure(message)
        if self.has("target-image-opts") and not self.has("n"):
            raise Failure("--target-image-opts requires use of -n flag")
        if self.has("n") and self.options:
            raise Failure("-o has no effect when skipping image creation")
        if self.has("target-is-zero") and not self.has("n"):
            raise Failure("--target-is-zero requires use of -n flag")

    @property
    def target(self) -> str:
        return self.names[-1] if len(self.names) > 1 else ""


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    wishes = Wishes(program, argv)
    if has_help_option(wishes.options):
        if wishes.fmt is None:
            raise Failure("Option help requires a format be specified")
        return write(1, help_text(wishes.fmt, wishes.target or None))
    if len(wishes.names) < 2:
        raise Failure("Must specify image file name")
    flags, writethrough = cache_flags(wishes.given.get("T", "writeback"), "source cache")
    quiet = wishes.has("q")
    opened: list[BlockBackend] = []
    with Progress(wishes.has("p") and not quiet, 1.0, "convert") as progress:
        progress(0)
        try:
            for name in wishes.names[:-1]:
                opened.append(_open_source(wishes, name, flags, writethrough))
            total = sum(blk.length for blk in opened)
            _load_snapshot(wishes.snapshot, opened)
            has_backing = _make_target(wishes, opened, total)
            target = _open_target(wishes, total)
            opened.append(target)
            _copy(wishes, opened[:-1], target, has_backing, progress)
            _copy_bitmaps(wishes, opened[0], target)
            target.flush()
        finally:
            for blk in reversed(opened):
                blk.unref()
        progress(100)
    return 0


# Who writes to a source spoils the copy; above all its own target (BDRV_O_NO_SHARE).
ALONE = f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE_UNCHANGED


def _open_source(wishes: Wishes, name: str, flags: int, writethrough: bool) -> BlockBackend:
    return img_open(
        name,
        wishes.given.get("f"),
        flags,
        image_opts=wishes.has("image-opts"),
        writethrough=writethrough,
        force_share=wishes.has("U"),
        shared=f.BLK_PERM_ALL if wishes.has("U") else ALONE,
    )


def _load_snapshot(option: SnapshotOption | None, sources: list[BlockBackend]) -> None:
    if option is None:
        return
    if len(sources) > 1 and not option.by_option:
        raise Failure("No support for concatenating multiple snapshot")
    assert sources[0].bs is not None
    option.load(sources[0].bs)


def _make_target(wishes: Wishes, sources: list[BlockBackend], total: int) -> bool:
    """Makes the new image, unless it is there; returns whether it has a backing file."""
    backing: object = wishes.given.get("B", "")
    if wishes.has("n"):
        _check_backing(wishes, backing, True)
        _check_bitmaps(wishes, sources)
        return bool(backing)
    assert wishes.fmt is not None, "who describes the target by options says -n"
    request = Request(
        wishes.target,
        wishes.fmt,
        total,
        ",".join(wishes.options),
        wishes.given.get("B"),
        wishes.given.get("F", ""),
    )
    driver, values = prepare(request)
    backing = values.get("backing_file")
    _check_backing(wishes, backing, "backing_fmt" in values)
    _check_bitmaps(wishes, sources)
    _check_compression(wishes, driver)
    if wishes.has("c") and values.get("preallocation", "off") != "off":
        raise Failure("Compression and preallocation not supported at the same time")
    _check_encryption(wishes, values)
    try:
        driver.create(wishes.target, values)
    except BlockError as error:
        prefix = f"{wishes.target}: error while converting {wishes.fmt}: "
        raise because(error, prefix) from error
    return bool(backing)


def _check_backing(wishes: Wishes, backing: object, has_format: bool) -> None:
    """Refuses what does not go together, before anything is made."""
    if wishes.has("target-is-zero") and backing:
        message = "Cannot use --target-is-zero when the destination image has a backing file"
        raise Failure(message)
    if len(wishes.names) > 2 and backing:
        raise Failure(
            "Having a backing file for the target makes no sense when concatenating multiple "
            "input images"
        )
    if backing is not None and not has_format:
        raise Failure("Use of backing file requires explicit backing format")


def _check_bitmaps(wishes: Wishes, sources: list[BlockBackend]) -> None:
    if wishes.has("bitmaps"):
        from .copy_bitmaps import check_source

        if len(sources) > 1:
            raise Failure("Copying bitmaps only possible with single source")
        assert sources[0].bs is not None
        check_source(sources[0].bs, wishes.has("skip-broken-bitmaps"))


def _copy_bitmaps(wishes: Wishes, source: BlockBackend, target: BlockBackend) -> None:
    if wishes.has("bitmaps"):
        from .copy_bitmaps import copy_bitmaps

        assert source.bs is not None
        assert target.bs is not None
        copy_bitmaps(source.bs, target.bs)


def _check_compression(wishes: Wishes, driver: BlockDriver | None) -> None:
    if wishes.has("c") and (driver is None or "co_pwritev_compressed" not in driver.hooks):
        raise Failure("Compression not supported for this file format")


def _check_encryption(wishes: Wishes, values: dict[str, object]) -> None:
    """Notes the secrets that the new image is made with, to open it (img_add_key_secrets)."""
    encrypted = values.get("encryption") or "encrypt.format" in values
    if wishes.has("c") and encrypted:
        raise Failure("Compression and encryption not supported at the same time")
    secrets = {name: value for name, value in values.items() if name.endswith("key-secret")}
    wishes.key_secrets.update(secrets)


def _open_target(wishes: Wishes, total: int) -> BlockBackend:
    flags, writethrough = cache_flags(wishes.given.get("t", "unsafe"))
    flags |= f.BDRV_O_RDWR | (f.BDRV_O_UNMAP if wishes.min_sparse else 0)
    target = img_open(
        wishes.target,
        wishes.fmt,
        flags,
        image_opts=wishes.has("target-image-opts"),
        writethrough=writethrough,
        more=wishes.key_secrets,
    )
    assert target.bs is not None
    try:
        if wishes.has("bitmaps"):
            from .copy_bitmaps import check_target

            check_target(target.bs)
        _check_compression(wishes, target.bs.drv)
    except Failure:
        target.unref()
        raise
    if target.length < total:
        target.unref()
        raise Failure("output file is smaller than input file")
    if wishes.rate:
        limit_rate(target, wishes.rate)
    return target


def _copy(
    wishes: Wishes,
    sources: list[BlockBackend],
    target: BlockBackend,
    has_backing: bool,
    progress: Progress,
) -> None:
    convert = Convert(
        sources,
        target,
        min_sparse=wishes.min_sparse,
        workers=wishes.workers,
        in_order=not wishes.has("W"),
        target_is_new=not wishes.has("n"),
        target_is_zero=wishes.has("target-is-zero"),
        target_has_backing=has_backing,
        salvage=wishes.has("salvage"),
        compressed=wishes.has("c"),
        offload=wishes.has("C"),
        progress=progress,
        warn=None if wishes.has("q") else warn_report,
    )
    try:
        convert.run()
    except ConvertFailed as error:
        raise Failure(f"error while {error.what} {error.offset}: {error}") from error
