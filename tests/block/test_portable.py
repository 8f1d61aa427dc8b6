# SPDX-License-Identifier: GPL-2.0-only
"""Only with --portable: what the block layer uses where the system is not Linux.

The other tests then say that all of it works; these say that Linux's own is really off.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from block.aio.gate import PipeGate
from block.aio.notifier import PipeNotifier
from block.aio.poller import PollPoller
from block.aio.world import World, the_world
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.core.open import open_backend

pytestmark = pytest.mark.portable

DIRECT = f.BDRV_O_RDWR | f.BDRV_O_NOCACHE


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "a.img"
    path.write_bytes(bytes(4096))
    return str(path)


def opened(image: str, flags: int = f.BDRV_O_RDWR, **options: str) -> BlockBackend:
    return open_backend(image, options={"driver": "file", **options}, flags=flags)


@pytest.mark.parametrize("world", [World(), the_world()], ids=["by itself", "the process's"])
def test_a_world_finds_poll_and_pipes(world: World) -> None:
    poller, notifier, gate = world.new_poller(), world.new_notifier(), world.new_gate()
    assert [type(poller), type(notifier), type(gate)] == [PollPoller, PipeNotifier, PipeGate]
    for made in (poller, notifier, gate):
        made.close()


def test_a_file_has_no_fast_reads_and_no_locks(image: str) -> None:
    with opened(image) as first, opened(image) as second:
        assert first.bs is not None
        assert not first.bs.opaque.nowait
        assert not first.bs.opaque.use_lock
        second.pwrite(0, b"two writers")
        assert first.pread(0, 11) == b"two writers"


def test_locks_that_are_asked_for_are_posix_locks_with_a_warning(
    image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(image, locking="on") as blk:
        blk.pwrite(0, b"x")
    assert capsys.readouterr().err == (
        "warning: File lock requested but OFD locking syscall is unavailable, "
        "falling back to POSIX file locks\n"
        "Due to the implementation, locks can be lost unexpectedly.\n"
    )


@pytest.mark.parametrize("aio", ["native", "io_uring"])
def test_the_kernels_queues_are_refused_by_name(image: str, aio: str) -> None:
    with pytest.raises(BlockError, match=aio):
        opened(image, DIRECT, aio=aio)
