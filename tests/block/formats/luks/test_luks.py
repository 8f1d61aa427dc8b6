# SPDX-License-Identifier: GPL-2.0-only
"""The driver `luks`: requests, sizes, and who may use the file meanwhile."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import block
from block.core import flags as f
from block.core.error import BlockError
from block.core.reopen import set_read_only
from block.ops import amend
from block.ops.create import Request, img_create
from block.ops.info import query_image_info
from tests.support import needs
from tests.support.luks_images import make_volume, opened, secret

SIZE = (2 << 20) + 5 * 512
PAYLOAD = 2068480


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("block.crypto.luks.keyslot.count_iters", lambda alg, length: 1)
    with secret(), secret("other", "another password"):
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A new volume."""
    image = tmp_path / "disk.luks"
    make_volume(image, SIZE)
    return image


def test_what_is_written_reads_back_and_is_not_in_the_file(path: Path) -> None:
    data = random.Random(1).randbytes(SIZE)
    with opened(path) as disk:
        assert disk.length == SIZE
        disk.pwrite(0, data)
        assert disk.pread(0, SIZE) == data
    inside = path.read_bytes()
    assert len(inside) == PAYLOAD + SIZE
    assert all(data[at : at + 16] not in inside for at in range(0, SIZE, 100_000))
    with opened(path, read_only=True) as disk:
        assert disk.pread(0, SIZE) == data


@pytest.mark.parametrize("offset", [0, 511, 512, 1000, (1 << 20) - 7, SIZE - 700])
@pytest.mark.parametrize("nbytes", [1, 511, 512, 513, 70_000, (1 << 20) + 1000])
def test_a_request_of_any_size_changes_its_own_bytes_only(
    path: Path, offset: int, nbytes: int
) -> None:
    model = bytearray(random.Random(2).randbytes(SIZE))
    nbytes = min(nbytes, SIZE - offset)
    with opened(path, cache="unsafe") as disk:
        disk.pwrite(0, model)
        model[offset : offset + nbytes] = b"\xa5" * nbytes
        disk.pwrite(offset, b"\xa5" * nbytes)
        assert disk.pread(0, SIZE) == model
        assert disk.pread(offset, nbytes) == b"\xa5" * nbytes


@pytest.mark.parametrize("key_secret", ["", ',"key-secret":"nobody has it"'])
def test_an_overlay_is_made_by_who_does_not_know_the_password(path: Path, key_secret: str) -> None:
    file = f'{{"driver":"file","filename":"{path}"}}'
    backing = f'json:{{"driver":"luks","file":{file}{key_secret}}}'
    overlay = os.fspath(path.with_name("overlay"))
    img_create(Request(overlay, "qcow2", backing=backing, backing_fmt="luks"), lambda line: None)
    with block.open(overlay, format="qcow2", options={"backing": None}) as disk:
        assert disk.length == SIZE


def test_what_the_guest_wrote_is_left_as_it_is(path: Path) -> None:
    data = bytearray(b"mine" * 128)
    with opened(path) as disk:
        disk.pwrite(0, [memoryview(data)])
    assert data == b"mine" * 128


def test_equal_sectors_do_not_look_equal(path: Path) -> None:
    with opened(path) as disk:
        disk.pwrite(0, bytes(1024))
    inside = path.read_bytes()[PAYLOAD:]
    assert inside[:512] != inside[512:1024]


def test_zeroes_are_written_as_data(path: Path) -> None:
    with opened(path) as disk:
        disk.pwrite(0, b"\xff" * 4096)
        disk.pwrite_zeroes(512, 1024)
        assert disk.pread(0, 4096) == b"\xff" * 512 + bytes(1024) + b"\xff" * 2560


def test_a_volume_grows_and_shrinks_behind_its_header(path: Path) -> None:
    with opened(path) as disk:
        disk.truncate(SIZE + 512)
        assert disk.length == SIZE + 512
        disk.truncate(512, exact=True)
        assert disk.length == 512
    assert path.stat().st_size == PAYLOAD + 512


def test_a_file_that_ends_before_the_payload_is_refused(path: Path) -> None:
    os.truncate(path, PAYLOAD - 512)
    with pytest.raises(BlockError, match=r"The file ends before the payload begins$"):
        opened(path)


def test_the_format_is_seen_by_its_first_bytes(path: Path) -> None:
    with block.open(os.fspath(path), options={"key-secret": "s"}) as disk:
        assert disk.bs is not None
        assert disk.bs.drv is not None
        assert disk.bs.drv.format_name == "luks"


@pytest.mark.parametrize(
    ("key_secret", "complaint"),
    [
        (None, "Parameter 'key-secret' is required for cipher"),
        ("nobody", "No secret with id 'nobody'"),
        ("other", "Invalid password, cannot unlock any keyslot"),
    ],
)
def test_without_the_password_nothing_opens(
    path: Path, key_secret: str | None, complaint: str
) -> None:
    with pytest.raises(BlockError) as refused:
        opened(path, key_secret)
    assert str(refused.value) == complaint


def test_info_says_that_it_is_encrypted(path: Path) -> None:
    with opened(path, read_only=True) as disk:
        assert disk.bs is not None
        info = query_image_info(disk.bs)
    assert info["encrypted"] is True
    assert info["virtual-size"] == SIZE


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"key_secret": "nobody"}, "No secret with id 'nobody'"),
        ({"cipher_mode": "foo"}, "Parameter 'cipher-mode' does not accept value 'foo'"),
        ({"hash_alg": "foo"}, "Parameter 'hash-alg' does not accept value 'foo'"),
        ({"cipher_alg": "3des"}, "Algorithm '3des' not supported"),
        ({"preallocation": "foo"}, "Parameter 'preallocation' does not accept value 'foo'"),
    ],
)
def test_options_that_cannot_be_leave_the_file_alone(
    tmp_path: Path, how: dict[str, str], complaint: str
) -> None:
    path = tmp_path / "precious"
    path.write_bytes(b"data of somebody")
    with pytest.raises(BlockError) as refused:
        make_volume(path, SIZE, **how)
    assert str(refused.value) == complaint
    assert path.read_bytes() == b"data of somebody"


def test_a_disk_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BlockError, match=r"^The requested file size is too large$"):
        make_volume(tmp_path / "a", (1 << 63) - 512)


def test_preallocation_is_of_the_payload_too(tmp_path: Path) -> None:
    make_volume(tmp_path / "a", 1 << 20, preallocation="full")
    assert (tmp_path / "a").stat().st_blocks * 512 >= PAYLOAD + (1 << 20)


def test_measure_counts_the_header_and_all_of_the_disk(path: Path) -> None:
    from block.formats.luks.create import measure

    assert measure({"size": 1 << 20, "key-secret": "s"}, None) == {
        "required": 3117056, "fully-allocated": 3117056,
    }  # fmt: skip
    with opened(path) as disk:
        assert measure({"key-secret": "s"}, disk.bs)["required"] == PAYLOAD + SIZE


def test_an_open_volume_becomes_read_only_and_writable_again(path: Path) -> None:
    with opened(path) as disk:
        assert disk.bs is not None
        assert disk.bs.file is not None
        disk.pwrite(0, b"x" * 512)
        disk.set_perm(f.BLK_PERM_CONSISTENT_READ, f.BLK_PERM_ALL)
        set_read_only(disk.bs, True)
        assert (disk.bs.read_only, disk.bs.file.bs.read_only) == (True, True)
        assert disk.pread(0, 512) == b"x" * 512
        set_read_only(disk.bs, False)
        disk.set_perm(f.BLK_PERM_CONSISTENT_READ | f.BLK_PERM_WRITE, f.BLK_PERM_ALL)
        disk.pwrite(512, b"y" * 512)
    with opened(path, read_only=True) as disk:
        assert disk.pread(0, 1024) == b"x" * 512 + b"y" * 512


def test_two_nodes_share_one_volume_as_they_share_a_raw_file(path: Path) -> None:
    with opened(path, share=True) as one, opened(path, share=True) as two:
        one.pwrite(4096, b"x" * 512)
        assert two.pread(4096, 512) == b"x" * 512


@needs.linux("OFD locks")
def test_passwords_are_changed_alone_with_the_file(path: Path) -> None:
    wanted: dict[str, object] = {"state": "active", "new-secret": "other", "iter-time": 0}
    with opened(path) as disk:
        assert disk.bs is not None
        with opened(path, share=True, read_only=True), pytest.raises(BlockError, match="lock"):
            amend.amend(disk.bs, dict(wanted), lambda done, total: None)
        amend.amend(disk.bs, dict(wanted), lambda done, total: None)
        disk.pwrite(0, b"x" * 512)
    with opened(path, "other") as disk:
        assert disk.pread(0, 512) == b"x" * 512
