# SPDX-License-Identifier: GPL-2.0-only
"""Throttling beside the real QEMU's: the same words, and as long a time for a heap of requests."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from block.core.backend_limits import io_limits_enable, set_io_limits
from block.core.error import BlockError
from block.core.open import bdrv_open
from block.objects.throttle_options import config_of
from tests.support import needs, qemu_tools
from tests.support.drivers import backend_on
from tests.support.throttled import PERM, SECOND_NS, now_ns, virtual_world

pytestmark = pytest.mark.full

WRONG = [
    {"iops-total": 1, "iops-read": 1},
    {"bps-total": 9, "bps-total-max": 9, "bps-write": 1},
    {"iops-size": 512, "bps-total": 1},
    {"bps-read": 10**15 + 1},
    {"bps-read": -1},
    {"iops-total": 1, "iops-total-max": 2, "iops-total-max-length": 0},
    {"iops-total": 1, "iops-total-max-length": 2},
    {"iops-total": 1, "iops-total-max-length": -1},
    {"iops-total": 1, "iops-total-max": 10**15, "iops-total-max-length": 2},
    {"bps-write-max": 1},
    {"iops-read": 2, "iops-read-max": 1},
    {"bps-read-max-length": 1 << 32},
    {"iops-total": 1, "iops-write-max": 5, "bps-read-max-length": 0},
]


@pytest.mark.parametrize("limits", WRONG, ids=str)
def test_wrong_limits_get_qemus_words(limits: dict[str, int]) -> None:
    words = ",".join(f"limits.{name}={value}" for name, value in limits.items())
    done = qemu_tools.qemu("qemu-io", "--object", f"throttle-group,id=g,{words}", "-c", "quit")
    assert done.returncode != 0
    with pytest.raises(BlockError) as refused:
        config_of(limits).check()
    assert done.stderr.removeprefix("qemu-io: ").strip() == str(refused.value)


def test_a_group_that_there_is_not_gets_qemus_words() -> None:
    options = "driver=throttle,throttle-group=nope,file.driver=null-co"
    done = qemu_tools.qemu("qemu-io", "--image-opts", options, "-c", "quit")
    with pytest.raises(BlockError) as refused:
        bdrv_open(
            options={"driver": "throttle", "throttle-group": "nope", "file.driver": "null-co"}
        )
    assert done.stderr.strip().endswith(f": {refused.value}")


class Qemu:
    """A real QEMU with one disk that forgets, `drive0`."""

    def __init__(self, folder: Path) -> None:
        words = ["-machine", "none", "-display", "none", "-nodefaults"]
        words += ["-drive", "if=none,id=drive0,driver=null-co"]
        words += ["-chardev", f"socket,id=qmp,path={folder / 'qmp'}", "-mon", "qmp,mode=control"]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "qmp"))
            listener.listen(1)
            listener.settimeout(60)
            self.process = subprocess.Popen(
                [needs.program("qemu-system-x86_64"), *words], stdin=subprocess.DEVNULL
            )
            connection = listener.accept()[0]
        self.qmp = connection.makefile("rw", newline="\n")
        connection.close()
        assert "QMP" in json.loads(self.qmp.readline())
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        self.qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.qmp.flush()
        while True:
            answer = json.loads(self.qmp.readline())
            if "event" not in answer:
                return answer["return"]

    def submit(self, request: str) -> None:
        line = f'qemu-io drive0 "{request}"'
        self.execute("human-monitor-command", **{"command-line": line})

    def done(self) -> int:
        stats = self.execute("query-blockstats")[0]["stats"]
        return int(stats["rd_operations"] + stats["wr_operations"])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.qmp.close()


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    with closing(Qemu(tmp_path)) as running:
        yield running


QMP_NAMES = {
    "bps-total": "bps", "bps-read": "bps_rd", "bps-write": "bps_wr",
    "iops-total": "iops", "iops-read": "iops_rd", "iops-write": "iops_wr",
}  # fmt: skip


def for_qmp(limits: dict[str, int]) -> dict[str, int]:
    """The same limits in the words of block_set_io_throttle."""
    words = dict.fromkeys(QMP_NAMES.values(), 0)
    for name, value in limits.items():
        for ours, theirs in QMP_NAMES.items():
            if name.startswith(ours):
                words[theirs + name.removeprefix(ours).replace("-", "_")] = value
        if name == "iops-size":
            words["iops_size"] = value
    return words


SIZES = (512, 4096, 1536, 512)
COUNT = 60


def requests() -> Iterator[tuple[str, int]]:
    for number in range(COUNT):
        yield ("aio_write" if number % 3 == 2 else "aio_read"), SIZES[number % 4]


def seconds_of_ours(limits: dict[str, int]) -> float:
    """How long all requests take, submitted at once; by the clock that stands still."""
    with virtual_world():
        disk = backend_on(bdrv_open(options={"driver": "null-co"}), PERM)
        io_limits_enable(disk, "g")
        set_io_limits(disk, config_of(limits))
        for request, size in requests():
            submit = disk.aio_pwritev if request == "aio_write" else disk.aio_preadv
            submit(0, [memoryview(bytearray(size))], lambda ret: None)
        began = now_ns(disk)
        while sum(disk.stats.nr_ops) < COUNT:
            disk.aio_context.poll(True)
        took = now_ns(disk) - began
        disk.close()
    return took / SECOND_NS


def seconds_of_qemu(qemu: Qemu, limits: dict[str, int]) -> float:
    """The same requests in the real one, with empty buckets, by the clock on the wall."""
    qemu.execute("block_set_io_throttle", device="drive0", **for_qmp(limits))
    target = qemu.done() + COUNT
    began = monotonic()
    for request, size in requests():
        qemu.submit(f"{request} 0 {size}")
    while qemu.done() < target:
        pass
    return monotonic() - began


@pytest.mark.parametrize(
    "limits",
    [
        {"iops-total": 150},
        {"iops-read": 100, "iops-write": 300},
        {"bps-total": 300_000},
        {"bps-write": 60_000, "iops-read": 500},
        {"iops-total": 300, "iops-size": 1000},
        {"iops-total": 30, "iops-total-max": 45},
        {"iops-total": 20, "iops-total-max": 55, "iops-total-max-length": 2},
        {"bps-read": 8192, "bps-read-max": 50_000, "bps-read-max-length": 3, "iops-total": 200},
    ],
    ids=str,
)
def test_a_heap_of_requests_takes_as_long_as_in_qemu(qemu: Qemu, limits: dict[str, int]) -> None:
    """Never less than we compute; and, unless the machine is busy each time, hardly more."""
    ours = seconds_of_ours(limits)
    assert 0.2 < ours < 2
    for _ in range(20):
        theirs = seconds_of_qemu(qemu, limits)
        assert theirs > ours - 0.001
        if theirs < ours * 1.25 + 0.1:
            return
    pytest.fail(f"QEMU takes {theirs:.3f} s at best, we {ours:.3f} s")
