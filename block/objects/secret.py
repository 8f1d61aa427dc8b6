# SPDX-License-Identifier: GPL-2.0-only
"""Secrets: passwords and keys that images refer to by a name (crypto/secret.c, secret_common.c).

    -object secret,id=s,file=password.txt           the bytes of a file
    -object secret,id=s,data=letmein                the text itself, which `ps` shows to all
    ...,format=base64                               the text stands for other bytes
    ...,keyid=master,iv=BASE64                      and is encrypted with another secret

So a password stands neither in an image's name nor in the options that `info` prints.

R1  What a secret holds is read when it is made. It is never printed, and in no error.
R2  `keyid` names a secret of 32 bytes, the key; the data are AES-256-CBC with PKCS#7 padding.
Secrets come and go in the main thread; a driver looks one up while it opens an image.
"""

from __future__ import annotations

import errno
import re

from block.core.error import BlockError
from block.core.options import invalid

FORMATS = ("raw", "base64")
BLOCK = 16
KEY_LENGTH = 32

secrets: dict[str, Secret] = {}  # by id; the main thread's


class Secret:
    """One secret (QCryptoSecret)."""

    __slots__ = ("_data", "name")

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self._data = data

    def __repr__(self) -> str:
        return f"<Secret {self.name}>"  # R1

    def unref(self) -> None:
        """The person's object goes; nobody finds the secret any more."""
        del secrets[self.name]


def secret_create(
    name: str,
    data: str | None = None,
    file: str | None = None,
    format: str = "raw",
    keyid: str | None = None,
    iv: str | None = None,
) -> Secret:
    """Makes the object `secret` (qcrypto_secret_complete).

    Exactly one of `data` and `file`. Raises BlockError(EINVAL), with QEMU's words.
    """
    if name in secrets:
        raise invalid(f"A secret with id '{name}' already exists")
    content = _load(data, file)
    if format not in FORMATS:
        raise invalid(f"Parameter 'format' does not accept value '{format}'")
    if format == "base64":
        content = base64_decode(content)
    if keyid is not None:
        content = _decrypt(content, keyid, iv)
    secrets[name] = made = Secret(name, content)
    return made


def lookup(name: str) -> bytes:
    """What a secret holds (qcrypto_secret_lookup). Raises BlockError(EINVAL)."""
    if name not in secrets:
        raise invalid(f"No secret with id '{name}'")
    return secrets[name]._data


def lookup_as_utf8(name: str) -> bytes:
    """What a secret holds, which must be text (qcrypto_secret_lookup_as_utf8)."""
    data = lookup(name)
    try:
        data.decode()
    except UnicodeDecodeError:
        valid = False
    else:
        valid = b"\0" not in data  # C would see the text end there
    if not valid:
        raise invalid(f"Data from secret {name} is not valid UTF-8")
    return data


def _load(data: str | None, file: str | None) -> bytes:
    """The content as it was given (qcrypto_secret_load_data)."""
    if file is not None and data is not None:
        raise invalid("'file' and 'data' are mutually exclusive")
    if data is not None:
        return data.encode(errors="surrogateescape")
    if file is None:
        raise invalid("Either 'file' or 'data' must be provided")
    try:
        with open(file, "rb") as stream:
            return stream.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        number = getattr(error, "errno", None) or errno.EINVAL
        message = f"Unable to read {file}: Failed to open file “{file}”: {reason}"
        raise BlockError(number, message) from None


def base64_decode(text: bytes) -> bytes:
    """The bytes that a text in base64 stands for; an incomplete end is dropped (qbase64_decode)."""
    import binascii

    if b"\0" in text:
        raise invalid("Base64 data contains embedded NUL characters")
    if re.search(rb"[^A-Za-z0-9+/=\n]", text):
        raise invalid("Base64 data contains invalid characters")
    digits = text.replace(b"\n", b"").split(b"=")[0]
    whole = len(digits) - (len(digits) % 4 == 1)
    return binascii.a2b_base64(digits[:whole] + b"=" * (-whole % 4))


def _decrypt(content: bytes, keyid: str, iv: str | None) -> bytes:
    """Decrypts with another secret (qcrypto_secret_decrypt, R2)."""
    from block.crypto.block_cipher import decrypt_cbc

    key = lookup(keyid)
    if len(key) != KEY_LENGTH:
        raise invalid("Key should be 32 bytes in length")
    if iv is None:
        raise invalid("IV is required to decrypt secret")
    start = base64_decode(iv.encode(errors="surrogateescape"))
    if len(start) != BLOCK:
        raise invalid(f"IV should be 16 bytes in length not {len(start)}")
    if not content or len(content) % BLOCK:
        raise invalid(f"Length {len(content)} must be a multiple of block size {BLOCK}")
    plain = decrypt_cbc(key, start, content)
    padding = plain[-1]
    if padding > BLOCK:
        raise invalid(f"Incorrect number of padding bytes ({padding}) found on decrypted data")
    return plain[: len(plain) - padding]
