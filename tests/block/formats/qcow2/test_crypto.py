# SPDX-License-Identifier: GPL-2.0-only
"""Encrypted images: all that a disk does, and headers that lie about keys."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import block
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.check import FIX_NOTHING, check
from block.core.error import BlockError
from block.core.registry import find_format
from block.core.vmstate import co_load, co_save
from block.core.wait import run_sync
from block.formats.qcow2.layout import EXT_CRYPTO
from block.ops.amend import amend
from block.ops.info import query_image_info
from tests.block.formats.qcow2.conftest import CLUSTER, SIZE, state_of
from tests.support.luks_images import make_qcow2, opened_qcow2, secret
from tests.support.qcow2_work import OurImage, Work
from tests.support.refusals import refused

KEY = {"encrypt.key-secret": "s"}


@pytest.fixture(autouse=True)
def _secrets() -> Iterator[None]:
    with secret(), secret("other", "another password"):
        yield


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty image, encrypted by LUKS."""
    path = tmp_path / "a.qcow2"
    make_qcow2(path, SIZE)
    return path


def refusal(path: Path, **options: str) -> str:
    return str(refused(path, "qcow2", options=options))


def faults(disk: BlockBackend) -> tuple[int, int]:
    """What a check finds: corruptions, leaks."""
    assert disk.bs is not None
    result = check(disk.bs, FIX_NOTHING)
    return result.corruptions, result.leaks


# -- the disk


@pytest.mark.parametrize(
    ("fmt", "options", "cluster"),
    [
        ("luks", {}, CLUSTER),
        ("aes", {}, CLUSTER),
        ("luks", {"cluster_size": 4096, "compat": "0.10"}, 4096),
        ("aes", {"cluster_size": 512}, 512),
        ("luks", {"extended_l2": True, "cluster_size": 16384}, 16384),
        ("luks", {"data_file": "data"}, CLUSTER),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_random_work_leaves_what_it_should(
    tmp_path: Path, fmt: str, options: dict[str, Any], cluster: int
) -> None:
    path = tmp_path / "a.qcow2"
    if "data_file" in options:
        options = {"data_file": os.fspath(tmp_path / "data")}
    size = min(SIZE, 1000 * cluster) - 512
    make_qcow2(path, size, fmt, **options)
    work = Work(cluster + len(fmt), size, cluster)
    OurImage(path, work, 2 if "compat" in options else 3, **KEY).work_on(250)
    with opened_qcow2(path) as again:
        assert faults(again) == (0, 0)


def test_what_is_below_may_have_another_key_or_none(tmp_path: Path) -> None:
    plain, middle, top = (tmp_path / name for name in ("plain", "middle", "top"))
    block.create(os.fspath(plain), "qcow2", SIZE)
    with block.open(os.fspath(plain), format="qcow2") as disk:
        disk.pwrite(0, b"p" * CLUSTER)
    make_qcow2(middle, SIZE, backing_file=os.fspath(plain), backing_fmt="qcow2")
    with opened_qcow2(middle) as disk:
        disk.pwrite(1000, b"m" * 100)
    with secret("s2", "a second"):
        keys = {"encrypt.key-secret": "s2", "encrypt.format": "luks", "encrypt.iter-time": 0}
        block.create(
            os.fspath(top), "qcow2", SIZE, **keys, backing_file=os.fspath(middle),
            backing_fmt="qcow2",
        )  # fmt: skip
        below = {"driver": "qcow2", "file.filename": os.fspath(middle), **KEY}
        options = {"encrypt.key-secret": "s2", **{f"backing.{n}": v for n, v in below.items()}}
        with block.open(os.fspath(top), format="qcow2", options=options) as disk:
            disk.pwrite(1050, b"t" * 10)
            seen = disk.pread(0, CLUSTER)
    expected = b"p" * 1000 + b"m" * 50 + b"t" * 10 + b"m" * 40
    assert seen == expected.ljust(CLUSTER, b"p")


def test_the_rest_of_a_new_cluster_is_written_too(image: Path) -> None:
    with opened_qcow2(image) as disk:
        disk.pwrite(CLUSTER + 512, b"x" * 512)
        assert disk.pread(CLUSTER, CLUSTER) == (bytes(512) + b"x" * 512).ljust(CLUSTER, b"\0")
        last = state_of(disk).file.bs.getlength()
    end = image.read_bytes()[last - CLUSTER :]
    assert all(any(end[at : at + 512]) for at in range(0, CLUSTER, 512))


@pytest.mark.parametrize("fmt", ["luks", "aes"])
def test_the_guests_data_are_not_in_the_file(tmp_path: Path, fmt: str) -> None:
    path = tmp_path / "a.qcow2"
    make_qcow2(path, SIZE, fmt)
    with opened_qcow2(path) as disk:
        disk.pwrite(0, b"do not read this" * 32)
    assert b"do not read this" not in path.read_bytes()


@pytest.mark.parametrize(("fmt", "alike"), [("luks", False), ("aes", True)])
def test_only_luks_goes_by_the_place_in_the_file(tmp_path: Path, fmt: str, alike: bool) -> None:
    path = tmp_path / "a.qcow2"
    make_qcow2(path, SIZE, fmt)
    with opened_qcow2(path, options={"discard": "unmap"}) as disk:
        disk.pwrite(0, b"x" * CLUSTER)
        first = path.read_bytes()
        disk.pwrite(CLUSTER, b"y" * CLUSTER)
        disk.pdiscard(0, CLUSTER)
        disk.pwrite(2 * CLUSTER, b"z" * CLUSTER)  # takes the place
        disk.pwrite(0, b"x" * CLUSTER)
        second = path.read_bytes()
    begin = first[-CLUSTER : -CLUSTER + 512]
    assert (begin in second) == alike


def test_a_wrong_password_of_the_old_way_is_not_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    make_qcow2(path, SIZE, "aes")
    with opened_qcow2(path) as disk:
        disk.pwrite(0, b"x" * 512)
    with opened_qcow2(path, "other") as disk:
        assert disk.pread(0, 512) != b"x" * 512


def test_nobody_is_told_where_the_data_are(image: Path) -> None:
    with opened_qcow2(image) as disk:
        disk.pwrite(0, b"x" * 512)
        disk.pwrite_zeroes(CLUSTER, CLUSTER)
        bs = disk.bs
        assert bs is not None
        assert bs.block_status(0, SIZE)[:3] == (
            f.BDRV_BLOCK_DATA | f.BDRV_BLOCK_ALLOCATED, CLUSTER, 0,
        )  # fmt: skip
        ret = bs.block_status(CLUSTER, CLUSTER)[0]
        assert ret & (f.BDRV_BLOCK_ZERO | f.BDRV_BLOCK_OFFSET_VALID) == f.BDRV_BLOCK_ZERO


def test_a_machines_state_is_encrypted_too(image: Path) -> None:
    with opened_qcow2(image) as disk:
        bs = disk.bs
        assert bs is not None
        run_sync(bs.aio_context, lambda: co_save(bs, 0, [memoryview(b"state!" * 256)]))
        seen = bytearray(1536)
        run_sync(bs.aio_context, lambda: co_load(bs, 0, [memoryview(seen)]))
        assert seen == b"state!" * 256
        with pytest.raises(BlockError, match=r"takes whole sectors only$"):
            run_sync(bs.aio_context, lambda: co_save(bs, 7, [memoryview(b"x" * 512)]))
    assert b"state!" not in image.read_bytes()


def test_such_an_image_takes_no_compressed_clusters(image: Path) -> None:
    with opened_qcow2(image) as disk:
        with pytest.raises(BlockError) as refused:
            disk.pwrite(0, bytes(CLUSTER), f.REQ_WRITE_COMPRESSED)
        assert refused.value.errno == errno.ENOTSUP


def test_preallocated_clusters_read_as_noise_and_nobody_trusts_them(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    make_qcow2(path, SIZE, preallocation="metadata")
    with opened_qcow2(path) as disk:
        assert disk.bs is not None
        assert disk.bs.drv is not None
        assert not disk.bs.drv.has_zero_init(disk.bs)
        assert any(disk.pread(0, 512))


def test_what_a_disk_grows_by_reads_as_zeroes(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    make_qcow2(path, SIZE - 4096)
    with opened_qcow2(path) as disk:
        disk.pwrite(SIZE - 8192, b"e" * 4096)
        disk.truncate(2 * SIZE)
        assert disk.pread(SIZE - 8192, 16384) == (b"e" * 4096).ljust(16384, b"\0")


def test_measure_counts_the_clusters_of_the_luks_header() -> None:
    driver = find_format("qcow2")
    plain = driver.measure({"size": SIZE}, None)
    keys = {"encrypt.format": "luks", "encrypt.key-secret": "s"}
    encrypted = driver.measure({"size": SIZE, **keys}, None)
    assert {name: encrypted[name] - plain[name] for name in plain} == dict.fromkeys(plain, 2 << 20)


def test_info_tells_how_it_is_encrypted(image: Path) -> None:
    with block.open(os.fspath(image), format="qcow2", options=KEY, read_only=True) as disk:
        assert disk.bs is not None
        info = query_image_info(disk.bs)
    assert info["encrypted"] is True
    specific = info["format-specific"]
    assert isinstance(specific, dict)
    assert specific["data"]["encrypt"]["format"] == "luks"
    assert specific["data"]["encrypt"]["cipher-alg"] == "aes-256"


def test_the_luks_header_counts_for_a_check(image: Path) -> None:
    with opened_qcow2(image) as disk:
        assert faults(disk) == (0, 0)
    data = bytearray(image.read_bytes())
    at = data.index(struct.pack(">II", EXT_CRYPTO, 16))
    data[at : at + 8] = struct.pack(">II", 0x12345678, 16)  # nobody refers to it now
    struct.pack_into(">I", data, 32, 0)
    image.write_bytes(data)
    with block.open(os.fspath(image), format="qcow2") as disk:
        assert faults(disk) == (0, 32)


def test_a_header_written_anew_keeps_the_way_to_the_keys(image: Path) -> None:
    with opened_qcow2(image) as disk:
        disk.pwrite(0, b"x" * 512)
        assert disk.bs is not None
        assert disk.bs.drv is not None
        disk.bs.drv.change_backing_file(disk.bs, "", "")
    with opened_qcow2(image) as disk:
        assert disk.pread(0, 512) == b"x" * 512


def test_a_password_can_be_changed(image: Path) -> None:
    with opened_qcow2(image) as disk:
        disk.pwrite(0, b"x" * 512)
        assert disk.bs is not None
        keys = {"encrypt.new-secret": "other", "encrypt.iter-time": 0}
        add: dict[str, object] = {"encrypt.state": "active", **keys}
        amend(disk.bs, add, lambda done, total: None)
        erase: dict[str, object] = {"encrypt.state": "inactive", "encrypt.old-secret": "s"}
        amend(disk.bs, erase, lambda done, total: None)
        assert faults(disk) == (0, 0)
    with opened_qcow2(image, "other") as disk:
        assert disk.pread(0, 512) == b"x" * 512
    assert refusal(image, **KEY) == "Invalid password, cannot unlock any keyslot"


@pytest.mark.parametrize(
    ("fmt", "complaint"),
    [
        (None, "Can't amend encryption options - encryption not present"),
        ("aes", "Only LUKS encryption options can be amended"),
    ],
)
def test_only_luks_has_slots_to_change(tmp_path: Path, fmt: str | None, complaint: str) -> None:
    path = tmp_path / "a.qcow2"
    if fmt is None:
        block.create(os.fspath(path), "qcow2", SIZE)
    else:
        make_qcow2(path, SIZE, fmt)
    with opened_qcow2(path) as disk:
        assert disk.bs is not None
        with pytest.raises(BlockError) as refused:
            amend(disk.bs, {"encrypt.state": "active"}, lambda done, total: None)
    assert str(refused.value) == complaint


# -- what is refused


def test_options_must_fit_the_header(image: Path, tmp_path: Path) -> None:
    plain, old = tmp_path / "plain", tmp_path / "old"
    block.create(os.fspath(plain), "qcow2", SIZE)
    make_qcow2(old, SIZE, "aes")
    assert refusal(image) == "Parameter 'encrypt.key-secret' is required for cipher"
    assert refusal(image, **{"encrypt.key-secret": "nobody"}) == "No secret with id 'nobody'"
    wrong = "Invalid password, cannot unlock any keyslot"
    assert refusal(image, **{"encrypt.key-secret": "other"}) == wrong
    mixed = "Header reported '{}' encryption format but options specify '{}'"
    assert refusal(image, **{"encrypt.format": "aes"}) == mixed.format("luks", "aes")
    assert refusal(old, **{"encrypt.format": "luks"}) == mixed.format("aes", "luks")
    none = "No encryption in image header, but options specified format 'luks'"
    assert refusal(plain, **{"encrypt.format": "luks"}) == none


LIES = [
    (None, None, "Missing CRYPTO header for crypt method 2"),
    (32, (">I", 1), "CRYPTO header extension only expected with LUKS encryption method"),
    (32, (">I", 0), "CRYPTO header extension only expected with LUKS encryption method"),
    (4, (">I", 12), "CRYPTO header extension size 12, but expected size 16"),
    (
        8,
        (">Q", 12345),
        "Encryption header offset '12345' is not a multiple of cluster size '65536'",
    ),
    (8, (">Q", 1 << 63), "Request for data outside of extension header"),
    (16, (">Q", 591), "Request for data outside of extension header"),
    (16, (">Q", (1 << 64) - 1), "Request for data outside of extension header"),
    (16, (">Q", 4096), "Request for data outside of extension header"),
]


@pytest.mark.parametrize(("where", "what", "complaint"), LIES)
def test_a_header_that_lies_is_refused(
    image: Path, where: int | None, what: tuple[str, int] | None, complaint: str
) -> None:
    data = bytearray(image.read_bytes())
    extension = data.index(struct.pack(">II", EXT_CRYPTO, 16))
    if where is None or what is None:
        struct.pack_into(">I", data, extension, 0x12345678)
    else:
        struct.pack_into(what[0], data, where if where == 32 else extension + where, what[1])
    image.write_bytes(data)
    assert refusal(image, **KEY).startswith(complaint)


def test_an_unknown_way_to_encrypt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE)
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, 32, 3)
    path.write_bytes(data)
    assert refusal(path).startswith("Unsupported encryption method 3")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"encryption": "on"}, "Parameter 'encrypt.key-secret' is required for cipher"),
        ({"encrypt.format": "luks"}, "Parameter 'encrypt.key-secret' is required for cipher"),
        ({"encrypt.format": "rot13"}, "Parameter 'format' does not accept value 'rot13'"),
        ({"encrypt.key-secret": "s"}, "Parameter 'encrypt.format' is missing"),
        (
            {"encrypt.format": "aes", "encrypt.key-secret": "s", "encrypt.hash-alg": "sha1"},
            "Parameter 'encrypt.hash-alg' is unexpected",
        ),
        (
            {"encrypt.format": "luks", "encrypt.key-secret": "s", "encrypt.cipher-alg": "x"},
            "Parameter 'cipher-alg' does not accept value 'x'",
        ),
        (
            {"encrypt.format": "aes", "encryption": "on"},
            "'encrypt.format' and its alias 'encryption' can't be used at the same time",
        ),
    ],
)
def test_options_that_cannot_be_leave_the_file_alone(
    tmp_path: Path, options: dict[str, str], complaint: str
) -> None:
    path = tmp_path / "precious"
    path.write_bytes(b"data of somebody")
    with pytest.raises(BlockError) as refused:
        block.create(os.fspath(path), "qcow2", SIZE, **options)
    assert str(refused.value) == complaint
    assert path.read_bytes() == b"data of somebody"
