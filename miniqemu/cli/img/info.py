# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img info`: what an image is (img_info, bdrv_image_info_dump)."""

from __future__ import annotations

from block.core import flags as f
from block.ops.info import query_image_info
from miniqemu.cli.getopt import Words
from miniqemu.cli.output import write

from .common import FORMAT, OUTPUT, SHARED, img_open, one_image, options_of, size_to_str, wants_json
from .errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.ops.info import ImageInfo

LONG = {**SHARED, **FORMAT, **OUTPUT, "backing-chain": ("chain", False)}


def run(program: str, argv: list[str]) -> int:
    """Runs the command; the exit status."""
    words = Words(argv, "f:hU", LONG)
    given = dict(options_of(program, words))
    name = one_image(program, words)
    as_json = wants_json(given.get("output"))
    chain = "chain" in given
    infos = collect(name, given.get("f"), "image-opts" in given, chain, "U" in given)
    if not as_json:
        return write(1, "\n".join("".join(human(info)) for info in infos))
    from block.qapi.qjson import to_json

    return write(1, to_json(infos if chain else infos[0], pretty=True) + "\n")


def collect(
    filename: str, fmt: str | None, image_opts: bool, chain: bool, force_share: bool
) -> list[ImageInfo]:
    """Opens an image, and with `chain` those below it, and asks each (collect_image_info_list)."""
    infos: list[ImageInfo] = []
    seen: set[str] = set()
    while True:
        if filename in seen:
            raise Failure(f"Backing file '{filename}' creates an infinite loop.")
        seen.add(filename)
        flags = f.BDRV_O_NO_BACKING | f.BDRV_O_NO_IO
        blk = img_open(filename, fmt, flags, image_opts=image_opts, force_share=force_share)
        with blk:
            assert blk.bs is not None
            info = query_image_info(blk.bs)
        infos.append(info)
        if not chain or "backing-filename" not in info:
            return infos
        if "full-backing-filename" not in info:
            raise Failure(
                "Could not determine absolute backing filename, but backing filename "
                f"'{info['backing-filename']}' present"
            )
        filename = str(info["full-backing-filename"])
        found = info.get("backing-filename-format")
        fmt, image_opts = None if found is None else str(found), False


def human(info: ImageInfo) -> list[str]:
    """The lines for a person (bdrv_image_info_dump)."""
    size, taken = info["virtual-size"], info.get("actual-size")
    assert isinstance(size, int)
    room = size_to_str(taken) if isinstance(taken, int) else "unavailable"
    lines = [
        f"image: {info['filename']}\n",
        f"file format: {info['format']}\n",
        f"virtual size: {size_to_str(size)} ({size} bytes)\n",
        f"disk size: {room}\n",
    ]
    if info.get("encrypted"):
        lines.append("encrypted: yes\n")
    if "cluster-size" in info:
        lines.append(f"cluster_size: {info['cluster-size']}\n")
    if info.get("dirty-flag"):
        lines.append("cleanly shut down: no\n")
    if "backing-filename" in info:
        lines += _backing(info)
    if "snapshots" in info:
        lines += _snapshots(info["snapshots"])
    if "format-specific" in info:
        lines.append("Format specific information:\n")
        specific = info["format-specific"]
        assert isinstance(specific, dict)
        lines += dump(specific["data"], 1)
    return lines


def _snapshots(members: object) -> list[str]:
    """The list of snapshots; the schema's members are those of the core's SnapshotInfo."""
    from block.core.snapshot import NO_ICOUNT, SnapshotInfo

    from .snapshot_list import snapshot_lines

    assert isinstance(members, list)
    return snapshot_lines(
        [
            SnapshotInfo(
                each["name"],
                each["id"],
                vm_state_size=each["vm-state-size"],
                date_sec=each["date-sec"],
                vm_clock_nsec=each["vm-clock-sec"] * 1_000_000_000 + each["vm-clock-nsec"],
                icount=each.get("icount", NO_ICOUNT),
            )
            for each in members
        ]
    )


def _backing(info: ImageInfo) -> list[str]:
    name, full = info["backing-filename"], info.get("full-backing-filename")
    where = ""
    if full is None:
        where = " (cannot determine actual path)"
    elif full != name:
        where = f" (actual path: {full})"
    lines = [f"backing file: {name}{where}\n"]
    if "backing-filename-format" in info:
        lines.append(f"backing file format: {info['backing-filename-format']}\n")
    return lines


def dump(value: object, indent: int) -> list[str]:
    """Any value as indented lines (dump_qobject)."""
    if isinstance(value, dict):
        from block.qapi.qjson import dict_items

        members = [(name.replace("-", " "), member) for name, member in dict_items(value)]
    else:
        assert isinstance(value, list)
        members = [(f"[{index}]", member) for index, member in enumerate(value)]
    lines = []
    for name, member in members:
        if isinstance(member, dict | list):
            lines += [f"{'    ' * indent}{name}:\n", *dump(member, indent + 1)]
        else:
            text = str(member).lower() if isinstance(member, bool) else str(member)
            lines.append(f"{'    ' * indent}{name}: {text}\n")
    return lines
