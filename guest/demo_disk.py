# SPDX-License-Identifier: GPL-2.0-only
"""Makes the disk image that `make run` boots the guest with: text in known sectors.

    python -m guest.demo_disk demo.img

Sector 0 says what there is to see, sectors 8 to 15 hold a page that names each of its
sectors, the rest is a hole. Depends on nothing but Python, and never overwrites a file:
one that is there is the person's own by now.
"""

from __future__ import annotations

import sys

SECTOR = 512
SIZE = 8 << 20

# The guest's dump shows 16 bytes a line, so the text is set in lines of 16.
WELCOME = """\
Hello! This is
sector 0 of the
demo disk.

Your command
became a request
in a ring; a
doorbell woke an
IOThread; it
went through raw
to file, whose
preadv() filled
the guest's
memory; then an
interrupt woke
the shell.

Try:
 help
 write 1 hello
 read 1
 id
 info
 bench 999 8 irq
 selftest

Sectors 8 to 15
name themselves.
"""


def sector_text(number: int) -> bytes:
    """Returns the 512 bytes of a sector in which each line says where it is."""
    return b"".join(f"sector {number:2}, {16 * line:3}".encode().ljust(16) for line in range(32))


def dump_lines(text: str) -> bytes:
    """Returns a sector whose dump shows the text, line by line."""
    lines = b"".join(line.encode().ljust(16) for line in text.splitlines())
    return lines.ljust(SECTOR, b"\0")


def contents() -> dict[int, bytes]:
    """Returns what the disk holds: sector number -> bytes from there on."""
    return {
        0: dump_lines(WELCOME),
        8: b"".join(sector_text(number) for number in range(8, 16)),
    }


def create(path: str) -> None:
    """Makes the image at path. Raises FileExistsError if something is there."""
    with open(path, "xb") as image:
        image.truncate(SIZE)
        for sector, data in contents().items():
            image.seek(sector * SECTOR)
            image.write(data)


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        print("usage: python -m guest.demo_disk FILE", file=sys.stderr)
        return 2
    try:
        create(argv[1])
    except FileExistsError:
        print(f"{argv[1]} is there already and stays as it is")
    except OSError as error:
        print(f"demo_disk: {argv[1]}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
