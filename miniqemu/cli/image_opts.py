# SPDX-License-Identifier: GPL-2.0-only
"""Images described by options: 'driver=raw,file.filename=a.img' (qemu_opts_parse_noisily).

The tools take such a text with --image-opts, and where else a command line has one. A word without
a value is a flag, on or with 'no' in front off; the person is told to spell it out.
"""

from __future__ import annotations

from block.core.keyval import split_opts
from block.core.options import invalid, is_identifier
from block.core.report import warn_report

ID_HINT = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."


def parse_image_opts(text: str, implied: str | None = None) -> dict[str, object]:
    """The options of a text; the first value may do without the name `implied`.

    Raises BlockError(EINVAL) for an id that is none; what else is wrong the block layer says.
    """
    ids = [value for name, value in split_opts(text, implied) if name == "id"]
    if ids and not is_identifier(ids[0]):
        raise invalid("Parameter 'id' expects an identifier", ID_HINT)
    return dict(split_opts(text, implied, _warn_of_flag))


def _warn_of_flag(word: str, name: str, value: str) -> None:
    warn_report(f"short-form boolean option '{word}' deprecated\nPlease use {name}={value} instead")
