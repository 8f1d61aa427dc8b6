# SPDX-License-Identifier: GPL-2.0-only
"""The options of encrypted images, for whichever format has them (block/crypto.h).

A format that is encryption has them as they are; qcow2 has them behind `encrypt.`.
Pure; any thread.
"""

from __future__ import annotations

from block.core.options import Option, invalid, parse_enum, take_options
from block.crypto.names import DIGEST_LENGTHS, IVGENS, KEY_LENGTHS, MODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from block.crypto.luks.amend import AmendOptions
    from block.crypto.luks.volume import LuksPlan

DEFAULT_ITER_TIME_MS = 2000
"""What PBKDF2 may take where nothing else is said."""

KEY_SECRET = Option("key-secret", "string", "ID of the secret that provides the keyslot passphrase")
ITER_TIME = Option("iter-time", "number", "Time to spend in PBKDF in milliseconds")
LUKS_CREATE_OPTS = (
    KEY_SECRET,
    Option("cipher-alg", "string", "Name of encryption cipher algorithm"),
    Option("cipher-mode", "string", "Name of encryption cipher mode"),
    Option("ivgen-alg", "string", "Name of IV generator algorithm"),
    Option("ivgen-hash-alg", "string", "Name of IV generator hash algorithm"),
    Option("hash-alg", "string", "Name of encryption hash algorithm"),
    ITER_TIME,
)

LUKS_AMEND_OPTS = (
    Option("state", "string", "Select new state of affected keyslots (active/inactive)"),
    Option("keyslot", "number", "Select a single keyslot to modify explicitly"),
    Option("old-secret", "string", "Select all keyslots that match this password"),
    Option(
        "new-secret",
        "string",
        "New secret to set in the matching keyslots. Empty string to erase",
    ),
    ITER_TIME,
)
STATES = ("active", "inactive")
ALGORITHMS: dict[str, tuple[Iterable[str], str]] = {
    "cipher-alg": (KEY_LENGTHS, "aes-256"),
    "cipher-mode": (MODES, "xts"),
    "ivgen-alg": (IVGENS, "plain64"),
    "ivgen-hash-alg": (DIGEST_LENGTHS, "sha256"),
    "hash-alg": (DIGEST_LENGTHS, "sha256"),
}
"""Which names an option can have, and the one where nothing is said."""


def prefixed(prefix: str, declared: tuple[Option, ...]) -> tuple[Option, ...]:
    """The same options behind a prefix."""
    return tuple(Option(prefix + o.name, o.kind, o.help, o.default) for o in declared)


def _take(options: dict[str, object], prefix: str, declared: tuple[Option, ...]) -> dict[str, Any]:
    """Takes options with a prefix; the names in the answer have none."""
    taken = take_options(options, prefixed(prefix, declared))
    return {name.removeprefix(prefix): value for name, value in taken.items()}


def take_luks_plan(options: dict[str, object], prefix: str = "") -> LuksPlan:
    """Takes the options of a new volume, and checks them (block_crypto_create_opts_init).

    Looks up the secret, too. Raises BlockError.
    """
    from block.crypto.luks.params import LuksParams
    from block.crypto.luks.volume import LuksPlan

    taken = _take(options, prefix, LUKS_CREATE_OPTS)
    names = {
        option: parse_enum(option, taken[option], choices, default)
        for option, (choices, default) in ALGORITHMS.items()
    }
    needs_hash = taken["ivgen-hash-alg"] is not None or names["ivgen-alg"] == "essiv"
    params = LuksParams(
        names["cipher-alg"],
        names["cipher-mode"],
        names["ivgen-alg"],
        names["ivgen-hash-alg"] if needs_hash else None,
        names["hash-alg"],
    )
    iter_time = taken["iter-time"]
    if iter_time is None:
        iter_time = DEFAULT_ITER_TIME_MS
    return LuksPlan(taken["key-secret"], params, iter_time, prefix)


def take_luks_amend(options: dict[str, object], prefix: str = "") -> AmendOptions:
    """Takes what shall become of the key slots (block_crypto_amend_opts_init)."""
    from block.crypto.luks.amend import AmendOptions

    taken = _take(options, prefix, LUKS_AMEND_OPTS)
    if taken["state"] is None:
        raise invalid("Parameter 'state' is missing")
    state = parse_enum("state", taken["state"], STATES, "")
    iter_time = taken["iter-time"]
    if iter_time is None and state == "active":
        iter_time = DEFAULT_ITER_TIME_MS
    return AmendOptions(
        state, taken["new-secret"], taken["old-secret"], taken["keyslot"], iter_time
    )
