# SPDX-License-Identifier: GPL-2.0-only
"""`amend` of both tools on the same image: the same words, status and description afterwards."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

from miniqemu.cli.img import main as img
from tests.support.qemu_tools import holds, is_clean, qemu, qemu_done

pytestmark = pytest.mark.full

Said = tuple[int, str, str]


def filled(folder: Path, options: str) -> Path:
    """An image of QEMU's with data, zeroes and holes; 'old' is its backing file."""
    image, base = folder / "a.qcow2", folder / "old"
    qemu_done("qemu-img", "create", "-f", "raw", base, "4M")
    words = ["-o", options.replace("=ext", f"={folder}/ext")] if options else []
    qemu_done("qemu-img", "create", "-f", "qcow2", *words, image, "4M")
    work = ("write -P 1 0 200k", "write -P 2 2M 70k", "write -z 3M 128k")
    qemu_done("qemu-io", "-f", "qcow2", *(w for line in work for w in ("-c", line)), image)
    return image


def both(image: Path, line: str, capfd: pytest.CaptureFixture[str]) -> tuple[Said, Said, Path]:
    """What QEMU said, what we said, and the image that we changed."""
    mine = image.with_name("mine.qcow2")
    words = shlex.split(line.replace("=ext", f"={image.parent}/ext"))
    shutil.copy(image, mine)
    done = qemu("qemu-img", "amend", *words, image)
    status = img.main(["qemu-img", "amend", *words, os.fspath(mine)])
    out, err = capfd.readouterr()
    return (done.returncode, done.stdout, done.stderr), (status, out, err), mine


def info(image: Path) -> list[str]:
    lines = qemu_done("qemu-img", "info", "-f", "qcow2", image).splitlines()
    return [line for line in lines if not line.startswith(("image:", "disk size:"))]


CHANGES = (
    ("compat=0.10", "-o compat=1.1"),
    ("compat=0.10", "-o compat=v3,lazy_refcounts=on"),
    ("compat=0.10", "-o compat=v2"),
    ("", "-o lazy_refcounts=on"),
    ("lazy_refcounts=on", "-o lazy_refcounts=off"),
    ("lazy_refcounts=on", "-f qcow2 -o size=5M -o lazy_refcounts=on"),
    ("", "-o size=6M"),
    ("", "-q -o size=0"),
    ("backing_file=old,backing_fmt=raw", "-o backing_file=old,backing_fmt=raw"),
    ("", "-t none --force -o compat=1.1"),
    ("", "-o compat=0.10"),
    ("lazy_refcounts=on", "-o compat=v2"),
    ("backing_file=old,backing_fmt=raw", "-o compat=0.10"),
    ("preallocation=metadata", "-o compat=0.10"),
    ("refcount_bits=64", "-o refcount_bits=1"),
    ("refcount_bits=1,cluster_size=4096", "-o refcount_bits=64"),  # 64 KiB: QEMU takes seconds
    ("refcount_bits=4,cluster_size=512", "-o refcount_bits=32"),
    ("cluster_size=512", "-o refcount_bits=2"),
    ("compat=0.10", "-o compat=1.1,refcount_bits=8"),
    ("refcount_bits=8", "-o compat=0.10,refcount_bits=16,size=5M"),
    ("compression_type=zstd", "-o compat=0.10"),
    ("data_file=ext", "-o data_file=ext,data_file_raw=off"),
    ("data_file=ext,data_file_raw=on", "-o data_file_raw=off"),
)


@pytest.mark.parametrize(("options", "line"), CHANGES, ids=str)
def test_an_amended_image_is_what_qemu_makes_of_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: str, line: str
) -> None:
    image = filled(tmp_path, options)
    theirs, ours, mine = both(image, line, capfd)
    assert ours == theirs
    assert ours[0] == 0
    assert info(mine) == info(image)
    is_clean(mine, "qcow2")
    plain = tmp_path / "plain"
    qemu_done("qemu-img", "convert", "-O", "raw", image, plain)
    holds(mine, plain.read_bytes(), "qcow2")


def test_bitmaps_that_version_2_has_not_are_dropped_without_leaks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = filled(tmp_path, "")
    for name in ("a", "b"):
        qemu_done("qemu-img", "bitmap", "--add", image, name)
    theirs, ours, mine = both(image, "-o compat=0.10", capfd)
    assert ours == theirs == (0, "", "")
    assert info(mine) == info(image)
    is_clean(mine, "qcow2")
    assert qemu("qemu-img", "check", "-q", image).returncode == 3, "QEMU has leaked them"


MISTAKES = (
    ("", "-o backing_file=x"),
    ("backing_file=old,backing_fmt=raw", "-o backing_file=old"),
    ("backing_file=old,backing_fmt=raw", "-o backing_fmt=raw"),
    ("backing_file=old,backing_fmt=raw", "-o backing_file="),
    ("", "-o cluster_size=4k"),
    ("", "-o cluster_size=4k,nonsense=1"),
    ("", "-o nonsense=1"),
    ("", "-o size=z"),
    ("", "-o size=5"),
    ("", "-o compat=2.0"),
    ("compat=0.10", "-o lazy_refcounts=on"),
    ("", "-o lazy_refcounts=perhaps"),
    ("", "-t nonsense -o compat=1.1"),
    ("", "-o refcount_bits=3"),
    ("", "-o refcount_bits=0"),
    ("", "-o refcount_bits=128"),
    ("compat=0.10", "-o refcount_bits=8"),
    ("", "-o compat=0.10,refcount_bits=8"),
    ("refcount_bits=8", "-o compat=0.10"),
    ("extended_l2=on", "-o compat=0.10"),
    ("data_file=ext", "-o compat=0.10"),
    ("", "-o data_file=x"),
    ("", "-o data_file_raw=on"),
    ("data_file=ext", "-o data_file_raw=on"),
)


@pytest.mark.parametrize(("options", "line"), MISTAKES, ids=str)
def test_what_qemu_refuses_is_refused_in_its_words_and_changes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: str, line: str
) -> None:
    image = filled(tmp_path, options)
    before = image.read_bytes()
    theirs, ours, mine = both(image, line, capfd)
    assert ours == theirs
    assert ours[0] == 1
    assert mine.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("compat=0.10", "compat=1.1"),
        ("", "compat=0.10"),
        ("cluster_size=512", "compat=0.10"),
        ("", "refcount_bits=8"),
        ("refcount_bits=8", "compat=0.10,refcount_bits=16"),
        ("compat=0.10", "compat=1.1,refcount_bits=64"),
    ],
)
def test_it_shows_how_far_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: str, line: str
) -> None:
    theirs, ours, _ = both(filled(tmp_path, options), f"-p -o {line}", capfd)
    assert ours[1].splitlines() == theirs[1].splitlines()
    assert len(ours[1].splitlines()) >= 3


def test_the_options_of_a_format_are_listed_without_an_image(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert img.main(["qemu-img", "amend", "-f", "qcow2", "-o", "help"]) == 0
    ours = capfd.readouterr().out
    assert ours == qemu_done("qemu-img", "amend", "-f", "qcow2", "-o", "help")
