# SPDX-License-Identifier: GPL-2.0-only
"""One cell of the interoperability matrix: an image that we and QEMU work on in turn.

Each kind of image (tests/support/format_kinds.py) is tried in two directions:

    ours    we create and write; QEMU finds no fault, reads the same, and writes on; we read that
    QEMU's  QEMU creates and writes; we read the same, and write on; QEMU finds no fault, reads it

`python -m tests.interop` (make interop-matrix) runs them and prints how many there were.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import block
from block.core import flags as f
from miniqemu.cli.img import main as img
from tests.support import luks_images
from tests.support.format_kinds import Kind, Options
from tests.support.luks_images import qemu_with_secret
from tests.support.qcow2_bitmaps import areas_of, stored
from tests.support.qcow2_work import Op, OurImage, Work, qemu_io
from tests.support.qemu_tools import qemu_done

OURS, QEMUS = "ours", "QEMU's"
DIRECTIONS = (OURS, QEMUS)
OUR_OPS, QEMU_OPS = 60, 40
LONGER, SHORTER = 300 << 10, 150 << 10  # by how much a disk grows and shrinks
NOTED_BY = 4096  # the bitmap's granularity


def _img(*words: str | Path) -> str:
    """Runs our miniqemu-img in this process; it must succeed. Returns what it said."""
    keeps = os.dup(1)
    with tempfile.TemporaryFile("w+") as said:
        os.dup2(said.fileno(), 1)  # where the tool writes to, whatever sys.stdout is
        try:
            status = img.run_command("qemu-img", list(map(os.fspath, words)))
        finally:
            os.dup2(keeps, 1)
            os.close(keeps)
        said.seek(0)
        text = said.read()
    assert status == 0, f"our {words[0]} ends with {status}: {text}"
    return text


class Cell:
    """One kind in one direction, in a folder of its own, which is the working directory."""

    def __init__(self, kind: Kind, seed: int) -> None:
        self.kind = kind
        self.image = Path(f"disk.{kind.fmt}").absolute()
        base = b""
        if kind.backing:
            base = random.Random(seed).randbytes(kind.size // 2 // 512 * 512)
            Path("base.raw").write_bytes(base)
            if kind.fmt == "vmdk":  # takes no other
                qemu_done("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "base.raw", "base.vmdk")
        self.work = Work(seed, kind.size, kind.unit, base)
        self.version = 2 if kind.options.get("compat") == "0.10" else 3
        self.noted: set[int] = set()  # the parts of the disk that a bitmap must have noted
        self.operations = 0

    def run(self, direction: str) -> int:
        """Tries it; returns how many operations were done."""
        with luks_images.secret():
            if self.kind.once:
                self._once(direction)
            elif direction == OURS:
                self._create_ours()
                self._pack_ours()
                self._begin_and_end(ours=True)
            else:
                self._create_qemus()
                self._pack_qemus()
                self._begin_and_end(ours=False)
        return self.operations

    def _begin_and_end(self, ours: bool) -> None:
        """One works on the image, then the other; both judge."""
        self._blank(ours, 0)
        self._add_bitmap(ours)
        self._work(ours)
        then = self._take_snapshot(ours)
        self._resize(ours, self.work.size + LONGER)
        self._judge(not ours)
        self._work(not ours)
        if self.kind.shrinks:
            self._resize(not ours, (self.work.size - SHORTER) // self.kind.unit * self.kind.unit)
            self._judge(ours)
            self._resize(ours, self.work.size + LONGER)  # what was cut off does not come back
            self._judge(not ours)
        self._judge(ours)
        self._described_alike()
        self._has_noted()
        if self.kind.snapshot:
            self._is_in_snapshot(then)
            self._go_back(not ours, then)

    def _work(self, ours: bool) -> None:
        if ours:
            self._work_ours()
        else:
            self._work_qemus()

    def _judge(self, ours: bool) -> None:
        if ours:
            self._read_by_us()
        else:
            self._judged_by_qemu()

    # -- telling the tools

    def _place(self) -> dict[str, str]:
        """The options that opening needs: where in the file it is, whose password it has."""
        kind = self.kind
        if kind.fmt == "raw" and not kind.resize:
            return {"offset": kind.options["offset"], "size": str(self.work.size)}
        if kind.encryption:
            return {("key-secret" if kind.fmt == "luks" else "encrypt.key-secret"): "s"}
        return {}

    def _named(self) -> list[str]:
        """How the tools are told which image it is."""
        place = self._place()
        if not place:
            return ["-f", self.kind.fmt, os.fspath(self.image)]
        pairs = {"driver": self.kind.fmt, **place, "file.filename": os.fspath(self.image)}
        return ["--image-opts", ",".join(f"{name}={value}" for name, value in pairs.items())]

    def _named_without_format(self) -> list[str]:
        """As _named, for the subcommands that find out the format by themselves."""
        named = self._named()
        return named if "--image-opts" in named else named[2:]

    def _qemu(self, program: str, *words: str | Path) -> str:
        """As qemu_done; an encrypted image needs its password."""
        if not self.kind.encryption:
            return qemu_done(program, *words)
        done = qemu_with_secret(program, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _tool(self, ours: bool, *words: str | Path) -> str:
        """Runs our miniqemu-img or QEMU's; returns what it said."""
        return _img(*words) if ours else self._qemu("qemu-img", *words)

    # -- creating

    def _options(self, iter_time: str) -> Options:
        """The options of create, with as little work for a password as that tool can do."""
        kind, options = self.kind, dict(self.kind.options)
        if kind.encryption:
            options |= self._place()
        if kind.encryption == "luks":
            options["iter-time" if kind.fmt == "luks" else "encrypt.iter-time"] = iter_time
        if kind.backing:
            base = "vmdk" if kind.fmt == "vmdk" else "raw"
            options |= {"backing_file": f"base.{base}", "backing_fmt": base}
        return options

    def _create_ours(self) -> None:
        if self.kind.fmt == "raw":
            self._create_raw()
        else:
            options = self._options(iter_time="0")
            block.create(os.fspath(self.image), self.kind.fmt, self.kind.size, **options)

    def _create_qemus(self) -> None:
        if self.kind.fmt == "raw":
            self._create_raw()
            return
        options = ",".join(f"{name}={value}" for name, value in self._options("10").items())
        command = ["create", "-q", "-f", self.kind.fmt, *(["-o", options] if options else [])]
        self._qemu("qemu-img", *command, self.image, str(self.kind.size))

    def _create_raw(self) -> None:
        """The disk is a part of a file that holds something else before and behind it."""
        before, behind = (int(self.kind.options[name]) for name in ("offset", "rest"))
        self.image.write_bytes(b"#" * before + bytes(self.kind.size) + b"#" * behind)

    # -- working

    def _may(self, op: Op, qemus: bool) -> bool:
        """Whether an operation means the same to both (why not: docs/qed.md, docs/vmdk.md)."""
        if op.what == "reopen":
            return not qemus
        if op.what == "discard":
            return self.kind.fmt == "qcow2" and self.version > 2
        if op.what in ("zeroes", "unmap"):
            return not (self.kind.fmt == "qed" and self.kind.backing)
        return True

    def _packed(self) -> list[Op]:
        """Compressed writes go to clusters in which nothing is."""
        if not self.kind.packed:
            return []
        self.operations += 1
        return [Op("write", self.kind.unit, 2 * self.kind.unit, 7)]

    def _pack_ours(self) -> None:
        for op in self._packed():
            with block.open(os.fspath(self.image), format=self.kind.fmt) as disk:
                disk.pwrite(op.offset, bytes([op.pattern]) * op.nbytes, f.REQ_WRITE_COMPRESSED)
            self.work.note(op)

    def _pack_qemus(self) -> None:
        for op in self._packed():
            command = f"write -c -P {op.pattern} {op.offset} {op.nbytes}"
            qemu_done("qemu-io", "-c", command, *self._named())
            self.work.note(op)

    def _ops(self, count: int, qemus: bool) -> Iterator[Op]:
        for op in self.work.ops(count):
            if self._may(op, qemus):
                self.operations += 1
                if op.what in ("write", "zeroes", "unmap", "discard"):
                    last = op.offset + op.nbytes - 1
                    self.noted.update(range(op.offset // NOTED_BY, last // NOTED_BY + 1))
                yield op

    def _open_ours(self) -> OurImage:
        return OurImage(self.image, self.work, self.version, self.kind.fmt, **self._place())

    def _work_ours(self) -> None:
        ours = self._open_ours()
        try:
            for op in self._ops(OUR_OPS, qemus=False):
                ours.apply(op)
        finally:
            ours.close()

    def _work_qemus(self) -> None:
        commands: list[str | Path] = []
        for op in self._ops(QEMU_OPS, qemus=True):
            command = qemu_io(op)
            assert command is not None, op
            commands += ["-c", command]
            self.work.note(op, self.kind.backing, self.version)
        said = self._qemu("qemu-io", "-d", "unmap", "-t", "unsafe", *commands, *self._named())
        assert "failed" not in said, said

    def _resize(self, ours: bool, size: int) -> None:
        """Makes the disk longer or shorter, if that belongs to the kind."""
        if not self.kind.resize:
            return
        self.operations += 1
        self._tool(ours, "resize", "-q", "--shrink", *self._named(), str(size))
        before, self.work.size = self.work.size, size
        self.work.model[size:] = bytes(max(0, size - before))
        self.noted = {part for part in self.noted if part * NOTED_BY < size}
        self._blank(ours, before)

    def _blank(self, ours: bool, start: int) -> None:
        """What is new on a luks volume is noise. Writes zeroes there."""
        nbytes = self.work.size - start
        if self.kind.fmt != "luks" or nbytes <= 0:
            return
        if ours:
            options = self._place()
            with block.open(os.fspath(self.image), format="luks", options=options) as disk:
                disk.pwrite(start, bytes(nbytes))
        else:
            self._qemu("qemu-io", "-c", f"write -P 0 {start} {nbytes}", *self._named())

    # -- judging

    def _read_by_us(self) -> None:
        ours = self._open_ours()
        ours.close()  # which reads all of it
        if self.kind.fmt in ("qcow2", "qed", "vmdk"):
            _img("check", "-q", *self._named())

    def _judged_by_qemu(self) -> None:
        if self.kind.fmt == "raw":
            self._is_framed()
            return
        if self.kind.fmt != "luks":  # which has nothing to check
            self._qemu("qemu-img", "check", *self._named())
        reference = Path("reference.raw").absolute()
        reference.write_bytes(self.work.model)
        other = ["-F", "raw", os.fspath(reference)]
        if "--image-opts" in self._named():
            other = [f"driver=raw,file.filename={reference}"]
        self._qemu("qemu-img", "compare", *self._named(), *other)
        if self.kind.options.get("data_file_raw") == "on":
            content = Path("data.raw").read_bytes()
            size = self.work.size
            assert content[:size] == self.work.model, "the data file is the disk"
            # QEMU copies up to the end of the last cluster; we leave the file as long as it is.
            assert not any(content[size:])

    def _is_framed(self) -> None:
        """The file holds the disk, and around it what was there before."""
        before, end = int(self.kind.options["offset"]), self.work.size
        content = self.image.read_bytes()
        assert content[before : before + end] == self.work.model
        assert set(content[:before] + content[before + end :]) <= {ord("#")}

    def _described_alike(self) -> None:
        """Both say the same about the image, its snapshots and bitmaps."""
        mine, theirs = (self._tool(ours, "info", self.image) for ours in (True, False))
        assert mine == theirs

    # -- bitmaps and snapshots

    def _add_bitmap(self, ours: bool) -> None:
        if self.kind.bitmap:
            words = ("--add", "-g", str(NOTED_BY), *self._named(), "seen")
            self._tool(ours, "bitmap", *words)

    def _has_noted(self) -> None:
        """The bitmap has what both have written, and nothing else."""
        if self.kind.bitmap:
            expected = areas_of(sorted(self.noted), NOTED_BY, self.work.size)
            assert stored(self.image)["seen"].areas == expected

    def _take_snapshot(self, ours: bool) -> bytes:
        """Takes a snapshot, if that belongs to the kind; returns what it holds."""
        if self.kind.snapshot:
            self.operations += 1
            self._tool(ours, "snapshot", "-c", "then", *self._named_without_format())
        return bytes(self.work.model)

    def _is_in_snapshot(self, then: bytes) -> None:
        """Both read the snapshot, whatever has been written since."""
        for ours in (True, False):
            copy = Path("copy.raw")
            self._tool(ours, "convert", "-l", "then", "-O", "raw", *self._named(), copy)
            assert copy.read_bytes()[: len(then)] == then

    def _go_back(self, ours: bool, then: bytes) -> None:
        """The snapshot becomes the disk, and is deleted. Not while a bitmap notes: both refuse."""
        if self.kind.bitmap:
            return
        for what in ("-a", "-d"):
            self.operations += 1
            self._tool(ours, "snapshot", what, "then", *self._named_without_format())
        self.work.size, self.work.model = len(then), bytearray(then)
        self._read_by_us()
        self._judged_by_qemu()

    # -- in one go

    def _once(self, direction: str) -> None:
        for op in self.work.ops(OUR_OPS):
            if op.what in ("write", "zeroes"):
                self.work.note(op)
                self.operations += 1
        source, back = Path("source.raw"), Path("back.raw")
        source.write_bytes(self.work.model)
        options = ",".join(f"{name}={value}" for name, value in self.kind.options.items())
        there = ["convert", "-f", "raw", "-O", self.kind.fmt, "-o", options, "source.raw"]
        again = ["convert", "-f", self.kind.fmt, "-O", "raw", os.fspath(self.image), "back.raw"]
        ours = direction == OURS
        self._tool(ours, *there, self.image)
        if ours:
            self._qemu("qemu-img", "check", *self._named())
        self._tool(not ours, *again)
        assert back.read_bytes() == self.work.model
