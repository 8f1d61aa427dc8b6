# SPDX-License-Identifier: GPL-2.0-only
"""`convert`, ours against qemu-img's: from and to raw and qcow2, packed and unpacked.

The disk has as many data as holes, by turns of 16 MiB. What is packed is what disks hold: the
programs and sources of this machine's Python. The unit is MiB of the disk, holes included, for each
second of the whole process. What is packed is an eighth as long, since zlib takes its time.
"""

from __future__ import annotations

import functools
import os
import sysconfig
from collections.abc import Callable
from pathlib import Path

from benchmarks import images, tools
from benchmarks.harness import Case, Other
from benchmarks.tools import OURS, THEIRS

WITHOUT_ISAL = "miniqemu-img without isal"
MIB = 1 << 20
STRETCH = 16 * MIB
PLAIN_MIB, PACKED_MIB, QUICK_MIB = 1024, 128, 64
# from, to, goal of the ratio
PLAIN = (("raw", "raw", 1.2), ("raw", "qcow2", 0.9), ("qcow2", "raw", 0.9), ("qcow2", "qcow2", 0.9))
# method, which of ours, goal
PACKING = (("zlib", OURS, 5.0), ("zlib", WITHOUT_ISAL, 1.5), ("zstd", OURS, 1.5))
UNPACKING = (("zlib", 1.0), ("zstd", 1.0))
HUGE_MIB = 1024
RESIDENT_MB = 150.0


def cases(quick: bool) -> list[Case]:
    """Returns all conversions, and the memory that a huge sparse image takes."""
    plain, packed = (QUICK_MIB, QUICK_MIB) if quick else (PLAIN_MIB, PACKED_MIB)
    return [
        *(plain_case(*row, plain) for row in PLAIN),
        *(packing_case(*row, packed) for row in PACKING),
        *(unpacking_case(*row, plain) for row in UNPACKING),
        huge_case(QUICK_MIB if quick else HUGE_MIB),
    ]


def case(name: str, size: int, goal: float, words: Callable[[str], list[str]], ours: str) -> Case:
    """Returns a conversion of `size` MiB; `words` makes its words for one of the programs."""

    def speed(program: str) -> float:
        return size / tools.seconds(program, "convert", *words(program))

    theirs = Other("qemu-img convert", functools.partial(speed, THEIRS), goal)
    return Case(name, "MiB/s", "higher", functools.partial(speed, ours), (theirs,))


def plain_case(source: str, target: str, goal: float, size: int) -> Case:
    """Returns a conversion without compression."""

    def words(program: str) -> list[str]:
        return ["-f", source, "-O", target, image(source, size), output(program, target)]

    return case(f"convert {source} to {target}", size, goal, words, OURS)


def packing_case(method: str, ours: str, goal: float, size: int) -> Case:
    """Returns `convert -c`."""

    def words(program: str) -> list[str]:
        options = ["-c", "-f", "raw", "-O", "qcow2", "-o", f"compression_type={method}"]
        return [*options, image("raw", size), output(program, "qcow2")]

    by = {("zlib", OURS): ", isal", ("zlib", WITHOUT_ISAL): ", zlib"}.get((method, ours), "")
    return case(f"convert -c {method}{by}", size, goal, words, ours)


def unpacking_case(method: str, goal: float, size: int) -> Case:
    """Returns a conversion of a packed image, which QEMU has packed, to raw."""

    def words(program: str) -> list[str]:
        return ["-f", "qcow2", "-O", "raw", image(method, size), output(program, "raw")]

    return case(f"convert packed by {method} to raw", size, goal, words, OURS)


def huge_case(size: int) -> Case:
    """Returns the memory for a disk of 1 TiB that holds `size` MiB."""

    def ours() -> float:
        words = ("convert", "-f", "qcow2", "-O", "qcow2", huge(size), output(OURS, "qcow2"))
        return tools.resident(OURS, *words)

    return Case("convert 1 TiB, sparse: resident", "MB", "lower", ours, goal=RESIDENT_MB)


# -- images


def output(program: str, fmt: str) -> str:
    """Returns where a program writes. Each has its own file; the old one has gone before."""
    path = images.place(f"{'theirs' if program == THEIRS else 'ours'}.{fmt}")
    Path(path).unlink(missing_ok=True)
    return path


@functools.cache
def image(kind: str, size: int) -> str:
    """Returns the disk as raw, qcow2, or packed by a method; it is made once."""
    path = images.place(f"source-{size}.{kind}")
    if kind == "raw":
        write_disk(path, size * MIB)
        return path
    packing = [] if kind == "qcow2" else ["-c", "-o", f"compression_type={kind}"]
    tools.run(THEIRS, "convert", *packing, "-O", "qcow2", image("raw", size), path)
    return path


@functools.cache
def huge(size: int) -> str:
    """Returns a qcow2 image of 1 TiB with data in every thousandth place or so."""
    path = images.place("huge.qcow2")
    tools.run(OURS, "create", "-f", "qcow2", path, "1T")
    import block

    piece = content(MIB)
    with block.open(path, format="qcow2", cache="unsafe") as disk:
        for offset in range(0, 1 << 40, (1 << 40) // size):
            disk.pwrite(offset, piece)
    return path


def write_disk(path: str, size: int) -> None:
    """Writes data and holes by turns."""
    data = content(min(size // 2, 64 * MIB))
    with open(path, "wb") as file:
        for number, offset in enumerate(range(0, size, 2 * STRETCH)):
            file.seek(offset)
            start = number * STRETCH % len(data)
            file.write(data[start : start + STRETCH])
        file.truncate(size)
        file.flush()
        os.fsync(file.fileno())


@functools.cache
def content(size: int) -> bytes:
    """Returns what disks hold: files of Python's library, sources and programs by name."""
    found = bytearray()
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.*")):
        if path.suffix in (".py", ".pyc", ".so") and path.is_file():
            found += path.read_bytes()
        if len(found) >= size:
            break
    while len(found) < size:
        found += found[: size - len(found)]
    return bytes(found[:size])
