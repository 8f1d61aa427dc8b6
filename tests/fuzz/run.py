# SPDX-License-Identifier: GPL-2.0-only
"""Runs a fuzz target under atheris, guided by the code that its inputs reach.

    python -m tests.fuzz.run virtio_blk                  for ever (make fuzz)
    python -m tests.fuzz.run qcow2 -max_total_time=15
    python -m tests.fuzz.run virtio_blk build/fuzz/virtio_blk/crash-1234       one input again

Everything after the target's name goes to libFuzzer (-help=1 lists what it knows). It begins with
the seeds (seeds.py, image_seeds.py); what it finds worth keeping goes to build/fuzz/TARGET (or to a
folder that is given), and an input that breaks something is saved there too, as crash-... or
timeout-..., and printed.

A process of its own: atheris rewrites the modules as they are imported, and does not return.
"""

from __future__ import annotations

import base64
import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import atheris

from tests.fuzz import mutators

HERE = Path(__file__).parent
KEPT = HERE.parent.parent / "build" / "fuzz"


class Kind(NamedTuple):
    """A target: its module, the packages whose branches guide it, and the byte order of its fields
    (of a program: none)."""

    module: str
    packages: list[str]
    endian: str = ""


TARGETS = {
    "virtio_blk": Kind("virtio_blk", ["miniqemu.hw"]),
    "qcow2": Kind("image", ["block.formats.qcow2"], ">"),
    "luks": Kind("image", ["block.formats.luks", "block.crypto.luks"], ">"),
    "qed": Kind("image", ["block.formats.qed"], "<"),
    "vmdk": Kind("image", ["block.formats.vmdk"], "<"),
}


def load(name: str) -> tuple[Any, Callable[[bytes], None]]:
    """Imports a target, its packages instrumented; returns its module and what runs an input."""
    kind = TARGETS[name]
    with atheris.instrument_imports(include=kind.packages, enable_loader_override=False):
        for package in kind.packages:
            import_all(package)
        module = importlib.import_module(f"tests.fuzz.{kind.module}")
        return module, module.Target(name) if kind.endian else module.Target()


def import_all(package: str) -> None:
    """Imports what a driver would import when it is first needed: too late to be instrumented."""
    folder = HERE.parent.parent.joinpath(*package.split("."))
    for path in sorted(folder.glob("*.py")):
        importlib.import_module(package if path.stem == "__init__" else f"{package}.{path.stem}")


def reporting(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target, which prints the input that breaks something before it fails."""

    def run_one(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            print(f"\ninput, in base64: {base64.b64encode(data).decode()}", file=sys.stderr)
            raise

    return run_one


def seeds_of(name: str) -> Path:
    """The folder with what a target begins with: of programs it is committed, images are made."""
    if not TARGETS[name].endian:
        return HERE / "corpus" / name
    from tests.fuzz.image_seeds import images

    folder = Path(tempfile.mkdtemp(prefix="seeds-"))
    for seed, image in images(name).items():
        (folder / seed).write_bytes(image)
    return folder


def arguments(name: str, longest: int, given: list[str]) -> list[str]:
    """What libFuzzer gets: our defaults first, so that what is given wins."""
    kept = KEPT / name
    kept.mkdir(parents=True, exist_ok=True)
    defaults = [f"-artifact_prefix={kept}/", f"-max_len={longest}", "-timeout=10"]
    defaults += ["-print_final_stats=1", "-rss_limit_mb=1024"]
    places = [word for word in given if not word.startswith("-")]
    if any(Path(place).is_file() for place in places):  # inputs to run again
        return [*defaults, *given]
    return [*defaults, *given, *([] if places else [str(kept)]), str(seeds_of(name))]


def main(argv: list[str]) -> None:
    """The program."""
    if len(argv) < 2 or argv[1] not in TARGETS:
        sys.exit(f"usage: {argv[0]} {{{','.join(TARGETS)}}} [libFuzzer's arguments]")
    name = argv[1]
    words = [str(Path(word).resolve()) if not word.startswith("-") else word for word in argv[2:]]
    module, target = load(name)
    given = arguments(name, module.LONGEST, words)
    if TARGETS[name].endian:
        mutator = mutators.of_images(TARGETS[name].endian)
    else:
        mutator = mutators.of_programs(module.INSTRUCTION.size)
    atheris.Setup([argv[0], *given], reporting(target), custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
