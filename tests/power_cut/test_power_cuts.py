# SPDX-License-Identifier: GPL-2.0-only
"""The power goes after every single write to the file: the image opens, has leaks at most, and
holds all that was flushed. Then the same where the disk had not yet written what nobody flushed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import block
from block.core import flags as f
from block.core.check import check
from block.core.open import open_backend
from tests.power_cut.work import SIZE, Recorded
from tests.support.qemu_tools import qemu

SMALL_CACHE = {"l2-cache-size": 1024, "l2-cache-entry-size": 512}
IMAGES = {
    "qcow2": ("qcow2", {"cluster_size": 65536}, {}),
    "qcow2-4k": ("qcow2", {"cluster_size": 4096}, {}),
    "qcow2-512": ("qcow2", {"cluster_size": 512}, SMALL_CACHE),
    "qcow2-packed": ("qcow2", {"cluster_size": 4096, "packed": True}, {}),
    "qcow2-packed-512": ("qcow2", {"cluster_size": 512, "packed": True}, SMALL_CACHE),
    "qed": ("qed", {"cluster_size": 4096, "table_size": 2}, {}),
    "vmdk": ("vmdk", {}, {}),
    "vmdk-zeroed": ("vmdk", {"zeroed_grain": True}, {}),
}
# A read of the whole disk unpacks 2,000 clusters.
MARKS = {"qcow2-packed-512": pytest.mark.full}
CLEAN, LEAKS = 0, 3


def record(folder: Path, name: str, backed: bool, seed: int) -> Recorded:
    fmt, create, runtime = IMAGES[name]
    steps = 10 if name == "qcow2-packed-512" else 25
    return Recorded(folder, fmt, seed, steps, backed=backed, runtime=runtime, **create)


def judge(path: Path, recorded: Recorded, at: int) -> None:
    """Opens what a power cut left, as a machine does that starts again; then checks it."""
    with block.open(os.fspath(path), format=recorded.fmt, cache="unsafe") as disk:
        recorded.safe.compare(at, disk.pread(0, SIZE))
    flags = f.BDRV_O_CHECK | f.BDRV_O_NO_FLUSH
    with open_backend(os.fspath(path), options={"driver": recorded.fmt}, flags=flags) as disk:
        assert disk.bs is not None
        found = check(disk.bs, 0)
    assert (found.corruptions, found.check_errors) == (0, 0), f"behind entry {at}"


@pytest.mark.parametrize("lossy", [False, True], ids=["in order", "late writes lost"])
@pytest.mark.parametrize(
    "backed", [False, pytest.param(True, marks=pytest.mark.full)], ids=["alone", "overlay"]
)
@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in IMAGES])
def test_a_power_cut_anywhere_leaves_leaks_at_most_and_all_that_was_flushed(
    tmp_path: Path, name: str, backed: bool, lossy: bool
) -> None:
    recorded = record(tmp_path, name, backed, seed=7 + backed)
    cuts = 0
    for path, at in recorded.images(lossy):
        judge(path, recorded, at)
        cuts += 1
    assert cuts > 40


@pytest.mark.parametrize("name", IMAGES)
def test_the_whole_log_makes_the_image_that_was_written(tmp_path: Path, name: str) -> None:
    recorded = record(tmp_path, name, backed=False, seed=3)
    *_, (path, at) = recorded.images(lossy=False)
    assert at == len(recorded.log.entries)
    length = min(len(recorded.after), path.stat().st_size)
    assert path.read_bytes()[:length] == recorded.after[:length]
    assert not any(recorded.after[length:])


@pytest.mark.full
@pytest.mark.parametrize("name", IMAGES)
def test_qemu_agrees_about_some_of_them(tmp_path: Path, name: str) -> None:
    recorded = record(tmp_path, name, backed=True, seed=11)
    for path, at in recorded.images(lossy=True):
        if at % 9 == 0:
            done = qemu("qemu-img", "check", "-f", recorded.fmt, path)
            assert done.returncode in (CLEAN, LEAKS), done.stdout + done.stderr
            plain = tmp_path / "plain.raw"
            done = qemu("qemu-img", "convert", "-f", recorded.fmt, "-O", "raw", path, plain)
            assert done.returncode == 0, done.stderr
            recorded.safe.compare(at, plain.read_bytes())
