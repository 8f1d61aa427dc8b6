# SPDX-License-Identifier: GPL-2.0-only
"""Devices of this machine, ours and the real tools': a loop device, and what is no disk at all.

A loop device is root's to make, and a container may have none. On such a machine of a person's the
tests say so and are skipped; in CI, where nothing is skipped, they are not there. Then
tests/block/protocols/file/test_host_device.py stands in, with a file that passes for a disk.
"""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.side_by_side import SideBySide

pytestmark = pytest.mark.full

SIZE = 4 << 20
LOOP_CTL_GET_FREE = 0x4C82


def can_loop() -> bool:
    """Whether this user may make loop devices, and there is one to be had."""
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
        finally:
            os.close(control)
        os.close(os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Loops:
    """A loop device called `disk` for each side, over a file of 4 MiB that is full of data."""

    def __init__(self, sides: SideBySide) -> None:
        self.sides = sides
        self.made: list[str] = []
        for folder in sides.folders:
            file = folder / "file"
            file.write_bytes(random.Random(5).randbytes(SIZE))
            self.made.append(self._losetup("--find", "--show", os.fspath(file)))
            (folder / "disk").symlink_to(self.made[-1])
            (folder / "source").write_bytes(bytes(1 << 20) + b"data" * 1000 + bytes(96))

    def _losetup(self, *words: str) -> str:
        command = ["losetup", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    def set_read_only(self, read_only: bool) -> None:
        """Makes the disks read-only; a loop device stays so for its next user."""
        for device in self.made:
            command = ["blockdev", "--setro" if read_only else "--setrw", device]
            subprocess.run(command, check=True, timeout=30)

    def remove(self) -> None:
        self.set_read_only(False)
        for device in self.made:
            self._losetup("--detach", device)

    def img(self, *lines: str) -> None:
        """The same words for both, and the same in the files below afterwards."""
        for line in lines:
            self.sides.both("qemu-img", *line.split())
            self.same_content(line)

    def io(self, script: str, *words: str) -> None:
        """The same of commands of qemu-io."""
        commands = [word for each in script.split(" | ") for word in ("-c", each)]
        self.sides.both("qemu-io", *words, *commands, "disk")
        self.same_content(script)

    def same_content(self, after: str) -> None:
        """What the loop devices have written to their files is the same."""
        mine, theirs = self.sides.folders
        for device in self.made:
            fd = os.open(device, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        assert (mine / "file").read_bytes() == (theirs / "file").read_bytes(), after


@pytest.fixture
def sides(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> SideBySide:
    return SideBySide(tmp_path, capfd)


@pytest.fixture
def loops(sides: SideBySide) -> Iterator[Loops]:
    needs.program("qemu-img")
    if not can_loop():
        needs.lacking("a loop device", "run this as root, where /dev/loop-control is")
    loops = Loops(sides)
    yield loops
    loops.remove()


class TestLoopDevices:
    """What both say of a disk, and do with it."""

    __test__ = can_loop() or not os.environ.get("CI")

    def test_a_disk_is_described_in_the_same_words(self, loops: Loops) -> None:
        loops.img(
            "info disk", "info -f raw --output=json disk", "info host_device:disk",
            "info file:disk", "map -f raw disk", "map -f raw --output=json disk",
            "compare -f raw -F raw disk file", "measure -f raw -O qcow2 disk",
            "resize -f raw disk 8M", "resize -f raw --shrink disk 1M", "resize -f raw disk 4M",
        )  # fmt: skip

    def test_an_image_is_made_on_a_disk_that_is_long_enough(self, loops: Loops) -> None:
        loops.img(
            "create -f raw disk 64M", "create -f raw disk 1M", "create -f qcow2 disk 2M",
            "create -f raw -o preallocation=full disk 1M", "check disk", "info disk",
            "map --output=json disk", "create -f qed disk 2M",
            "create -f qcow2 host_device:disk 1M",
            "create -f raw -o nocow=on disk 1M", "create -f raw /dev/null 1M",
            "create -f raw host_device:file 1M", "create -f raw -o help disk",
        )  # fmt: skip

    @pytest.mark.parametrize("how", ["-O raw", "-n -O raw", "-t none -O raw", "-S 0 -O raw"])
    def test_an_image_is_converted_to_a_disk_and_back(self, loops: Loops, how: str) -> None:
        loops.img(f"convert -f raw {how} source disk", "compare -f raw -F raw source disk")
        loops.img("convert -f raw -O qcow2 disk back.qcow2", "compare -f raw disk back.qcow2")

    def test_qcow2_fits_on_a_disk(self, loops: Loops) -> None:
        loops.img("convert -f raw -O qcow2 source disk", "compare -f raw source disk")
        loops.img("dd -f raw -O raw bs=64k count=3 if=source of=dd.out")

    @pytest.mark.parametrize("mode", ["-t writeback", "-n", "-i native -n"])
    def test_requests_end_alike(self, loops: Loops, mode: str) -> None:
        loops.io(
            "write -P 5 0 64k | read -P 5 0 64k | write -z 64k 64k | write -zu 128k 64k |"
            " write -zn 256k 64k | write -zun 512k 64k | discard 1M 64k | read -P 0 1M 64k |"
            " write -z 3M 5000 | write 4M 1k | read 4M 1 | aio_write -z 2M 64k | aio_flush |"
            " map | length | info | alloc 0 4M | truncate 2M | truncate 4M | truncate 8M |"
            " truncate -m full 4M | writev 100k 1k 2k 512",
            *mode.split(), "-f", "raw",
        )  # fmt: skip

    def test_a_disk_that_was_made_read_only_is_not_written(self, loops: Loops) -> None:
        loops.set_read_only(True)
        loops.io("length | write 0 512", "-f", "raw")
        loops.io("length | write 0 512 | reopen -w", "-r", "-f", "raw")

    def test_an_odd_discard_does_what_it_can_where_qemu_s_fails(self, loops: Loops) -> None:
        words = ("-f", "raw", "-c", "write -P 1 0 4k", "-c", "discard 100 2000", "disk")
        assert "Invalid argument" in loops.sides.ask_qemu("qemu-io", *words).out
        assert loops.sides.ask_us("qemu-io", *words).status == 0
        verify = ("-f", "raw", "-c", "read -P 1 0 512", "-c", "read -P 0 512 1536", "disk")
        assert loops.sides.ask_qemu("qemu-io", *verify).status == 1, "which discarded nothing"
        assert loops.sides.ask_us("qemu-io", *verify).status == 0


@pytest.mark.parametrize(
    "line",
    [
        "info /dev/null", "info /dev/zero", "info -f raw --output=json /dev/null",
        "info file:/dev/null", "info host_device:/dev/null", "info host_device:plain",
        "info host_device:", "info --image-opts driver=host_device",
        "info --image-opts driver=host_device,filename=plain",
        "info --image-opts driver=file,filename=/dev/null",
        "info --image-opts driver=host_device,filename=/dev/nosuch", "info /tmp",
        "create -f raw /dev/null 1M", "create -f raw host_device:plain 1M", "map -f raw /dev/null",
        "convert -f raw -O raw plain /dev/null",
    ],
)  # fmt: skip
def test_what_is_no_disk_gets_the_same_words(sides: SideBySide, line: str) -> None:
    for folder in sides.folders:
        (folder / "plain").write_bytes(bytes(1 << 16))
    sides.both("qemu-img", *line.split())
