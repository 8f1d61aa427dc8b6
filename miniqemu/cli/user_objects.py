# SPDX-License-Identifier: GPL-2.0-only
"""`--object` of the tools: what images refer to by its id (user_creatable_process_cmdline).

R1  An object lives until the command line is done: whoever runs it calls `drop`.
Called in the main thread.
"""

from __future__ import annotations

from block.core.keyval import parse_either

from .config import CliError, Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from block.objects.secret import Secret
    from block.objects.throttle_group import ThrottleGroup

    Made: TypeAlias = dict[str, Secret | ThrottleGroup]

# What QEMU's tools have, and ours do not yet.
OTHERS = ("secret_keyring", "tls-cipher-suites", "tls-creds-anon", "tls-creds-psk",
          "tls-creds-x509", "authz-list", "authz-list-file", "authz-simple", "main-loop",
          "pr-manager-helper", "thread-context")  # fmt: skip
NOT_FOR_TOOLS = ("iothread",)


def create(text: str, made: Made) -> None:
    """Makes an object, and keeps it in `made` under its id. Raises CliError: a line for the
    person, without the program's name."""
    item = Item("--object", text)
    try:
        _create(item, made)
    except CliError as error:
        raise CliError(str(error).removeprefix("--object: ")) from None


def _create(item: Item, made: Made) -> None:
    item.read(parse_either, "qom-type")
    kind = item.text_of("qom-type")
    if kind == "secret":
        from .secrets import make_secret

        secret = make_secret(item, made)
        made[secret.name] = secret
    elif kind == "throttle-group":
        from .throttling import make_group

        group = make_group(item, made)
        made[group.name] = group
    else:
        raise item.error(_refusal(kind))


def _refusal(kind: str | None) -> str:
    if kind is None:
        return "Parameter 'qom-type' is missing"
    if kind in OTHERS:
        return f"object '{kind}' is not available in this version of miniqemu"
    if kind in NOT_FOR_TOOLS:
        return f"invalid object type: {kind}"
    return f"Parameter 'qom-type' does not accept value '{kind}'"


def drop(made: Made) -> None:
    """The command line is done: its objects go (R1)."""
    for thing in made.values():
        thing.unref()
    made.clear()
