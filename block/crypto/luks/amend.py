# SPDX-License-Identifier: GPL-2.0-only
"""Passwords that come and go (qcrypto_block_luks_amend_options).

    state=active,new-secret=N[,keyslot=K]              one more password, into slot K or a free one
    state=inactive,keyslot=K[,old-secret=O]            slot K is erased (if it has that password)
    state=inactive,old-secret=O                        all slots with that password are erased

R1  The last slot in use is not erased, and one in use is not overwritten, unless somebody insists
    (`force`). Without the last slot nobody can ever open the disk again, once it is closed.
R2  All is checked before the first byte is written. Messages are QEMU's.
Blocks, for as long as passwords are hashed.
"""

from __future__ import annotations

from block.core.options import invalid
from block.crypto.luks import layout as lay
from block.crypto.luks.keyslot import (
    active_slots,
    erase_key,
    find_key,
    is_active,
    load_key,
    store_key,
)
from block.objects.secret import lookup_as_utf8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.crypto.block import ReadFunc, WriteFunc
    from block.crypto.luks.volume import LuksBlock

INT64 = 1 << 63


class AmendOptions:
    """What is asked for (QCryptoBlockAmendOptionsLUKS); None: not said."""

    def __init__(
        self,
        state: str,
        new_secret: str | None = None,
        old_secret: str | None = None,
        keyslot: int | None = None,
        iter_time_ms: int | None = None,
    ) -> None:
        self.state = state
        self.new_secret = new_secret
        self.old_secret = old_secret
        self.keyslot = keyslot
        self.iter_time_ms = iter_time_ms


def amend(
    volume: LuksBlock, wanted: AmendOptions, read: ReadFunc, write: WriteFunc, force: bool
) -> None:
    """Changes the slots of an open volume. Raises BlockError."""
    if wanted.state == "active":
        _add(volume, wanted, read, write, force)
    else:
        _erase(volume, wanted, read, write, force)


def _add(
    volume: LuksBlock, wanted: AmendOptions, read: ReadFunc, write: WriteFunc, force: bool
) -> None:
    """One more password (qcrypto_block_luks_amend_add_keyslot)."""
    header, params = volume.header, volume.params
    if wanted.new_secret is None:
        raise invalid("'new-secret' is required to activate a keyslot")
    if wanted.old_secret is not None:
        raise invalid("'old-secret' must not be given when activating keyslots")
    number = _free_slot(volume) if wanted.keyslot is None else _slot(wanted.keyslot, signed=False)
    if not force and is_active(header, number):
        raise invalid(f"Refusing to overwrite active keyslot {number} - please erase it first")
    password = lookup_as_utf8(volume.secret or "")
    key = find_key(header, params, password, read)
    new_password = lookup_as_utf8(wanted.new_secret)
    store_key(header, params, number, new_password, key, wanted.iter_time_ms or 0, write)


def _free_slot(volume: LuksBlock) -> int:
    active = active_slots(volume.header)
    free = [number for number in range(lay.SLOTS) if number not in active]
    if not free:
        raise invalid("Can't add a keyslot - all keyslots are in use")
    return free[0]


def _slot(number: int, signed: bool) -> int:
    """A slot's number, checked; QEMU has two ways to print one that is negative."""
    if 0 <= number < lay.SLOTS:
        return number
    if number >= INT64:
        number = number - 2 * INT64 if signed else number % (1 << 32)
    raise invalid(f"Invalid keyslot {number} specified, must be between 0 and {lay.SLOTS - 1}")


def _erase(
    volume: LuksBlock, wanted: AmendOptions, read: ReadFunc, write: WriteFunc, force: bool
) -> None:
    """Takes passwords away (qcrypto_block_luks_amend_erase_keyslots)."""
    for name, value in (("new-secret", wanted.new_secret), ("iter-time", wanted.iter_time_ms)):
        if value is not None:
            raise invalid(f"'{name}' must not be given when erasing keyslots")
    old = None if wanted.old_secret is None else lookup_as_utf8(wanted.old_secret)
    if wanted.keyslot is not None:
        numbers = [_slot(wanted.keyslot, signed=True)]
        _check_slot(volume, numbers[0], old, read, force)
    elif old is not None:
        numbers = _slots_with(volume, old, read, force)
    else:
        raise invalid(
            "To erase keyslot(s), either explicit keyslot index or the password currently "
            "contained in them must be given"
        )
    for number in numbers:
        erase_key(volume.header, number, write)


def _check_slot(
    volume: LuksBlock, number: int, old: bytes | None, read: ReadFunc, force: bool
) -> None:
    """Raises where one slot may not be erased (R1)."""
    header, params = volume.header, volume.params
    if old is not None and load_key(header, params, number, old, read) is None:
        raise invalid(
            f"Given keyslot {number} doesn't contain the given old password for erase operation"
        )
    if not force and not is_active(header, number):
        raise invalid(f"Given keyslot {number} is already erased (inactive) ")
    if not force and len(active_slots(header)) == 1:
        raise invalid(
            f"Attempt to erase the only active keyslot {number} which will erase all the data in "
            "the image irreversibly - refusing operation"
        )


def _slots_with(volume: LuksBlock, old: bytes, read: ReadFunc, force: bool) -> list[int]:
    """The slots that have a password; not all that are in use (R1)."""
    header, params = volume.header, volume.params
    active = active_slots(header)
    found = [n for n in active if load_key(header, params, n, old, read) is not None]
    if not found:
        raise invalid("No keyslots match given (old) password for erase operation")
    if not force and found == active:
        raise invalid(
            "All the active keyslots match the (old) password that was given and erasing them will "
            "erase all the data in the image irreversibly - refusing operation"
        )
    return found
