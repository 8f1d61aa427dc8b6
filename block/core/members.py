# SPDX-License-Identifier: GPL-2.0-only
"""What -blockdev must be told of each node: the members of BlockdevOptions that are not optional,
and those that are one of some words.

QEMU's visitor finds out that one is missing before anything is opened, from the top down, each
node's members in the schema's order; and so does `check`. A child is the name of a node, or has
options of its own, which must name its driver. All other ways to open an image have defaults for
much of this, and complain later.

Plain data and a pure function; any thread. Source: qapi/block-core.json.
"""

from __future__ import annotations

from block.core.cache import DETECT_ZEROES_MODES
from block.core.options import invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from block.core.error import BlockError

ENUMS = (("discard", ("ignore", "unmap")), ("detect-zeroes", DETECT_ZEROES_MODES))
"""Options of every node that are one of some words."""
_FILE = ("file",)
REQUIRED: dict[str, tuple[str, ...]] = {
    "blkdebug": ("image",),
    "blklogwrites": ("file", "log"),
    "blkverify": ("test", "raw"),
    "copy-on-read": _FILE,
    "delay": _FILE,
    "file": ("filename",),
    "host_device": ("filename",),
    "luks": _FILE,
    "preallocate": _FILE,
    "qcow2": _FILE,
    "qed": _FILE,
    "quorum": ("children", "vote-threshold"),
    "raw": _FILE,
    "throttle": ("throttle-group", "file"),
    "trace": _FILE,
    "vmdk": _FILE,
}
"""driver -> its members in the schema's order"""
CHILDREN = frozenset(("file", "image", "log", "raw", "test"))
OPTIONAL_CHILDREN = ("backing", "data-file")
LIST = "children"


def check(options: Mapping[str, object], path: str = "") -> None:
    """Raises BlockError(EINVAL) for the first member that is missing, or is no word that it could
    be: "Parameter 'file.throttle-group' is missing". `options` are flat, `path` is the node's."""
    driver = options.get(f"{path}driver")
    if driver is None:
        raise _missing(f"{path}driver")
    for name, words in ENUMS:
        value = options.get(f"{path}{name}", words[0])
        if value not in words:
            raise invalid(f"Parameter '{name}' does not accept value '{value}'")
    required = REQUIRED.get(str(driver), ())
    for member in required:
        name = f"{path}{member}"
        if name not in options and not _has_options(options, name):
            raise _missing(name)
        for child in _children(options, path, member):
            check(options, child)
    for member in OPTIONAL_CHILDREN:
        if _has_options(options, f"{path}{member}"):
            check(options, f"{path}{member}.")


def _has_options(options: Mapping[str, object], name: str) -> bool:
    """Whether a member is described, and not only named; {} describes nothing, and is no name."""
    return options.get(name) == {} or any(key.startswith(f"{name}.") for key in options)


def _children(options: Mapping[str, object], path: str, member: str) -> Iterator[str]:
    """The paths of the nodes that a member describes; none where it only names one."""
    name = f"{path}{member}"
    if member in CHILDREN and _has_options(options, name):
        yield f"{name}."
    elif member == LIST:
        index = 0
        while (has := _has_options(options, f"{name}.{index}")) or f"{name}.{index}" in options:
            if has:
                yield f"{name}.{index}."
            index += 1


def _missing(name: str) -> BlockError:
    return invalid(f"Parameter '{name}' is missing")
