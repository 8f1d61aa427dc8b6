# SPDX-License-Identifier: GPL-2.0-only
"""`--object` of the tools: what images refer to by its id (user_creatable_process_cmdline).

R1  An object lives until the command line is done: whoever runs it calls `drop`.
R2  A cry for help among the settings is answered, and nothing is made: with the properties of the
    object's type, or with the types that there are.
Called in the main thread.
"""

from __future__ import annotations

from block.core.keyval import is_help, parse_either

from .config import CliError, Item
from .objects import split_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from block.objects.secret import Secret
    from block.objects.throttle_group import ThrottleGroup

    Made: TypeAlias = dict[str, Secret | ThrottleGroup]

KINDS = ("secret", "throttle-group")
# What QEMU's tools have, and ours do not yet.
OTHERS = ("secret_keyring", "tls-cipher-suites", "tls-creds-anon", "tls-creds-psk",
          "tls-creds-x509", "authz-list", "authz-list-file", "authz-simple", "main-loop",
          "pr-manager-helper", "thread-context")  # fmt: skip
NOT_FOR_TOOLS = ("iothread",)


class Asked(Exception):
    """A text that the person asked for, instead of an object (R2)."""


def create(text: str, made: Made) -> None:
    """Makes an object, and keeps it in `made` under its id. Raises CliError: a line for the
    person, without the program's name; or Asked."""
    item = Item("--object", text)
    try:
        words = split_settings(text)
        settings = [word for word in words if not is_help(word)]
        if settings != words:
            raise Asked(_help(Item("--object", ",".join(settings))))
        _create(item, made)
    except CliError as error:
        raise CliError(str(error).removeprefix("--object: ")) from None


def _help(item: Item) -> str:
    """What 'help' among these settings is answered with (user_creatable_print_help)."""
    if item.text:
        item.read(parse_either, "qom-type")
    kind = item.text_of("qom-type")
    if kind not in KINDS:
        return "\n".join(("List of user creatable objects:", *(f"  {name}" for name in KINDS), ""))
    from .help import object_help

    return object_help(kind)


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
