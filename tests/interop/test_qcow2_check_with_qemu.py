# SPDX-License-Identifier: GPL-2.0-only
"""Checks of qcow2 images, ours and `qemu-img check`: equal findings, and each is content with
what the other has repaired."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

import block
from block.core.check import FIX_ERRORS, FIX_LEAKS, BdrvCheckResult
from tests.support.qcow2_damage import (
    CLUSTER,
    DAMAGES,
    SIZE,
    Image,
    counts,
    make_damaged,
    run_check,
)
from tests.support.qemu_tools import holds, is_clean, qemu, qemu_done

pytestmark = pytest.mark.full

ALL = FIX_LEAKS | FIX_ERRORS
QEMU_GIVES_UP = {
    # It refuses to write where the spoilt table itself points to.
    "reserved bits in the refcount table",
    # It marks the image as corrupt, and then may not write.
    "a refcount block at an odd place",
}


def qemu_check(path: Path, *words: str) -> dict[str, int]:
    """What `qemu-img check` reports, without what stands there in words."""
    done = qemu("qemu-img", "check", "-f", "qcow2", "--output=json", *words, path)
    report = json.loads(done.stdout)
    return {key: value for key, value in report.items() if isinstance(value, int)}


def as_json(result: BdrvCheckResult) -> dict[str, int]:
    """Ours in the same form: what is 0 is left out, but for check errors."""
    report = {
        "image-end-offset": result.image_end_offset,
        "total-clusters": result.bfi.total_clusters,
        "allocated-clusters": result.bfi.allocated_clusters,
        "fragmented-clusters": result.bfi.fragmented_clusters,
        "compressed-clusters": result.bfi.compressed_clusters,
        "corruptions": result.corruptions,
        "leaks": result.leaks,
    }
    found = {key: value for key, value in report.items() if value}
    return {**found, "check-errors": result.check_errors}


def finds_the_same(path: Path) -> BdrvCheckResult:
    result, _ = run_check(path)
    assert as_json(result) == qemu_check(path)
    return result


@pytest.mark.parametrize("name", DAMAGES)
def test_both_find_the_same_and_mend_each_others_images(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.qcow2"
    damage, seen = DAMAGES[name], make_damaged(path, name)
    finds_the_same(path)
    run_check(path, ALL)
    finds_the_same(path)
    if damage.mended:
        is_clean(path, "qcow2")
        if damage.same_data:
            holds(path, seen, "qcow2")
    path.unlink()
    make_damaged(path, name)
    qemu("qemu-img", "check", "-f", "qcow2", "-r", "all", path)
    after = finds_the_same(path)
    mended_by_qemu = damage.mended and name not in QEMU_GIVES_UP
    assert (counts(after) == (0, 0, 0)) == mended_by_qemu


@pytest.mark.parametrize("name", ["an entry is gone", "a refcount is 0", "COPIED is missing"])
def test_both_say_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.qcow2"
    make_damaged(path, name)
    done = qemu("qemu-img", "check", "-f", "qcow2", path)
    said = (done.stdout + done.stderr).splitlines()
    _, lines = run_check(path)
    assert lines
    assert [line for line in said if line.startswith(("Leaked", "ERROR"))] == lines


KINDS = {
    "64k": "cluster_size=65536",
    "512-refcount1": "cluster_size=512,refcount_bits=1",
    "1k-refcount2": "cluster_size=1024,refcount_bits=2",
    "4k-refcount4": "cluster_size=4096,refcount_bits=4",
    "512-refcount64": "cluster_size=512,refcount_bits=64",
    "4k-refcount32": "cluster_size=4096,refcount_bits=32",
    "v2": "compat=0.10",
    "lazy": "lazy_refcounts=on",
}


def make_by_qemu(path: Path, options: str, compressed: bool) -> bytes:
    """An image full of random pieces, written by qemu-img convert; returns its data."""
    rng = random.Random(options)
    data = bytearray(SIZE)
    for _ in range(25):
        offset = rng.randrange(SIZE - 70000)
        piece = rng.choice([rng.randbytes(3000), b"text " * 9000])
        data[offset : offset + len(piece)] = piece
    raw = path.with_suffix(".raw")
    raw.write_bytes(data)
    words = ["-c"] if compressed else []
    qemu_done("qemu-img", "convert", *words, "-f", "raw", "-O", "qcow2", "-o", options, raw, path)
    return bytes(data)


# Several compressed clusters share one of the file: narrow refcounts cannot count them.
COMPRESSED_KINDS = sorted(KINDS.keys() - {"512-refcount1", "1k-refcount2"})


@pytest.mark.parametrize(
    ("kind", "compressed"),
    [*((kind, False) for kind in KINDS), *((kind, True) for kind in COMPRESSED_KINDS)],
)
def test_images_by_qemu_are_counted_alike_and_rebuilt(
    tmp_path: Path, kind: str, compressed: bool
) -> None:
    path = tmp_path / "a.qcow2"
    data = make_by_qemu(path, KINDS[kind], compressed)
    assert counts(finds_the_same(path)) == (0, 0, 0)
    image = Image(path)
    image.put(image.get(48), 0)
    image.save()
    finds_the_same(path)
    run_check(path, ALL)
    assert counts(finds_the_same(path)) == (0, 0, 0)
    holds(path, data, "qcow2")


def make_with_snapshots(path: Path) -> None:
    """Two snapshots that share data with the disk, and a bitmap."""
    qemu_done("qemu-img", "create", "-f", "qcow2", path, str(SIZE))
    for number in range(3):
        write = f"write -P {number + 1} {number * 3}M 2M"
        qemu_done("qemu-io", "-f", "qcow2", "-c", write, path)
        if number < 2:
            qemu_done("qemu-img", "snapshot", "-c", f"s{number}", path)
    qemu_done("qemu-img", "bitmap", "--add", "--enable", "-f", "qcow2", path, "b0")
    qemu_done("qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 1M", path)


def test_snapshots_and_bitmaps_are_no_leaks(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    make_with_snapshots(path)
    result = finds_the_same(path)
    assert counts(result) == (0, 0, 0)


def test_a_repair_keeps_snapshots_and_bitmaps(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    make_with_snapshots(path)
    image = Image(path)
    image.put(image.get(48), 0)
    image.save()
    finds_the_same(path)
    result, lines = run_check(path, ALL)
    assert "Rebuilding refcount structure" in lines
    assert counts(result) == counts(finds_the_same(path)) == (0, 0, 0)
    info = qemu_done("qemu-img", "info", "-f", "qcow2", path)
    assert "b0" in info
    assert "s1" in info
    qemu_done("qemu-img", "bitmap", "--remove", "-f", "qcow2", path, "b0")
    qemu_done("qemu-img", "snapshot", "-a", "s0", path)
    qemu_done("qemu-io", "-f", "qcow2", "-c", "read -P 1 0 2M", path)
    is_clean(path, "qcow2")


def test_a_flag_on_what_a_snapshot_shares_is_found_by_both(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    make_with_snapshots(path)
    image = Image(path)
    l1 = image.get(40)
    l2 = image.get(l1) & ~(1 << 63)
    at = l2 + 8 * (3 << 20 >> 16)
    image.put(at, image.get(at) | 1 << 63)
    image.save()
    assert finds_the_same(path).corruptions == 1
    run_check(path, ALL)
    assert counts(finds_the_same(path)) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(12))
def test_random_damage_is_judged_alike(tmp_path: Path, seed: int) -> None:
    """Refcounts, L2 entries and flags at random; then each repairs it, and the other looks."""
    rng = random.Random(seed)
    for repair_ours in (True, False):
        path = tmp_path / f"{repair_ours}.qcow2"
        make_damaged(path, "nothing")
        image = Image(path)
        for _ in range(rng.randrange(1, 8)):
            if rng.random() < 0.5:
                image.refcount(rng.randrange(15), rng.randrange(4))
            else:
                place = rng.randrange(5, 15) * CLUSTER
                flag = rng.choice([0, 1, 1 << 63])
                image.entry(rng.randrange(24), rng.choice([0, place]) | flag)
        image.save()
        finds_the_same(path)
        if repair_ours:
            run_check(path, ALL)
        else:
            qemu("qemu-img", "check", "-f", "qcow2", "-r", "all", path)
        assert counts(finds_the_same(path)) == (0, 0, 0)


def test_a_dirty_image_of_qemu_is_repaired_by_opening_it(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    data = make_by_qemu(path, KINDS["lazy"], compressed=False)
    crash = "write -P 7 0 64k"
    qemu("qemu-io", "-f", "qcow2", "-c", crash, "-c", "sigraise 9", path)
    assert path.read_bytes()[79] == 1, "QEMU has marked it as dirty"
    with block.open(os.fspath(path), format="qcow2") as disk:
        assert disk.pread(CLUSTER, SIZE - CLUSTER) == data[CLUSTER:]
    assert path.read_bytes()[79] == 0
    is_clean(path, "qcow2")
