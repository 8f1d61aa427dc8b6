# SPDX-License-Identifier: GPL-2.0-only
"""What the guest writes is in the image, and nothing else is: the real qemu-img compares.

The expected image is made here, from the meaning of the commands alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.conftest import SECTOR, SECTORS
from tests.support.boot import GOOD, MINIQEMU_KVM, QEMU_KVM, Disk, Vmm, boot
from tests.support.qemu_tools import qemu

COMMANDS = """
write 0 the first sector; write 3 0xa5; iwrite 7 by an indirect descriptor; flush;
zero 110 5; discard 1024 256; write 2047 the last;
disk 1; write 96 0x5c; iwrite 104 over eight sectors; disk 0; selftest
"""
BLOCKS_OF_4_KIB = ",logical_block_size=4096,physical_block_size=4096"


def lines_of(text: str, nbytes: int = SECTOR) -> bytes:
    """Returns a block filled with lines of the text, as `write SECTOR TEXT` does."""
    line = text.encode() + b"\n"
    return (line * nbytes)[:nbytes]


def expected(before: bytes) -> bytes:
    """Returns what COMMANDS make of the first disk's image."""
    sectors = [before[at : at + SECTOR] for at in range(0, len(before), SECTOR)]
    sectors[0] = lines_of("the first sector")
    sectors[3] = b"\xa5" * SECTOR
    sectors[7] = lines_of("by an indirect descriptor")
    sectors[110:115] = [bytes(SECTOR)] * 5
    sectors[1024:1280] = [bytes(SECTOR)] * 256
    sectors[2047] = lines_of("the last")
    assert len(sectors) == SECTORS
    return b"".join(sectors)


def expected_of_large_blocks(before: bytes) -> bytes:
    """Returns what COMMANDS make of the second disk's, whose blocks are of eight sectors."""
    written = b"\x5c" * 4096 + lines_of("over eight sectors", 4096)
    return before[: 96 * SECTOR] + written + before[112 * SECTOR :]


def same(one: Path, other: Path) -> bool:
    """Whether qemu-img finds the images equal, sizes included."""
    done = qemu("qemu-img", "compare", "-f", "raw", "-F", "raw", one, other)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0 and one.stat().st_size == other.stat().st_size


@pytest.mark.parametrize("vmm", [QEMU_KVM, MINIQEMU_KVM], ids=str)
@pytest.mark.parametrize("iothread", [False, True], ids=["main-loop", "iothread"])
def test_the_image_holds_what_the_guest_wrote(vmm: Vmm, image: Path, iothread: bool) -> None:
    other = image.with_name("other.img")
    other.write_bytes(image.read_bytes()[::-1])
    wanted, other_wanted = image.with_name("expected.img"), image.with_name("expected-other.img")
    wanted.write_bytes(expected(image.read_bytes()))
    other_wanted.write_bytes(expected_of_large_blocks(other.read_bytes()))
    assert not same(image, wanted)
    assert not same(other, other_wanted)

    first = Disk(image, drive=",discard=unmap", iothread=iothread)
    second = Disk(other, device=BLOCKS_OF_4_KIB, iothread=iothread)
    outcome = boot(vmm, [first, second], COMMANDS.strip().replace("\n", " "))

    assert outcome.status == GOOD, outcome.serial + outcome.errors
    assert same(image, wanted)
    assert same(other, other_wanted)
