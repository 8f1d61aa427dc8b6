# SPDX-License-Identifier: GPL-2.0-only
"""The fuzzer: its seeds are in order, its rules find bugs, and it finds none in a short run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from block.core.accounting import WRITE
from miniqemu.hw.virtio import VirtioDevice
from miniqemu.hw.virtio_blk import VirtioBlk
from miniqemu.hw.virtqueue import VirtQueue
from tests.fuzz import seeds
from tests.fuzz.short_run import short_run
from tests.fuzz.virtio_blk import Target

SECONDS = 15
BRANCHES = 500  # that a short run reaches at least; the seeds alone reach 490, minutes 575


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with closing(Target()) as target:
        yield target


@pytest.fixture
def spoilt() -> Iterator[Target]:
    """A target of one's own: the test leaves it in a state that nobody wants."""
    with closing(Target()) as target:
        yield target


@pytest.mark.parametrize("name", seeds.VIRTIO_BLK)
def test_a_seed_runs_and_is_the_one_in_the_corpus(target: Target, name: str) -> None:
    program = seeds.VIRTIO_BLK[name]
    assert (seeds.CORPUS / "virtio_blk" / name).read_bytes() == program
    target(program)


def test_there_is_nothing_else_in_the_corpus() -> None:
    names = {path.name for path in (seeds.CORPUS / "virtio_blk").iterdir()}
    assert names == set(seeds.VIRTIO_BLK)


def test_the_seeds_do_what_their_names_say(target: Target) -> None:
    target.disk.data[512:1024] = b"r" * 512
    target(seeds.VIRTIO_BLK["read"])
    assert target.rig.memory.read(seeds.DATA, 512) == b"r" * 512
    assert target.rig.memory.read(seeds.STATUS, 1) == b"\0"
    merged = target.rig.device.blk.stats.merged[WRITE]
    target(seeds.VIRTIO_BLK["two-neighbours"])
    assert target.rig.memory.read(seeds.STATUS, 2) == b"\0\0"
    assert target.rig.device.blk.stats.merged[WRITE] == merged + 1
    target.disk.data[512:1024] = b"r" * 512
    target(seeds.VIRTIO_BLK["without-event-idx"])
    assert target.disk.data[512:1024] == b"r" * 512


def forgets_the_queues(device: VirtioDevice) -> None:
    """A reset as it must not be."""
    device.stop()
    device.started = False
    device.status = device.features = 0


def stores_into_what_it_may_only_read(device: VirtioBlk, *request: object) -> None:
    """A write that scribbles into the guest's buffer."""
    (iov,) = (part for part in request if isinstance(part, list))
    iov[0][0] = 1


@pytest.mark.parametrize(
    ("owner", "name", "bug", "seed"),
    [
        (VirtioDevice, "reset", forgets_the_queues, "read"),
        (VirtioBlk, "submit_read_write", stores_into_what_it_may_only_read, "write"),
        (VirtQueue, "push", lambda queue, head, length: None, "read"),
    ],
)
def test_a_rule_that_is_broken_is_found(
    spoilt: Target,
    monkeypatch: pytest.MonkeyPatch,  # after `spoilt`, which closes when the bug is gone again
    owner: type,
    name: str,
    bug: object,
    seed: str,
) -> None:
    monkeypatch.setattr(owner, name, bug)
    with pytest.raises((AssertionError, TypeError, KeyError)):
        spoilt(seeds.VIRTIO_BLK[seed])


@pytest.mark.full
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    reached = short_run("virtio_blk", tmp_path, SECONDS)
    assert reached[-1] >= BRANCHES
