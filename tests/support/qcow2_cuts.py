# SPDX-License-Identifier: GPL-2.0-only
"""Random work on an image over a tape, and what QEMU says of the image that a power cut leaves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import block
from tests.support.qcow2_disk import Flushed, Tape, open_on
from tests.support.qcow2_work import Work, do
from tests.support.qemu_tools import qemu, qemu_img

SIZE = (4 << 20) + 3 * 512
CLEAN, CORRUPT, LEAKS = 0, 2, 3


def new_image(folder: Path, **options: Any) -> bytes:
    """The bytes of an empty image of ours."""
    path = folder / "new.qcow2"
    path.unlink(missing_ok=True)
    block.create(os.fspath(path), "qcow2", SIZE, **options)
    return path.read_bytes()


def check(path: Path, *words: str) -> int:
    """The exit status of `qemu-img check`: 0 clean, 3 leaks; asserts that it is not corrupt."""
    done = qemu("qemu-img", "check", "-f", "qcow2", *words, path)
    assert done.returncode in (CLEAN, LEAKS), done.stdout + done.stderr
    return done.returncode


def plain(path: Path, folder: Path) -> bytes:
    """What QEMU reads from an image."""
    out = folder / "plain.raw"
    qemu_img("convert", "-f", "qcow2", "-O", "raw", path, out)
    return out.read_bytes()


def record(tape: Tape, work: Work, count: int, **options: Any) -> Flushed:
    """Does random work on an image over the tape."""
    safe = Flushed(work.size)
    with open_on(tape, **options) as disk:
        for op in work.ops(count):
            before = len(tape.writes)
            if not do(disk, op):
                continue
            work.note(op)
            if op.what == "flush":
                safe.moments.append((len(tape.writes), bytes(work.model)))
            else:
                safe.changed.append((before, op.offset, op.offset + op.nbytes))
    return safe
