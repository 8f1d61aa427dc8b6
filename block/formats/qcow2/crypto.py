# SPDX-License-Identifier: GPL-2.0-only
"""Encrypted images: LUKS within qcow2, and the old way with AES (encrypt.format).

    header.crypt_method   1: aes     AES-CBC by the guest's offset, the password is the key
                          2: luks    a LUKS header in clusters of its own, which a header
                                     extension names; data by their offset in the file

What is encrypted are the guest's data, sector by sector; tables and headers are not.

R1  Whatever reads or writes a data cluster comes through here. Zero clusters hold no data, and
    compressed ones are never encrypted: such images take none.
R2  A sector of a new cluster that nobody wrote must be written all the same: zeroes in the file
    would decrypt to noise. So the short cut for fresh clusters is closed (write.py, R4).
R3  By LUKS two clusters with the same data look different wherever they are. In the old way a
    cluster and its successor in a snapshot begin alike; so nobody should use it.
Who may call it: the main thread for opening and making; at home in the node's context else.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.error import BlockError, failed
from block.core.options import Option, invalid, parse_bool, parse_enum, take_options
from block.core.wait import run_sync
from block.crypto.options import (
    LUKS_AMEND_OPTS,
    LUKS_CREATE_OPTS,
    prefixed,
    take_luks_amend,
    take_luks_plan,
)
from block.formats.qcow2 import header
from block.formats.qcow2 import layout as lay
from block.formats.qcow2.alloc import alloc_clusters
from block.formats.qcow2.state import HOLES, ZEROES, refuse
from block.lean import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Any

    from block.core.iov import Iov
    from block.crypto.block import CryptoBlock
    from block.crypto.luks.amend import AmendOptions
    from block.crypto.luks.volume import LuksPlan
    from block.formats.qcow2.state import Qcow2State

PREFIX = "encrypt."
FORMATS = {"aes": lay.CRYPT_AES, "luks": lay.CRYPT_LUKS}
NAMES = {method: name for name, method in FORMATS.items()}

RUNTIME_OPTS = (
    Option("encrypt.format", "string", "Encrypt the image, format choices: 'aes', 'luks'"),
    Option(
        "encrypt.key-secret", "string", "ID of secret providing qcow2 AES key or LUKS passphrase"
    ),
)
CREATE_OPTS = (
    Option(
        "encryption",
        "bool",
        "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
    ),
    Option("encrypt.format", "string", "Encrypt the image, format choices: 'aes', 'luks'"),
    Option(
        "encrypt.key-secret", "string", "ID of secret providing qcow AES key or LUKS passphrase"
    ),
    *prefixed(PREFIX, LUKS_CREATE_OPTS[1:]),
)


# -- opening


def open_crypto(s: Qcow2State, taken: dict[str, Any], flags: int) -> None:
    """Finds the key of an encrypted image (in qcow2_do_open).

    Raises BlockError in QEMU's words where options, header and password do not fit.
    """
    method = s.crypt_method
    place = _header_place(s)
    check_format(s, taken["encrypt.format"])
    if method == lay.CRYPT_NONE:
        return
    s.bs.encrypted = True
    s.plain = False
    no_io = bool(flags & f.BDRV_O_NO_IO)
    if place is not None or method == lay.CRYPT_AES:
        s.crypto = _open(s, taken["encrypt.key-secret"], no_io)
    elif not no_io:
        raise header.refuse(s, f"Missing CRYPTO header for crypt method {method}")


def check_format(s: Qcow2State, wanted: str | None) -> None:
    """Raises where the options name another encryption than the header (in
    qcow2_update_options_prepare)."""
    method = s.crypt_method
    if method == lay.CRYPT_NONE and wanted is None:
        return
    if method == lay.CRYPT_NONE:
        raise invalid(f"No encryption in image header, but options specified format '{wanted}'")
    name = NAMES.get(method)
    if name is None:
        raise header.refuse(s, f"Unsupported encryption method {method}", "header.crypt_method")
    if wanted not in (None, name):
        raise invalid(f"Header reported '{name}' encryption format but options specify '{wanted}'")


def _open(s: Qcow2State, key_secret: str | None, no_io: bool) -> CryptoBlock:
    if s.crypt_method == lay.CRYPT_AES:
        from block.crypto.qcow import open_qcow

        return open_qcow(key_secret, PREFIX, no_io)
    from block.crypto.luks.volume import open_luks

    return open_luks(partial(read_header, s), key_secret, PREFIX, no_io)


def _header_place(s: Qcow2State) -> tuple[int, int] | None:
    """Where the LUKS header lies (offset, bytes), as the extension says; checked."""
    data = next((data for kind, data in s.extensions if kind == lay.EXT_CRYPTO), None)
    if data is None:
        return None
    if s.crypt_method != lay.CRYPT_LUKS:
        message = "CRYPTO header extension only expected with LUKS encryption method"
        raise header.refuse(s, message, f"header.crypt_method = {s.crypt_method}")
    if len(data) != lay.CRYPTO_PLACE.size:
        size = lay.CRYPTO_PLACE.size
        message = f"CRYPTO header extension size {len(data)}, but expected size {size}"
        raise header.refuse(s, message)
    place = lay.CRYPTO_PLACE.parse(data)
    if place.offset % s.cluster_size:
        message = (
            f"Encryption header offset '{place.offset}' is not a multiple of cluster size "
            f"'{s.cluster_size}'"
        )
        raise header.refuse(s, message)
    return place.offset, place.length


def header_clusters(s: Qcow2State) -> tuple[int, int]:
    """(offset, bytes) of the LUKS header, for whoever counts clusters; (0, 0): there is none."""
    return _header_place(s) or (0, 0)


def read_header(s: Qcow2State, offset: int, nbytes: int) -> bytes:
    """Reads from the LUKS header (qcow2_crypto_hdr_read_func)."""
    return s.file.pread(_within(s, offset, nbytes), nbytes)


def write_header(s: Qcow2State, offset: int, data: bytes) -> None:
    """Writes into the LUKS header (qcow2_crypto_hdr_write_func)."""
    s.file.pwrite(_within(s, offset, len(data)), data)


def _within(s: Qcow2State, offset: int, nbytes: int) -> int:
    """Where a part of the LUKS header is in the file. Its own fields may lie."""
    start, length = header_clusters(s)
    if offset + nbytes > length or start + length > f.MAX_LENGTH:
        raise header.refuse(s, "Request for data outside of extension header")
    return start + offset


# -- requests (R1)


def _counted_from(s: Qcow2State, host: int, offset: int, nbytes: int) -> int:
    """The offset that encryption goes by. The core asks for whole sectors; who keeps a machine's
    state must do so by himself."""
    if (offset | nbytes) % f.SECTOR_SIZE:
        message = "An encrypted image takes whole sectors only"
        raise BlockError(errno.EINVAL, message, s.bs.node_name, "qcow2", offset)
    return host if s.crypt_method == lay.CRYPT_LUKS else offset


def try_preadv(s: Qcow2State, host: int, offset: int, nbytes: int, qiov: Iov) -> int | None:
    """Reads a part of a data cluster at once, or declines; `offset` is the guest's."""
    from block.crypto import request

    assert s.crypto is not None
    at = _counted_from(s, host, offset, nbytes)
    return request.try_preadv(s.data, host, s.crypto, at, nbytes, qiov)


def co_preadv(s: Qcow2State, host: int, offset: int, nbytes: int, qiov: Iov) -> Awaitable[None]:
    """Reads a part of data clusters (qcow2_co_preadv_encrypted)."""
    from block.crypto import request

    assert s.crypto is not None
    at = _counted_from(s, host, offset, nbytes)
    return request.co_preadv(s.data, host, s.crypto, at, nbytes, qiov)


def co_pwritev(s: Qcow2State, host: int, offset: int, nbytes: int, qiov: Iov) -> Awaitable[None]:
    """Writes a part of data clusters."""
    from block.crypto import request

    assert s.crypto is not None
    at = _counted_from(s, host, offset, nbytes)
    return request.co_pwritev(s.data, host, s.crypto, at, nbytes, qiov)


def block_status(kind: int) -> int:
    """What is said of a cluster in an encrypted image: never where it is, as nobody can read
    it there."""
    if kind in ZEROES:
        return f.BDRV_BLOCK_ZERO
    return 0 if kind in HOLES else f.BDRV_BLOCK_DATA


# -- new images


class Plan:
    """What a new image is encrypted with; checked. `method` is for the header."""

    def __init__(self, options: dict[str, object]) -> None:
        fmt = _take_format(options)
        self.method = lay.CRYPT_NONE if fmt is None else FORMATS[fmt]
        self.luks: LuksPlan | None = None
        self.aes: CryptoBlock | None = None
        if self.method == lay.CRYPT_LUKS:
            self.luks = take_luks_plan(options, PREFIX)
        elif self.method == lay.CRYPT_AES:
            from block.crypto.qcow import open_qcow

            taken = take_options(options, RUNTIME_OPTS)
            self.aes = open_qcow(taken["encrypt.key-secret"], PREFIX)
            _refuse_rest(options, "Parameter '{}' is unexpected")
        else:
            _refuse_rest(options, "Parameter 'encrypt.format' is missing")

    @property
    def header_length(self) -> int:
        """How many bytes the LUKS header takes; 0 without one."""
        return 0 if self.luks is None else self.luks.payload_offset


def _take_format(options: dict[str, object]) -> str | None:
    """Which of FORMATS is wanted; `encryption=on` is an older name for one."""
    old, fmt = options.pop("encryption", None), options.pop("encrypt.format", None)
    if old is not None and parse_bool("encryption", old):
        if fmt is not None:
            message = "'encrypt.format' and its alias 'encryption' can't be used at the same time"
            raise invalid(message)
        return "aes"
    return None if fmt is None else parse_enum("format", fmt, FORMATS, "")


def _refuse_rest(options: dict[str, object], message: str) -> None:
    """Raises where an option of encryption is left that means nothing here."""
    for name in options:
        if name.startswith(PREFIX):
            raise invalid(message.format(name))


def set_up(s: Qcow2State, plan: Plan, size: int) -> None:
    """Encrypts an image that holds no data yet (qcow2_set_up_encryption)."""
    if plan.method == lay.CRYPT_NONE:
        return
    from block.formats.qcow2.header_update import update_header

    s.crypt_method = plan.method
    s.plain = False
    s.bs.encrypted = True
    if plan.luks is not None:
        s.crypto = plan.luks.create(partial(_make_room, s), partial(write_header, s))
    else:
        s.crypto = plan.aes
    update_header(s, size)


def _make_room(s: Qcow2State, length: int) -> None:
    """Gives the LUKS header its clusters, full of zeroes (qcow2_crypto_hdr_init_func)."""
    count = s.clusters(length)

    async def allocate() -> int:
        async with s.lock:
            place = await alloc_clusters(s, count, "encryption header")
        await s.file.co_pwrite_zeroes(place, count << s.cluster_bits)
        return place

    try:
        place = run_sync(s.bs.aio_context, allocate)
    except OSError as error:
        what = f"Cannot allocate cluster for LUKS header size {length}"
        raise failed(what, error, s.bs.node_name, "qcow2") from error
    data = lay.CRYPTO_PLACE.build({"offset": place, "length": length})
    s.extensions.append((lay.EXT_CRYPTO, data))


# -- amend

AMEND_OPTS = prefixed(PREFIX, LUKS_AMEND_OPTS)


def take_amend(s: Qcow2State, options: dict[str, Any]) -> AmendOptions | None:
    """What shall become of the key slots; None: nothing was said of them.

    Raises BlockError where there are none, or what was said cannot be meant.
    """
    if not any(name.startswith(PREFIX) for name in options):
        return None
    if not s.crypt_method:
        raise invalid("Can't amend encryption options - encryption not present")
    if s.crypt_method != lay.CRYPT_LUKS:
        message = "Only LUKS encryption options can be amended"
        raise refuse(s, message, errno.ENOTSUP)
    return take_luks_amend(options, PREFIX)


def amend_keys(s: Qcow2State, wanted: AmendOptions, force: bool) -> None:
    """Changes the passwords of an open image."""
    from block.crypto.luks.amend import amend
    from block.crypto.luks.volume import LuksBlock

    assert isinstance(s.crypto, LuksBlock), "opened with a key"
    amend(s.crypto, wanted, partial(read_header, s), partial(write_header, s), force)
    s.bs.flush()


# -- info


def info(s: Qcow2State) -> dict[str, object]:
    """What `info` says of it: the member `encrypt` of QEMU's schema, if there is anything."""
    if s.crypto is None:
        return {}
    return {"encrypt": {**s.crypto.get_info(), "format": NAMES[s.crypt_method]}}
