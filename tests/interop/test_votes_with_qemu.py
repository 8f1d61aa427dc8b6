# SPDX-License-Identifier: GPL-2.0-only
"""quorum and blkverify beside qemu-io: one option line, the same verdicts, the same files after it.

Each case has a line of options and what to do. Both programs do it on files of their own; what
qemu-io prints (without its timing) is compared with what ours would print, and the files
afterwards byte for byte.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import block
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.keyval import parse_keyval
from block.core.verify import ContentsMismatch
from tests.support.qemu_tools import qemu

pytestmark = pytest.mark.full

SIZE = 64 << 10
Command = tuple[str, int, int, int]  # what, pattern, offset, bytes
A, B, C = (ord(letter) for letter in "ABC")


def line(letters: str, **options: object) -> str:
    """A quorum over raw files, one for each letter; the file of a `!` cannot be read."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    words = ["driver=quorum", *(f"{name}={value}" for name, value in named.items())]
    for n, letter in enumerate(letters):
        below = f"children.{n}.file" if letter != "!" else f"children.{n}.image"
        words += [f"children.{n}.driver={'raw' if letter != '!' else 'blkdebug'}"]
        words += [f"{below}.driver=file", f"{below}.filename={n}.raw"]
        if letter == "!":
            words += [f"children.{n}.inject-error.0.event=read_aio"]
            words += [f"children.{n}.inject-error.0.errno=28"]
    return ",".join(words)


def make_files(folder: Path, letters: str) -> None:
    """A file for each letter, full of A, but for 4 KiB of that letter at 8 KiB."""
    folder.mkdir()
    for n, letter in enumerate(letters):
        data = bytearray(b"A" * SIZE)
        data[8192:12288] = letter.encode() * 4096
        (folder / f"{n}.raw").write_bytes(data)


def theirs(folder: Path, options: str, commands: list[Command]) -> list[str]:
    """What qemu-io says to an option line and some commands."""
    words: list[str] = []
    for what, pattern, offset, nbytes in commands:
        words += ["-c", f"{what} -P {pattern} {offset} {nbytes}" if nbytes else what]
    done = qemu("qemu-io", *words, "--image-opts", options, cwd=folder)
    lines = (done.stderr + done.stdout).splitlines()
    return sorted(line.removeprefix("qemu-io: ") for line in lines if " ops; " not in line)


def ours(folder: Path, options: str, commands: list[Command]) -> list[str]:
    """What qemu-io would say if it were ours; a mismatch ends it, as it ends qemu-io."""
    here = os.getcwd()
    os.chdir(folder)
    said: list[str] = []
    try:
        with block.open(options=parse_keyval(options)) as disk:
            for what, pattern, offset, nbytes in commands:
                said += say(disk, what, pattern, offset, nbytes)
    except ContentsMismatch as error:
        said.append(str(error))
    except BlockError as error:
        said.append(f"can't open: {error}")
    finally:
        os.chdir(here)
    return sorted(said)


def say(disk: BlockBackend, what: str, pattern: int, offset: int, nbytes: int) -> list[str]:
    """Does one command; returns qemu-io's words for how it ended."""
    expected = bytes([pattern]) * nbytes
    said = []
    try:
        if what == "read" and disk.pread(offset, nbytes) != expected:
            said = [f"Pattern verification failed at offset {offset}, {nbytes} bytes"]
        elif what == "write":
            disk.pwrite(offset, expected)
        elif what == "flush":
            disk.flush()
            return []
    except ContentsMismatch:
        raise
    except BlockError as error:
        return [f"{what} failed: {os.strerror(error.errno or 0)}"]
    verb = {"read": "read", "write": "wrote"}[what]
    return [*said, f"{verb} {nbytes}/{nbytes} bytes at offset {offset}"]


READ_A, READ_B, READ_C = (("read", letter, 8192, 4096) for letter in (A, B, C))
WHOLE = ("read", A, 0, SIZE)
WRITE = ("write", C, 9000, 5000)
CASES: dict[str, tuple[str, dict[str, object], list[Command]]] = {
    "all agree": ("AAA", {"vote_threshold": 3}, [WHOLE]),
    "the last is outvoted": ("AAB", {"vote_threshold": 2}, [WHOLE]),
    "the first is outvoted": ("BAA", {"vote_threshold": 2}, [WHOLE, READ_B]),
    "all different": ("ABC", {"vote_threshold": 2}, [READ_A, ("read", A, 0, 4096)]),
    "one vote is enough": ("ABC", {"vote_threshold": 1}, [READ_A, READ_B, READ_C]),
    "a tie of two": ("AB", {"vote_threshold": 1}, [READ_A, READ_B]),
    "a tie of four": ("AABB", {"vote_threshold": 2}, [READ_A, READ_B]),
    "a tie with a third": ("ABBAC", {"vote_threshold": 2}, [READ_A, READ_B, READ_C]),
    "the largest has not enough": ("AABC", {"vote_threshold": 3}, [READ_A]),
    "one cannot be read": ("A!A", {"vote_threshold": 2}, [WHOLE]),
    "two cannot be read": ("A!!", {"vote_threshold": 2}, [WHOLE]),
    "one is wrong and one cannot be read": ("A!B", {"vote_threshold": 2}, [WHOLE, READ_A]),
    "fifo": ("BAA", {"vote_threshold": 2, "read_pattern": "fifo"}, [READ_A, READ_B]),
    "fifo, the first cannot be read": (
        "!BA", {"vote_threshold": 3, "read_pattern": "fifo"}, [READ_A, READ_B],
    ),
    "mending": ("ABA", {"vote_threshold": 2, "rewrite_corrupted": "on"}, [WHOLE, READ_A]),
    "mending after a tie": ("AABB", {"vote_threshold": 2, "rewrite_corrupted": "on"}, [READ_B]),
    "mending nothing": ("ABC", {"vote_threshold": 2, "rewrite_corrupted": "on"}, [READ_A]),
    "a write makes them one": (
        "ABC", {"vote_threshold": 2}, [("write", C, 8192, 4096), ("flush", 0, 0, 0), READ_C],
    ),
    "comparing, equal": ("AA", {"vote_threshold": 2, "blkverify": "on"}, [WHOLE, WRITE]),
    "comparing, different": (
        "AB", {"vote_threshold": 2, "blkverify": "on"}, [("read", A, 0, 8192), WHOLE, READ_A],
    ),
    "no threshold": ("AA", {}, [WHOLE]),
    "a threshold below one": ("AA", {"vote_threshold": -3}, [WHOLE]),
    "a threshold that is no number": ("AA", {"vote_threshold": "most"}, [WHOLE]),
    "a threshold above all": ("AA", {"vote_threshold": 3}, [WHOLE]),
    "no children": ("", {"vote_threshold": 1}, [WHOLE]),
    "comparing three": ("AAA", {"vote_threshold": 2, "blkverify": "on"}, [WHOLE]),
    "comparing and mending": (
        "AA", {"vote_threshold": 2, "blkverify": "on", "rewrite_corrupted": "on"}, [WHOLE],
    ),
    "a pattern that nobody knows": (
        "AA", {"vote_threshold": 2, "read_pattern": "lifo"}, [WHOLE],
    ),
    "an option that nobody knows": ("AA", {"vote_threshold": 2, "wisdom": "on"}, [WHOLE]),
}  # fmt: skip


def same(tmp_path: Path, letters: str, options: str, commands: list[Command]) -> list[str]:
    """Lets both do it; asserts that they say the same and leave the same; returns what was said."""
    for name in ("theirs", "ours"):
        make_files(tmp_path / name, letters.replace("!", "A"))
    expected = theirs(tmp_path / "theirs", options, commands)
    assert ours(tmp_path / "ours", options, commands) == expected
    for n in range(len(letters)):
        left = (tmp_path / "ours" / f"{n}.raw").read_bytes()
        assert left == (tmp_path / "theirs" / f"{n}.raw").read_bytes(), f"child {n}"
    return expected


@pytest.mark.parametrize("case", CASES)
def test_a_quorum_says_what_qemus_says(case: str, tmp_path: Path) -> None:
    letters, options, commands = CASES[case]
    assert same(tmp_path, letters, line(letters, **options), commands)


RAW = "driver=blkverify,raw.driver=file,raw.filename=0.raw"
TEST = "test.driver=raw,test.file.driver=file,test.file.filename=1.raw"
BLKVERIFY_CASES: dict[str, tuple[str, str, list[Command]]] = {
    "equal": ("AA", f"{RAW},{TEST}", [WHOLE, WRITE, ("read", C, 9000, 5000)]),
    "beside the difference": ("AB", f"{RAW},{TEST}", [("read", A, 0, 8192)]),
    "at the difference": ("AB", f"{RAW},{TEST}", [("read", A, 0, 8192), ("read", A, 4096, 8192)]),
    "overwritten": ("AB", f"{RAW},{TEST}", [("write", C, 8192, 4096), READ_C]),
    "no image": ("AA", RAW, [WHOLE]),
    "no raw copy": ("AA", f"driver=blkverify,{TEST}", [WHOLE]),
    "no such file": ("AA", f"{RAW.replace('0.raw', 'gone')},{TEST}", [WHOLE]),
}


@pytest.mark.parametrize("case", BLKVERIFY_CASES)
def test_blkverify_says_what_qemus_says(case: str, tmp_path: Path) -> None:
    letters, options, commands = BLKVERIFY_CASES[case]
    assert same(tmp_path, letters, options, commands)


def random_writes(seed: int, disk: BlockBackend) -> Iterator[bytes]:
    """Writes here and there, zeroes too; yields what the disk should hold by then."""
    source = random.Random(seed)
    model = bytearray(disk.length)
    for _ in range(60):
        offset = source.randrange(len(model))
        nbytes = min(source.choice((1, 512, 4096, 70_000)), len(model) - offset)
        if source.random() < 0.3:
            disk.pwrite_zeroes(offset, nbytes)
            model[offset : offset + nbytes] = bytes(nbytes)
        else:
            data = source.randbytes(nbytes)
            disk.pwrite(offset, data)
            model[offset : offset + nbytes] = data
        yield model


@pytest.mark.parametrize("driver", ["quorum", "blkverify"])
def test_every_child_is_the_disk_to_qemu_img(driver: str, tmp_path: Path) -> None:
    """A raw file and qcow2 images, written through ours; QEMU finds no difference between them."""
    images = [("raw", "a.raw"), ("qcow2", "b.qcow2"), ("qcow2", "c.qcow2")]
    children = []
    for form, name in images:
        block.create(os.fspath(tmp_path / name), form, 4 << 20)
        file = {"driver": "file", "filename": os.fspath(tmp_path / name)}
        children.append({"driver": form, "file": file})
    options: dict[str, object] = {"driver": "quorum", "vote-threshold": 3, "children": children}
    if driver == "blkverify":
        images.pop()
        options = {"driver": "blkverify", "raw": children[0], "test": children[1]}
    with block.open(options=options) as disk:
        for model in random_writes(7, disk):
            assert disk.length == len(model)
        assert disk.pread(0, len(model)) == model
    (tmp_path / "model.raw").write_bytes(model)
    for form, name in images:
        words = ("compare", "-f", form, "-F", "raw", name, "model.raw")
        done = qemu("qemu-img", *words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "Images are identical.\n"), done.stderr
