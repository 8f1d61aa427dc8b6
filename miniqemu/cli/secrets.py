# SPDX-License-Identifier: GPL-2.0-only
"""`-object secret,...`: a password or a key, for images that are encrypted."""

from __future__ import annotations

from block.core.error import BlockError

from . import objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from block.objects.secret import Secret

    from .config import Item

PROPERTIES = ("data", "file", "format", "keyid", "iv")
TYPES = {"format": "QCryptoSecretFormat"}  # of those that are no plain text


def make_secret(item: Item, taken: Container[str]) -> Secret:
    """Makes what one -object asks for; `taken` are the ids of others. Raises CliError."""
    from block.objects.secret import FORMATS, secret_create

    item.refuse_others(("qom-type", "id", *PROPERTIES), (), objects.unknown(item))
    name = objects.id_of(item)
    given = {key: objects.text(item, key) for key in PROPERTIES if key in item.values}
    if given.get("format", "raw") not in FORMATS:
        raise item.error(f"Parameter 'format' does not accept value '{given['format']}'")
    objects.refuse_duplicate(item, name, taken)
    try:
        return secret_create(name, **given)
    except BlockError as error:
        raise item.error(str(error)) from None
