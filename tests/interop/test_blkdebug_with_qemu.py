# SPDX-License-Identifier: GPL-2.0-only
"""One config file, two programs: qemu-io and ours meet the same errors at the same requests.

`blkdebug:CONFIG:IMAGE` is opened by both, and both do the same operations. What is compared is
which of them fail and with which errno. A flush tells qemu-io's user nothing, so its own outcome
does not count; what it leads to does.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

import block
from block.core.backend import BlockBackend
from block.core.error import BlockError
from tests.support.qemu_tools import qemu

pytestmark = pytest.mark.full

KIB = 1024
SIZE = 4 * KIB * KIB


def inject(event: str, **more: object) -> str:
    return section("inject-error", event=event, **more)


def move(event: str, state: int, new_state: int) -> str:
    return section("set-state", event=event, state=state, new_state=new_state)


def section(group: str, **values: object) -> str:
    lines = [f'{name} = "{value}"' for name, value in values.items()]
    return "\n".join([f"[{group}]", *lines, "", ""])


CONFIGS = {
    "no rules": "# nothing\n",
    "every read": inject("read_aio", errno=28),
    "one write": inject("write_aio", errno=28, once="on"),
    "for ever": inject("write_aio"),
    "at once": inject("write_aio", immediately="on", once="on"),
    "from the beginning": inject("none", iotype="write", errno=5),
    "discards only": inject("none", iotype="discard", errno=28),
    "flush fails, writes do not": inject("flush_to_disk", iotype="flush"),
    "after a flush": inject("flush_to_os", errno=28, iotype="write"),
    "the third write": (
        move("write_aio", 1, 2) + move("write_aio", 2, 3) + inject("write_aio", state=3, once="on")
    ),
    "reads heal": inject("write_aio", errno=28, iotype="write") + inject("read_aio", errno=0),
    "two errors take turns": (
        inject("write_aio", state=1, errno=5, once="on")
        + inject("write_aio", state=2, errno=28, once="on")
        + move("read_aio", 1, 2)
    ),
    "the first new state counts": (
        move("read_aio", 1, 5) + move("read_aio", 1, 6) + inject("write_aio", state=5, errno=28)
    ),
    "a write is done": inject("pwritev_done", errno=28, iotype="read", once="on"),
}

RAW_CONFIGS = {
    # QEMU's qcow2 writes zeroes into a new cluster, ours knows that they are there already.
    "zeroes only": inject("none", iotype="write-zeroes", errno=28),
    "one sector": inject("none", sector=128, iotype="read"),
}
QCOW2_CONFIGS = {
    "a table is loaded": inject("l2_load", errno=28, once="on"),
    "a cluster is wanted": inject("cluster_alloc", errno=28, once="on"),
    "a new L2 table": inject("l2_alloc_write", errno=28, once="on"),
    "the L1 entry": inject("l1_update", errno=28, once="on"),
    "a refcount": inject("refblock_load", errno=28, iotype="read"),
    "a refcount block goes out": inject("refblock_update_part", errno=28, once="on"),
    "copy on write": inject("cow_write", errno=28, once="on"),
    "what is copied": inject("cow_read", errno=28, once="on"),
    "the backing file": inject("read_backing_aio", errno=28, once="on"),
}
FLUSHES_ONLY = {"no rules", "flush fails, writes do not"}

# what to do, where, how many bytes
OPERATIONS = (
    ("write", 0, 4 * KIB), ("read", 0, 4 * KIB), ("write", 64 * KIB, 4 * KIB),
    ("read", 64 * KIB, 4 * KIB), ("flush", 0, 0), ("write", 4 * KIB, 4 * KIB),
    ("zeroes", 64 * KIB, 64 * KIB), ("read", 60 * KIB, 8 * KIB), ("write", 1 * KIB, 3 * KIB),
    ("read", 2048 * KIB, 4 * KIB), ("write", 2048 * KIB + 512, KIB), ("flush", 0, 0),
    ("discard", 0, 64 * KIB), ("read", 0, 128 * KIB), ("write", 300 * KIB, 200 * KIB),
    ("read", 300 * KIB, 200 * KIB), ("flush", 0, 0), ("write", 0, 512), ("read", 0, 512),
)  # fmt: skip
COMMANDS = {
    "write": "write {} {}", "read": "read {} {}", "zeroes": "write -z {} {}",
    "discard": "discard {} {}", "flush": "flush",
}  # fmt: skip


def qemu_does(name: str, format: str) -> list[int]:
    """The errno of each operation that has an outcome. A json: name says the format itself."""
    words = ["-t", "writeback", "-d", "unmap", *(["-f", format] if format else [])]
    for what, offset, nbytes in OPERATIONS:
        words += ["-c", COMMANDS[what].format(offset, nbytes)]
    done = qemu("qemu-io", *words, name)
    found = []
    for line in done.stdout.splitlines():
        if " failed: " in line:
            message = line.partition(" failed: ")[2]
            found += [n for n in (errno.EIO, errno.ENOSPC) if os.strerror(n) == message]
        elif " bytes at offset " in line:
            found.append(0)
    assert len(found) == sum(what != "flush" for what, _, _ in OPERATIONS), done
    return found


def we_do(name: str, format: str) -> list[int]:
    found = []
    blk = block.open(name, format=format or None, options={"discard": "unmap"})
    try:
        for what, offset, nbytes in OPERATIONS:
            failed = failure(blk, what, offset, nbytes)
            if what != "flush":
                found.append(failed)
    finally:
        blk.unref()  # close() would tell that its flush failed
    return found


def failure(blk: BlockBackend, what: str, offset: int, nbytes: int) -> int:
    try:
        if what == "write":
            blk.pwrite(offset, b"\xcd" * nbytes)
        elif what == "read":
            blk.pread(offset, nbytes)
        elif what == "zeroes":
            blk.pwrite_zeroes(offset, nbytes)
        elif what == "discard":
            blk.pdiscard(offset, nbytes)
        else:
            blk.flush()
    except BlockError as error:
        return error.errno or 0
    return 0


def make(folder: Path, format: str) -> Path:
    """An image with something at its beginning; a qcow2 image has it from a backing file, and has
    one L2 table of two on the disk."""
    image = folder / f"a.{format}"
    if format == "raw":
        image.write_bytes(b"o" * 64 * KIB + bytes(SIZE - 64 * KIB))
    else:
        base = make(folder, "raw")
        options = {"backing_file": os.fspath(base), "backing_fmt": "raw"}
        block.create(os.fspath(image), "qcow2", SIZE, cluster_size=4096, **options)
        with block.open(os.fspath(image), format="qcow2") as blk:
            blk.pwrite(SIZE - KIB, b"o" * KIB)
    return image


def both_do(folder: Path, format: str, config: str, **limits: int) -> list[int]:
    """What both met; they must agree."""
    rules = folder / "rules.conf"
    rules.write_text(config)
    outcomes = []
    for run in (qemu_does, we_do):
        image = make(folder, format)
        name = f"blkdebug:{rules}:{image}"
        if limits:
            file = {"driver": "file", "filename": os.fspath(image)}
            below = {"driver": "blkdebug", "config": os.fspath(rules), "image": file, **limits}
            name = "json:" + json.dumps({"driver": format, "file": below})
        outcomes.append(run(name, "" if limits else format))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


@pytest.mark.parametrize("name", [*CONFIGS, *RAW_CONFIGS])
def test_a_raw_image_meets_the_same_errors(tmp_path: Path, name: str) -> None:
    found = both_do(tmp_path, "raw", {**CONFIGS, **RAW_CONFIGS}[name])
    assert any(found) == (name not in FLUSHES_ONLY)


@pytest.mark.parametrize("name", [*CONFIGS, *QCOW2_CONFIGS])
def test_a_qcow2_image_meets_the_same_errors(tmp_path: Path, name: str) -> None:
    found = both_do(tmp_path, "qcow2", {**CONFIGS, **QCOW2_CONFIGS}[name])
    # A cluster that cannot be discarded below is free all the same.
    assert any(found) == (name not in {*FLUSHES_ONLY, "discards only"})


# QEMU 7.2 overlooks that a head or tail could not be read, and writes what was in its buffer
# (bdrv_padding_rmw_read). With `once` only that read fails; ours then fails the write, too.
OVERLOOKED = {("pwritev_rmw_head", "on"), ("pwritev_rmw_tail", "on")}
CORE_EVENTS = (
    "pwritev_rmw_head", "pwritev_rmw_after_head", "pwritev_rmw_tail", "pwritev_rmw_after_tail",
    "pwritev", "pwritev_zero", "pwritev_done",
)  # fmt: skip


@pytest.mark.parametrize(
    ("event", "once"),
    [(e, o) for e in CORE_EVENTS for o in ("on", "off") if (e, o) not in OVERLOOKED],
)
def test_what_the_core_tells_comes_at_the_same_requests(
    tmp_path: Path, event: str, once: str
) -> None:
    config = inject(event, errno=28, once=once)
    limits = {"align": 4096, "max-transfer": 16384, "opt-write-zero": 12288}
    assert any(both_do(tmp_path, "raw", config, **limits))


def test_a_rule_that_qemu_misreads_is_refused_here(tmp_path: Path) -> None:
    """Without quotation marks QEMU reads an empty value; both refuse, ours says where."""
    rules = tmp_path / "rules.conf"
    rules.write_text("[inject-error]\nevent = write_aio\n")
    name = f"blkdebug:{rules}:{make(tmp_path, 'raw')}"
    assert "can't open device" in qemu("qemu-io", "-f", "raw", "-c", "read 0 512", name).stderr
    with pytest.raises(BlockError, match=rf"^{rules}:2: parse error"):
        block.open(name, format="raw")
