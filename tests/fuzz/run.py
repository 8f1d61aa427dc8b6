# SPDX-License-Identifier: GPL-2.0-only
"""Runs a fuzz target under atheris, guided by the code that its inputs reach.

    python -m tests.fuzz.run virtio_blk                  for ever (make fuzz)
    python -m tests.fuzz.run virtio_blk -max_total_time=15
    python -m tests.fuzz.run virtio_blk build/fuzz/virtio_blk/crash-1234       one input again

Everything after the target's name goes to libFuzzer (-help=1 lists what it knows). The seeds in
corpus/TARGET are where it begins; what it finds worth keeping goes to build/fuzz/TARGET (or to a
folder that is given), and an input that breaks something is saved there too, as crash-... or
timeout-..., and printed.

A process of its own: atheris rewrites the modules as they are imported, and does not return.
"""

from __future__ import annotations

import base64
import importlib
import random
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

HERE = Path(__file__).parent
KEPT = HERE.parent.parent / "build" / "fuzz"

# A target's module -> the packages whose branches guide it.
TARGETS = {"virtio_blk": ["miniqemu.hw"]}


def load(name: str) -> Callable[[bytes], None]:
    """Imports a target with its packages instrumented; returns what runs one input."""
    with atheris.instrument_imports(include=TARGETS[name], enable_loader_override=False):
        module = importlib.import_module(f"tests.fuzz.{name}")
        target: Callable[[bytes], None] = module.Target()
        return target


def reporting(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target, which prints the input that breaks something before it fails."""

    def run_one(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            print(f"\ninput, in base64: {base64.b64encode(data).decode()}", file=sys.stderr)
            raise

    return run_one


def mutator(instruction: int) -> Callable[[bytes, int, int], bytes]:
    """Changes programs by whole instructions, or one field of one; half of the time bytes, as ever.

    `instruction`: bytes of one. libFuzzer's own changes mostly shift what follows out of step.
    """

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        count = len(data) // instruction
        if not count or chance.random() < 0.3:
            return bytes(atheris.Mutate(data, longest))
        code = [data[n * instruction : (n + 1) * instruction] for n in range(count)]
        at, other = chance.randrange(count), chance.randrange(count)
        match chance.randrange(6):
            case 0:
                code.insert(at, code[other])
            case 1:
                del code[at]
            case 2:
                code[at], code[other] = code[other], code[at]
            case 3:
                code[at:at] = code[other:]
            case 4:
                code[at] = bytes(atheris.Mutate(code[at], instruction)).ljust(instruction, b"\0")
            case 5:
                field = bytearray(code[at])
                field[chance.randrange(instruction)] ^= 1 << chance.randrange(8)
                code[at] = bytes(field)
        return b"".join(code)[:longest]

    return mutate


def arguments(name: str, given: list[str]) -> list[str]:
    """What libFuzzer gets: our defaults first, so that what is given wins."""
    kept = KEPT / name
    kept.mkdir(parents=True, exist_ok=True)
    longest = sys.modules[f"tests.fuzz.{name}"].LONGEST
    defaults = [f"-artifact_prefix={kept}/", f"-max_len={longest}", "-timeout=10"]
    defaults += ["-print_final_stats=1", "-rss_limit_mb=1024"]
    places = [word for word in given if not word.startswith("-")]
    if any(Path(place).is_file() for place in places):  # inputs to run again
        return [*defaults, *given]
    return [*defaults, *given, *([] if places else [str(kept)]), str(HERE / "corpus" / name)]


def main(argv: list[str]) -> None:
    """The program."""
    if len(argv) < 2 or argv[1] not in TARGETS:
        sys.exit(f"usage: {argv[0]} {{{','.join(TARGETS)}}} [libFuzzer's arguments]")
    target = load(argv[1])
    instruction = sys.modules[f"tests.fuzz.{argv[1]}"].INSTRUCTION.size
    atheris.Setup(
        [argv[0], *arguments(argv[1], argv[2:])],
        reporting(target),
        custom_mutator=mutator(instruction),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
