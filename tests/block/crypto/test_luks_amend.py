# SPDX-License-Identifier: GPL-2.0-only
"""block/crypto/luks/amend.py: passwords that come and go, and the last one that stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from block.core.error import BlockError
from block.crypto.luks.amend import amend
from block.crypto.luks.keyslot import active_slots
from block.crypto.luks.volume import LuksBlock, open_luks
from block.crypto.options import take_luks_amend
from tests.block.crypto.test_luks_volume import Memory, volume_bytes
from tests.support.luks_images import secret

TEXT = b"what the guest wrote".ljust(512, b".")


@pytest.fixture(autouse=True)
def _secrets() -> Iterator[None]:
    with secret(), secret("new", "a new password"), secret("wrong", "nobody has it"):
        yield


@pytest.fixture(scope="module")
def image() -> bytes:
    """A new volume with one password; nobody changes it."""
    return volume_bytes()


@pytest.fixture
def memory(image: bytes) -> Memory:
    """A volume of the test's own."""
    return Memory(image)


@pytest.fixture
def volume(memory: Memory) -> LuksBlock:
    """The same, open."""
    return open_luks(memory.read, "s")


def change(volume: LuksBlock, memory: Memory, text: str, force: bool = False) -> None:
    """What `amend -o` does."""
    pairs: dict[str, object] = dict(pair.split("=") for pair in text.split(","))
    if pairs.get("state") == "active":
        pairs.setdefault("iter-time", "0")
    amend(volume, take_luks_amend(pairs), memory.read, memory.write, force)


def test_a_password_can_be_changed(volume: LuksBlock, memory: Memory) -> None:
    stored = volume.encrypt(0, TEXT)
    change(volume, memory, "state=active,new-secret=new")
    change(volume, memory, "state=inactive,old-secret=s")
    again = open_luks(memory.read, "new")
    assert again.decrypt(0, stored) == TEXT
    assert active_slots(again.header) == [1]
    with pytest.raises(BlockError, match=r"^Invalid password"):
        open_luks(memory.read, "s")


def test_eight_people_can_have_a_password_and_no_more(volume: LuksBlock, memory: Memory) -> None:
    for _ in range(7):
        change(volume, memory, "state=active,new-secret=new")
    assert active_slots(volume.header) == list(range(8))
    with pytest.raises(BlockError, match=r"^Can't add a keyslot - all keyslots are in use$"):
        change(volume, memory, "state=active,new-secret=new")


def test_all_slots_with_a_password_are_erased_at_once(volume: LuksBlock, memory: Memory) -> None:
    for number in (2, 5):
        change(volume, memory, f"state=active,new-secret=new,keyslot={number}")
    change(volume, memory, "state=inactive,old-secret=new")
    assert active_slots(open_luks(memory.read, "s").header) == [0]


def test_the_last_password_stays_unless_somebody_insists(volume: LuksBlock, memory: Memory) -> None:
    before = bytes(memory.data)
    for text in ("state=inactive,keyslot=0", "state=inactive,old-secret=s"):
        with pytest.raises(BlockError, match=r"irreversibly - refusing operation$"):
            change(volume, memory, text)
    assert bytes(memory.data) == before
    change(volume, memory, "state=inactive,keyslot=0", force=True)
    with pytest.raises(BlockError, match=r"^Invalid password"):
        open_luks(memory.read, "s")
    assert volume.decrypt(0, volume.encrypt(0, TEXT)) == TEXT  # until it is closed


def test_a_slot_in_use_is_overwritten_only_if_somebody_insists(
    volume: LuksBlock, memory: Memory
) -> None:
    change(volume, memory, "state=active,new-secret=new,keyslot=0", force=True)
    assert active_slots(open_luks(memory.read, "new").header) == [0]


def test_who_adds_a_password_needs_one_that_is_there(volume: LuksBlock, memory: Memory) -> None:
    volume.secret = "wrong"
    with pytest.raises(BlockError, match=r"^Invalid password, cannot unlock any keyslot$"):
        change(volume, memory, "state=active,new-secret=new")
    assert not memory.writes


REFUSALS = [
    ("new-secret=new", "Parameter 'state' is missing"),
    ("state=foo", "Parameter 'state' does not accept value 'foo'"),
    ("state=active", "'new-secret' is required to activate a keyslot"),
    (
        "state=active,new-secret=new,old-secret=s",
        "'old-secret' must not be given when activating keyslots",
    ),
    (
        "state=active,new-secret=new,keyslot=8",
        "Invalid keyslot 8 specified, must be between 0 and 7",
    ),
    (
        "state=active,new-secret=new,keyslot=-1",
        "Invalid keyslot 4294967295 specified, must be between 0 and 7",
    ),
    (
        "state=active,new-secret=new,keyslot=0",
        "Refusing to overwrite active keyslot 0 - please erase it first",
    ),
    ("state=active,new-secret=nobody", "No secret with id 'nobody'"),
    (
        "state=inactive",
        "To erase keyslot(s), either explicit keyslot index or the password currently contained "
        "in them must be given",
    ),
    (
        "state=inactive,new-secret=new",
        "'new-secret' must not be given when erasing keyslots",
    ),
    ("state=inactive,iter-time=10", "'iter-time' must not be given when erasing keyslots"),
    ("state=inactive,keyslot=5", "Given keyslot 5 is already erased (inactive) "),
    ("state=inactive,keyslot=-2", "Invalid keyslot -2 specified, must be between 0 and 7"),
    (
        "state=inactive,old-secret=wrong",
        "No keyslots match given (old) password for erase operation",
    ),
    (
        "state=inactive,keyslot=0,old-secret=wrong",
        "Given keyslot 0 doesn't contain the given old password for erase operation",
    ),
    (
        "state=inactive,old-secret=s",
        "All the active keyslots match the (old) password that was given and erasing them will "
        "erase all the data in the image irreversibly - refusing operation",
    ),
    (
        "state=inactive,keyslot=0",
        "Attempt to erase the only active keyslot 0 which will erase all the data in the image "
        "irreversibly - refusing operation",
    ),
]


@pytest.mark.parametrize(("text", "complaint"), REFUSALS)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    volume: LuksBlock, memory: Memory, text: str, complaint: str
) -> None:
    with pytest.raises(BlockError) as refused:
        change(volume, memory, text)
    assert str(refused.value) == complaint
    assert not memory.writes
