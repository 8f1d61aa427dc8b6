# SPDX-License-Identifier: GPL-2.0-only
"""Runs cells of the matrix: the self-test must pass, and leave the image as it was.

    verdict = run_here(cell, folder)            on this machine
    verdicts = run_nested(cells, folder)        in one nested machine, one after the other

The image is made by qemu-img and compared by it, whichever program had the disk.
"""

from __future__ import annotations

import ctypes
import random
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from block.aio.liburing_rings import LIBRARY as LIBURING
from tests.matrix.cells import VMMS, Cell
from tests.support import needs
from tests.support.boot import GOOD, Disk, arguments, boot, parse_tap
from tests.support.nested_machine import boot_nested, fill
from tests.support.qemu_tools import qemu

MIB = 1 << 20
NESTED_SECONDS = 250
MARK = "=== cell"
WORK = "/disk/work"  # in the nested machine, where files can be opened with O_DIRECT


@dataclass(frozen=True)
class Verdict:
    """How a cell came out: nothing wrong, or what."""

    wrong: str
    seconds: float
    tests: int = 0


def disk_for(cell: Cell, path: Path) -> Disk:
    """The disk as the command line names it. Linux AIO needs O_DIRECT."""
    cache = ",cache=none" if cell.engine == "native" else ""
    drive = f",aio={cell.engine}{cache}"
    return Disk(path, format=cell.format, drive=drive, iothread=cell.served == "iothread")


def make_images(folder: Path, format: str) -> tuple[Path, Path]:
    """(image, what it holds, raw): contents that look random, so that no change goes unseen."""
    raw, image = folder / "contents.raw", folder / f"disk.{format}"
    raw.write_bytes(random.Random(1).randbytes(MIB))
    qemu_img("convert", "-f", "raw", "-O", format, str(raw), str(image))
    return image, raw


def qemu_img(*words: str) -> None:
    """Runs it; raises RuntimeError with what it said."""
    done = qemu("qemu-img", *words)
    if done.returncode:
        raise RuntimeError(f"qemu-img {words[0]}: {done.stdout}{done.stderr}")


def judge(serial: str, status: int) -> tuple[str, int]:
    """(what is wrong, how many tests passed) of a run of the self-test."""
    tap = parse_tap(serial)
    if tap.failed:
        return f"failed: {', '.join(tap.failed)}", len(tap.passed)
    if status != GOOD or not tap.complete:
        return f"exit status {status}, last words: {serial[-200:]!r}", len(tap.passed)
    return "", len(tap.passed)


def need(cell: Cell) -> None:
    """Skips the test (fails it in CI) where something for this cell is missing."""
    needs.program("qemu-img")
    needs.engine(cell.engine)
    if cell.nested:
        needs.program("qemu-system-x86_64")
        needs.library(LIBURING, "liburing2")


def run_here(cell: Cell, folder: Path) -> Verdict:
    """Boots the self-test, then asks qemu-img about the image."""
    image, raw = make_images(folder, cell.format)
    start = time.monotonic()
    outcome = boot(VMMS[cell.machine], [disk_for(cell, image)], "selftest", timeout=100)
    seconds = time.monotonic() - start
    wrong, tests = judge(outcome.serial, outcome.status)
    try:
        if cell.format != "raw":
            qemu_img("check", "-f", cell.format, str(image))
        qemu_img("compare", "-f", "raw", "-F", cell.format, str(raw), str(image))
    except RuntimeError as error:
        wrong = wrong or str(error)
    return Verdict(wrong, seconds, tests)


def run_nested(cells: Sequence[Cell], folder: Path) -> dict[Cell, Verdict]:
    """One nested machine boots (half a minute), and runs all of them."""
    tree = nested_tree(cells, folder)
    done = boot_nested(tree, ["sh", "run.sh"], NESTED_SECONDS, sites())
    text = done.stdout.replace("\r\n", "\n")
    parts = re.split(rf"^{MARK} (\d+)\n", text, flags=re.M)
    said = dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))
    return {
        cell: nested_verdict(said.get(number, done.stderr)) for number, cell in enumerate(cells)
    }


def sites() -> list[str]:
    """What qcow2 and io_uring need beside the nested machine's Python."""
    import construct

    added = {
        Path(construct.__file__).parent: "/site/construct",
        path_of(LIBURING): f"/usr/lib/x86_64-linux-gnu/{LIBURING}",
    }
    return [word for here, there in added.items() for word in ("--add", f"{here}={there}")]


def path_of(library: str) -> Path:
    """Where a shared library of this machine is: this process has loaded it."""
    handle = ctypes.CDLL(library)
    maps = Path("/proc/self/maps").read_text()
    found = re.search(rf"/\S*/{re.escape(library)}\S*", maps)
    assert found is not None, f"{handle} is loaded from nowhere"
    return Path(found[0])


def nested_tree(cells: Sequence[Cell], folder: Path) -> Path:
    """What the nested machine gets: packages, guest, a disk for each format, a script."""
    tree = folder / "tree"
    fill(tree)
    for format in sorted({cell.format for cell in cells}):
        make_images(tree, format)
    script = []
    for number, cell in enumerate(cells):
        disk = disk_for(cell, Path(WORK))
        words = arguments(VMMS[cell.machine], [disk], "selftest", "guest.elf")
        script += [
            f"echo {shlex.quote(f'{MARK} {number}')}",
            f"cp disk.{cell.format} {WORK}",
            "start=$(cut -d' ' -f1 /proc/uptime)",
            f"python3 -m miniqemu {shlex.join(words)} </dev/null",
            'echo "=== status $? $start $(cut -d" " -f1 /proc/uptime)"',
        ]
        if cell.format == "raw":
            script.append(f"cmp {WORK} contents.raw && echo '=== same'")
    (tree / "run.sh").write_text("\n".join(script) + "\n")
    return tree


def nested_verdict(text: str) -> Verdict:
    """What one cell's part of the output says."""
    found = re.search(r"^=== status (\d+) ([\d.]+) ([\d.]+)$", text, re.M)
    if found is None:
        return Verdict(f"it did not end: {text[-300:]!r}", 0)
    wrong, tests = judge(text, int(found[1]))
    if not wrong and "differ" in text:
        wrong = "the image is not as it was"
    return Verdict(wrong, float(found[3]) - float(found[2]), tests)
