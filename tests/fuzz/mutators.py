# SPDX-License-Identifier: GPL-2.0-only
"""How inputs are changed: programs by whole instructions, images field by field.

libFuzzer's own changes mostly shift what follows out of step; they are tried now and then as well.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import atheris

Mutator = Callable[[bytes, int, int], bytes]
INTERESTING = (0, 1, 2, 0x7F, 0xFF, 512, 4096, 65536, 1 << 30, 1 << 62, 1 << 63, (1 << 64) - 1)


def of_programs(instruction: int) -> Mutator:
    """Changes programs by whole instructions of so many bytes, or one field of one."""

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


def of_images(endian: str) -> Mutator:
    """Changes fields of 1 to 8 bytes where something stands, mostly near the beginning; `endian` is
    the format's, as struct has it."""
    codes = [endian + code for code in "BHIQ"]

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if len(data) < 64 or chance.random() < 0.1:
            return bytes(atheris.Mutate(data, longest))
        image = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            code = struct.Struct(chance.choice(codes))
            at = _somewhere(image, chance) // code.size * code.size
            if at + code.size > len(image):
                continue
            mask = (1 << 8 * code.size) - 1
            (value,) = code.unpack_from(image, at)
            match chance.randrange(5):
                case 0:
                    value = chance.choice(INTERESTING)
                case 1:
                    value ^= 1 << chance.randrange(8 * code.size)
                case 2:
                    value += chance.choice((-1, 1)) << chance.choice((0, 0, 3, 9, 12, 16))
                case 3:
                    (value,) = code.unpack_from(image, _aligned(image, chance, code.size))
                case 4:
                    value = chance.randrange(len(image)) & ~511
            code.pack_into(image, at, value & mask)
        if chance.random() < 0.05:
            del image[chance.randrange(len(image)) :]
        return bytes(image[:longest])

    return mutate


def _aligned(image: bytearray, chance: random.Random, size: int) -> int:
    return chance.randrange(len(image) - size + 1) // size * size


def _somewhere(image: bytearray, chance: random.Random) -> int:
    """An offset: in the first sector, or where a byte is that is not zero."""
    if chance.random() < 0.5:
        return chance.randrange(min(512, len(image)))
    at = chance.randrange(len(image))
    rest = bytes(image[at : at + 65536]).lstrip(b"\0")
    return at + min(65536, len(image) - at) - len(rest) if rest else at
