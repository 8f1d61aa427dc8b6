# SPDX-License-Identifier: GPL-2.0-only
"""block/objects/secret.py: what a secret holds, and what QEMU says to one that cannot be."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from block.core.error import BlockError
from block.objects import secret as module
from block.objects.secret import base64_decode, lookup, lookup_as_utf8, secret_create

KEY = bytes(range(32))
IV = bytes(range(16))


@pytest.fixture(autouse=True)
def _no_secret_stays() -> Iterator[None]:
    yield
    for made in list(module.secrets.values()):
        made.unref()


def encrypted(text: bytes) -> str:
    """As `openssl enc -aes-256-cbc` does it, with its padding."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    padding = 16 - len(text) % 16
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(IV)).encryptor()
    data = encryptor.update(text + bytes([padding]) * padding) + encryptor.finalize()
    return base64.b64encode(data).decode()


def test_data_is_the_text_itself() -> None:
    secret_create("s", "pässword")
    assert lookup("s") == lookup_as_utf8("s") == "pässword".encode()


def test_a_file_is_taken_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"with a newline\n\xff")
    secret_create("s", file=os.fspath(tmp_path / "key"))
    assert lookup("s") == b"with a newline\n\xff"


def test_base64_stands_for_other_bytes() -> None:
    secret_create("s", "AP8Q", format="base64")
    assert lookup("s") == b"\x00\xff\x10"


@pytest.mark.parametrize("text", [b"", b"x", b"exactly 16 bytes", b"seventeen bytes !"])
def test_a_secret_can_be_encrypted_with_another(text: bytes) -> None:
    secret_create("master", base64.b64encode(KEY).decode(), format="base64")
    iv = base64.b64encode(IV).decode()
    secret_create("s", encrypted(text), format="base64", keyid="master", iv=iv)
    assert lookup("s") == text


def test_a_secret_is_gone_when_its_object_goes() -> None:
    made = secret_create("s", "x")
    made.unref()
    with pytest.raises(BlockError, match=r"^No secret with id 's'$"):
        lookup("s")


def test_a_secret_is_not_printed() -> None:
    assert "hush" not in repr(secret_create("s", "hush"))


@pytest.mark.parametrize(
    ("text", "data"),
    [(b"QUJD", b"ABC"), (b"QU\nJD\n", b"ABC"), (b"QQ==", b"A"), (b"QUJDR", b"ABC"), (b"x", b"")],
)
def test_base64_is_read_as_qemu_reads_it(text: bytes, data: bytes) -> None:
    assert base64_decode(text) == data


ZEROES = base64.b64encode(bytes(16)).decode()
ONES = base64.b64encode(b"\1" * 16).decode()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "Either 'file' or 'data' must be provided"),
        ({"data": "x", "file": "y"}, "'file' and 'data' are mutually exclusive"),
        (
            {"file": "/nowhere"},
            "Unable to read /nowhere: Failed to open file “/nowhere”: No such file or directory",
        ),
        ({"data": "x", "format": "hex"}, "Parameter 'format' does not accept value 'hex'"),
        ({"data": "?", "format": "base64"}, "Base64 data contains invalid characters"),
        ({"data": "x", "keyid": "nobody"}, "No secret with id 'nobody'"),
        ({"data": "x", "keyid": "short"}, "Key should be 32 bytes in length"),
        ({"data": "x", "keyid": "master"}, "IV is required to decrypt secret"),
        (
            {"data": "x", "keyid": "master", "iv": "AAAA"},
            "IV should be 16 bytes in length not 3",
        ),
        (
            {"data": "x", "keyid": "master", "iv": ZEROES},
            "Length 1 must be a multiple of block size 16",
        ),
        (
            {"data": ONES, "keyid": "master", "iv": ZEROES, "format": "base64"},
            "Incorrect number of padding bytes (182) found on decrypted data",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_qemus_words(given: dict[str, Any], complaint: str) -> None:
    secret_create("master", base64.b64encode(KEY).decode(), format="base64")
    secret_create("short", "too short")
    with pytest.raises(BlockError) as refused:
        secret_create("s", **given)
    assert str(refused.value) == complaint
    assert "s" not in module.secrets


@pytest.mark.parametrize("data", ["/w==", "QQBC"])
def test_a_password_must_be_text(data: str) -> None:
    secret_create("s", data, format="base64")
    with pytest.raises(BlockError, match=r"^Data from secret s is not valid UTF-8$"):
        lookup_as_utf8("s")
