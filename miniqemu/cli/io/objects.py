# SPDX-License-Identifier: GPL-2.0-only
"""`--object` of miniqemu-io: what images refer to by its id (user_creatable_process_cmdline)."""

from __future__ import annotations

from block.core.keyval import parse_either
from miniqemu.cli.config import CliError, Item

from .session import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.objects.throttle_group import ThrottleGroup

    from .session import Session

# What QEMU has, and we do not yet.
OTHERS = ("iothread", "secret", "secret_keyring", "tls-cipher-suites", "tls-creds-anon",
          "tls-creds-psk", "tls-creds-x509", "authz-list", "authz-list-file", "authz-pam",
          "authz-simple")  # fmt: skip


def create(session: Session, text: str, made: dict[str, ThrottleGroup]) -> None:
    """Makes an object, and keeps it in `made` under its id. Raises Failed."""
    item = Item("--object", text)
    try:
        _create(item, made)
    except CliError as error:
        session.report(str(error).removeprefix("--object: "))
        raise Failed from None


def _create(item: Item, made: dict[str, ThrottleGroup]) -> None:
    item.read(parse_either, "qom-type")
    kind = item.text_of("qom-type")
    if kind is None:
        raise item.error("Parameter 'qom-type' is missing")
    if kind in OTHERS:
        raise item.error(f"object '{kind}' is not available in this version of miniqemu")
    if kind != "throttle-group":
        raise item.error(f"Parameter 'qom-type' does not accept value '{kind}'")
    from miniqemu.cli.throttling import make_group

    group = make_group(item, made)
    made[group.name] = group
