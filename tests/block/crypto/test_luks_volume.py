# SPDX-License-Identifier: GPL-2.0-only
"""block/crypto/luks: volumes in memory; headers that lie."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from block.core.error import BlockError
from block.crypto import nettle_library
from block.crypto.luks import layout as lay
from block.crypto.luks.keyslot import active_slots, erase_key, find_key, load_key, store_key
from block.crypto.luks.params import LuksParams
from block.crypto.luks.volume import LuksBlock, LuksPlan, open_luks
from tests.support import needs
from tests.support.luks_images import PASSWORD, secret

PLAIN = bytes(range(256)) * 4
SLOT_AT = 208  # of slot 0 in the header, and 48 bytes each


class Memory:
    """What a driver hands in: a file that is only bytes; `writes` notes where, in order."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.writes: list[int] = []

    def init(self, length: int) -> None:
        self.data = bytearray(length)

    def read(self, offset: int, nbytes: int) -> bytes:
        return bytes(self.data[offset : offset + nbytes]).ljust(nbytes, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        self.writes.append(offset)
        self.data[offset : offset + len(data)] = data


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("block.crypto.luks.keyslot.count_iters", lambda alg, length: 1)
    with secret(), secret("other", "another password"):
        yield


def new_volume(params: LuksParams | None = None, memory: Memory | None = None) -> Memory:
    memory = memory or Memory()
    LuksPlan("s", params or LuksParams(), 0).create(memory.init, memory.write)
    return memory


def volume_bytes() -> bytes:
    """A new volume with one password."""
    with secret("image"):
        memory = Memory()
        LuksPlan("image", LuksParams(), 0).create(memory.init, memory.write)
    return bytes(memory.data)


@pytest.fixture(scope="module")
def image() -> bytes:
    """A new volume; nobody changes it."""
    return volume_bytes()


@pytest.mark.parametrize(
    "params",
    [
        LuksParams(),
        LuksParams("aes-128", "cbc", "essiv", "sha256", "sha1"),
        LuksParams("aes-192", "cbc", "plain"),  # half a sector of key material more
        LuksParams("aes-256", "ctr", "plain64", None, "sha512"),
        LuksParams("aes-128", "ecb", "plain64", "md5"),
        LuksParams("serpent-256", "xts", "plain64"),
        LuksParams("twofish-192", "cbc", "essiv", "sha256"),
        LuksParams("cast5-128", "ctr", "plain"),
    ],
    ids=lambda params: f"{params.cipher_alg}-{params.mode_spec}-{params.hash_alg}",
)
def test_what_one_opening_encrypts_another_decrypts(params: LuksParams) -> None:
    if params.family in ("serpent", "twofish"):
        needs.library(nettle_library.NAME, nettle_library.PACKAGE)
    memory = new_volume(params)
    text = open_luks(memory.read, "s").encrypt(4096, PLAIN)
    again = open_luks(memory.read, "s")
    assert text != PLAIN
    assert again.decrypt(4096, text) == PLAIN
    assert vars(again.params) == vars(params)


def test_no_two_volumes_have_the_same_key() -> None:
    one, two = (open_luks(new_volume().read, "s") for _ in range(2))
    assert one.encrypt(0, PLAIN) != two.encrypt(0, PLAIN)
    assert one.get_info()["uuid"] != two.get_info()["uuid"]


def test_info_tells_all_but_the_key(image: bytes) -> None:
    info = open_luks(Memory(image).read, None, no_io=True).get_info()
    assert len(str(info.pop("uuid"))) == 36
    slots = info.pop("slots")
    assert info == {
        "cipher-alg": "aes-256", "cipher-mode": "xts", "ivgen-alg": "plain64",
        "hash-alg": "sha256", "payload-offset": 2068480, "master-key-iters": 1000,
    }  # fmt: skip
    assert isinstance(slots, list)
    assert slots[0] == {"active": True, "iters": 1000, "stripes": 4000, "key-offset": 4096}
    assert slots[7] == {"active": False, "key-offset": 1810432}


def test_another_password_opens_nothing(image: bytes) -> None:
    with pytest.raises(BlockError, match=r"^Invalid password, cannot unlock any keyslot$"):
        open_luks(Memory(image).read, "other")


def test_who_only_asks_needs_no_secret_and_gets_no_cipher(image: bytes) -> None:
    assert open_luks(Memory(image).read, None, no_io=True).cipher is None
    with pytest.raises(BlockError, match=r"^Parameter 'x\.key-secret' is required for cipher$"):
        open_luks(Memory(image).read, None, "x.")


# -- slots


def test_each_slot_keeps_the_same_key_for_another_password(image: bytes) -> None:
    memory = Memory(image)
    volume = open_luks(memory.read, "s")
    key = find_key(volume.header, volume.params, PASSWORD.encode(), memory.read)
    store_key(volume.header, volume.params, 5, b"another password", key, 0, memory.write)
    assert active_slots(volume.header) == [0, 5]
    assert open_luks(memory.read, "other").encrypt(0, PLAIN) == volume.encrypt(0, PLAIN)
    assert load_key(volume.header, volume.params, 5, PASSWORD.encode(), memory.read) is None
    erase_key(volume.header, 0, memory.write)
    assert active_slots(open_luks(memory.read, "other").header) == [5]
    with pytest.raises(BlockError, match=r"^Invalid password"):
        open_luks(memory.read, "s")


def test_a_slot_is_in_use_only_once_its_key_is_written(image: bytes) -> None:
    memory = Memory(image)
    volume = open_luks(memory.read, "s")
    store_key(volume.header, volume.params, 1, b"x", bytes(64), 0, memory.write)
    assert memory.writes == [262144, 0]


def test_an_erased_slot_is_out_of_use_before_its_key_is_overwritten(image: bytes) -> None:
    memory = Memory(image)
    before = memory.read(4096, 256000)
    volume = open_luks(memory.read, "s")
    erase_key(volume.header, 0, memory.write)
    assert memory.writes == [0, *[4096] * 40]
    after = memory.read(4096, 256000)
    assert sum(a == b for a, b in zip(before, after, strict=True)) < 2000  # one in 256 by chance


def test_the_key_is_overwritten_even_if_the_header_cannot_be_written(image: bytes) -> None:
    memory = Memory(image)
    before = memory.read(4096, 256000)
    volume = open_luks(memory.read, "s")

    def broken(offset: int, data: bytes) -> None:
        if offset == 0:
            raise BlockError(5, "no header")
        memory.write(offset, data)

    with pytest.raises(BlockError, match="no header"):
        erase_key(volume.header, 0, broken)
    assert memory.read(4096, 256000) != before


# -- headers that lie

Damage = Callable[[bytearray], None]


def number(at: int, value: int, form: str = ">I") -> Damage:
    return lambda data: struct.pack_into(form, data, at, value)


def text(at: int, value: bytes) -> Damage:
    return lambda data: data.__setitem__(slice(at, at + 32), value.ljust(32, b"\0"))


def slot(index: int, field: int, value: int) -> Damage:
    return number(SLOT_AT + 48 * index + field, value)


ACTIVE, ITERATIONS, OFFSET, STRIPES = 0, 4, 40, 44
LIES: list[tuple[Damage, str]] = [
    (number(0, 0), "Volume is not in LUKS format"),
    (number(6, 2, ">H"), "LUKS version 2 is not supported"),
    (text(8, b"a" * 32), "LUKS header cipher name is not NUL terminated"),
    (text(40, b"a" * 32), "LUKS header cipher mode is not NUL terminated"),
    (text(72, b"a" * 32), "LUKS header hash spec is not NUL terminated"),
    (number(104, 7), "LUKS payload is overlapping with the header"),
    (number(164, 0), "LUKS key iteration count is zero"),
    (slot(3, STRIPES, 3999), "Keyslot 3 is corrupted (stripes 3999 != 4000)"),
    (slot(2, ACTIVE, 1), "Keyslot 2 state (active/disable) is corrupted"),
    (slot(0, ITERATIONS, 0), "Keyslot 0 iteration count is zero"),
    (slot(0, OFFSET, 7), "Keyslot 0 is overlapping with the LUKS header"),
    (slot(7, OFFSET, 0x7FFF_FFFF), "Keyslot 7 is overlapping with the encrypted payload"),
    (slot(1, OFFSET, 9), "Keyslots 0 and 1 are overlapping in the header"),
    (number(108, 0xFFFF_FFFF), "Keyslot 0 is overlapping with the encrypted payload"),
    (number(108, 63), "Algorithm 'aes' with key size 31 bytes not supported"),
    (text(8, b"rot13"), "Algorithm 'rot13' with key size 32 bytes not supported"),
    (text(40, b"xts"), "Unexpected cipher mode string format 'xts'"),
    (text(40, b"xyz-plain64"), "Cipher mode 'xyz' not supported"),
    (text(40, b"xts-plain65"), "IV generator 'plain65' not supported"),
    (text(40, b"xts-plain64:md1"), "Hash algorithm 'md1' not supported"),
    (text(40, b"xts-essiv"), "Missing IV generator hash specification"),
    (text(40, b"xts-essiv:sha512"), "No AES cipher with key size 64 available"),
    (text(72, b"md1"), "Hash algorithm 'md1' not supported"),
]


@pytest.mark.parametrize(("damage", "complaint"), LIES, ids=[lie[1] for lie in LIES])
def test_a_header_that_lies_is_refused_with_qemus_words(
    image: bytes, damage: Damage, complaint: str
) -> None:
    memory = Memory(image)
    damage(memory.data)
    with pytest.raises(BlockError) as refused:
        open_luks(memory.read, None, no_io=True)
    assert str(refused.value) == complaint


def test_a_file_that_ends_within_the_header_is_no_volume() -> None:
    for length in (0, 5, 100, lay.HEADER_LENGTH - 1):
        with pytest.raises(BlockError):
            open_luks(Memory(b"LUKS\xba\xbe\0\1"[:length].ljust(length, b"\1")).read, "s")


def test_a_cipher_that_is_not_there_can_be_asked_about_and_not_opened(
    image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nettle_library, "_loaded", [])
    monkeypatch.setattr(nettle_library, "NAME", "libnowhere.so.8")
    memory = Memory(image)
    text(8, b"serpent")(memory.data)
    info = open_luks(memory.read, None, no_io=True).get_info()
    assert info["cipher-alg"] == "serpent-256"
    with pytest.raises(BlockError, match=r"^Cipher serpent-256 needs the library nettle"):
        open_luks(memory.read, "s")


# -- what cannot be made


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        (LuksParams("des"), "Algorithm 'des' not supported"),
        (LuksParams("cast5-128"), "Unsupported cipher mode xts"),
        (
            LuksParams(ivgen_alg="essiv", ivgen_hash_alg="sha1"),
            "No AES cipher with key size 20 available",
        ),
        (
            LuksParams("cast5-128", "cbc", "essiv", "sha256"),
            "Cipher cast5-128 not supported with essiv",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(
    params: LuksParams, complaint: str
) -> None:
    with pytest.raises(BlockError) as refused:
        LuksPlan("s", params, 0)
    assert str(refused.value) == complaint


@pytest.mark.parametrize(
    ("per_second", "iter_time", "complaint"),
    [
        (
            10,
            (1 << 64) - 1,
            "PBKDF iterations 10 too large to scale: Numerical result out of range",
        ),
        (
            8 << 32,
            8000,
            "PBKDF iterations 34359738368 larger than 4294967295: Numerical result out of range",
        ),
    ],
)
def test_a_time_that_makes_too_many_iterations_is_refused(
    monkeypatch: pytest.MonkeyPatch, per_second: int, iter_time: int, complaint: str
) -> None:
    monkeypatch.setattr("block.crypto.luks.keyslot.count_iters", lambda alg, length: per_second)
    memory = Memory()
    with pytest.raises(BlockError) as refused:
        LuksPlan("s", LuksParams(), iter_time).create(memory.init, memory.write)
    assert str(refused.value) == complaint
    assert not memory.writes


def test_the_digest_gets_an_eighth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("block.crypto.luks.keyslot.count_iters", lambda alg, length: 32000)
    memory = Memory()
    volume: LuksBlock = LuksPlan("s", LuksParams(), 500).create(memory.init, memory.write)
    assert volume.header.key_slots[0].iterations == 16000
    assert volume.header.master_key_iterations == 2000
