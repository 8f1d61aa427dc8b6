# SPDX-License-Identifier: GPL-2.0-only
"""What is written before what: an image that a power cut leaves has leaks at most, and all that
was flushed. A kill at any moment leaves no worse one."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import block
from block.core import flags as f
from block.core.backend import BlockBackend
from block.core.error import BlockError
from block.formats.qcow2 import let_go
from tests.support.qcow2_cuts import CLEAN, LEAKS, SIZE, check, new_image, plain, record
from tests.support.qcow2_disk import FLUSH, Tape, open_on
from tests.support.qcow2_tables import cluster_of, first_l2, state_of
from tests.support.qcow2_work import Op, Work

ROOT = Path(__file__).parents[4]


def cut_everywhere(folder: Path, seed: int, cuts: int, shuffle: bool, **options: Any) -> list[int]:
    """Works, then cuts at random moments; the statuses of qemu-img check."""
    image = {"cluster_size": options.pop("cluster_size"), **options.pop("image", {})}
    tape = Tape(new_image(folder, **image))
    work = Work(seed, SIZE, image["cluster_size"])
    safe = record(tape, work, 120, **options)
    source = random.Random(seed)
    found = []
    path = folder / "cut.qcow2"
    for at in sorted(source.sample(range(len(tape.writes) + 1), cuts)):
        path.write_bytes(tape.cut(at, source, shuffle))
        found.append(check(path))
        safe.compare(at, plain(path, folder))
    return found


SMALL = {"l2-cache-size": 1024, "l2-cache-entry-size": 512}


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "late writes lost"])
@pytest.mark.parametrize(
    ("cluster_size", "options"), [(65536, {}), (512, SMALL), (4096, SMALL)], ids=str
)
def test_a_power_cut_leaves_leaks_at_most_and_what_was_flushed(
    tmp_path: Path, cluster_size: int, options: dict[str, int], shuffle: bool
) -> None:
    found = cut_everywhere(
        tmp_path, cluster_size + shuffle, 12, shuffle, cluster_size=cluster_size, **options
    )
    assert set(found) <= {CLEAN, LEAKS}


@pytest.mark.parametrize("preallocation", ["off", "metadata"])
def test_a_power_cut_leaves_subclusters_as_whole_as_clusters(
    tmp_path: Path, preallocation: str
) -> None:
    image = {"extended_l2": True, "preallocation": preallocation}
    found = cut_everywhere(tmp_path, 4, 12, True, cluster_size=16384, image=image, **SMALL)
    assert set(found) <= {CLEAN, LEAKS}


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cluster_size", [65536, 4096, 512])
def test_many_power_cuts(tmp_path: Path, cluster_size: int, seed: int) -> None:
    options = SMALL if seed % 2 else {}
    found = cut_everywhere(tmp_path, seed, 40, True, cluster_size=cluster_size, **options)
    assert len(found) == 40


def places(disk: BlockBackend, index: int) -> tuple[int, int]:
    """Where a cluster is, and the table that says so."""
    return cluster_of(disk, index), first_l2(disk)


def test_a_refcount_is_safe_before_an_entry_points_to_its_cluster(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path))
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * 512)
        disk.flush()
        tape.writes.clear()
        disk.pwrite(1 << 20, b"y" * 65536)
        disk.flush()
        data, l2 = places(disk, 16)
        refblock = state_of(disk).reftable[0]
        order = [offset for offset, _ in tape.writes]
    assert order[:4] == [data, refblock, FLUSH[0], l2]


def test_data_are_safe_before_an_entry_points_to_them_though_refcounts_are_postponed(
    tmp_path: Path,
) -> None:
    """Else a power cut leaves an entry that points to nothing, even beyond the end of the file."""
    tape = Tape(new_image(tmp_path, lazy_refcounts=True))
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * 512)
        disk.flush()
        tape.writes.clear()
        disk.pwrite(1 << 20, b"y" * 65536)
        disk.flush()
        data, l2 = places(disk, 16)
        order = [offset for offset, _ in tape.writes]
    assert order[:3] == [data, FLUSH[0], l2]


def test_data_are_safe_before_a_cluster_counts_as_zero_no_more(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path))
    with open_on(tape) as disk:
        disk.pwrite(0, b"old" * 1024)
        disk.pwrite_zeroes(0, 65536)
        disk.flush()
        tape.writes.clear()
        disk.pwrite(0, b"y" * 65536)
        disk.flush()
        data, l2 = places(disk, 0)
        order = [offset for offset, _ in tape.writes]
    assert order[:3] == [data, FLUSH[0], l2]


def test_an_entry_is_gone_before_its_cluster_is_free(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path))
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * 65536)
        disk.flush()
        tape.writes.clear()
        disk.pdiscard(0, 65536)
        disk.flush()
        l2, refblock = first_l2(disk), state_of(disk).reftable[0]
        order = [offset for offset, _ in tape.writes]
    assert order[:3] == [l2, FLUSH[0], refblock]


def test_a_cluster_is_not_taken_again_before_its_old_entry_is_gone(tmp_path: Path) -> None:
    """Its bytes may have been flushed, and the old entry still points to them."""
    tape = Tape(new_image(tmp_path))
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * 65536)
        disk.flush()
        s = state_of(disk)
        old, l2 = places(disk, 0)
        disk.pdiscard(0, 65536)
        tape.writes.clear()
        disk.pwrite(1 << 20, b"y" * 65536)
        assert old not in [offset for offset, _ in tape.writes], "there is room elsewhere"
        s.free_cluster = old >> 16  # a search that comes by
        tape.writes.clear()
        disk.pwrite(2 << 20, b"z" * 65536)
        order = [offset for offset, _ in tape.writes]
        assert order[-3:] == [l2, FLUSH[0], old]
        disk.pdiscard(2 << 20, 65536)
        disk.flush()
        disk.pwrite(3 << 20, b"w" * 65536)
        assert (old, b"w" * 65536) in tape.writes, "after a flush it is taken again"


def test_so_many_clusters_are_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(let_go, "MAX_LET_GO", 3)
    tape = Tape(new_image(tmp_path, cluster_size=512))
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * 5 * 512)
        remembered = state_of(disk).let_go
        disk.pdiscard(0, 3 * 512)
        assert len(remembered) == 3
        disk.pdiscard(3 * 512, 512)
        assert not remembered


def test_nor_are_so_many_that_were_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(let_go, "MAX_LET_GO", 3)
    with open_on(Tape(new_image(tmp_path))) as disk:
        for number in range(40):
            data = random.Random(number).randbytes(30_000).ljust(65536, b"\0")
            disk.pwrite(number * 65536, data, f.REQ_WRITE_COMPRESSED)
        remembered = state_of(disk).let_go
        most = 0
        for number in range(40):
            disk.pdiscard(number * 65536, 65536)
            most = max(most, len(remembered))
        assert 0 < most <= 3


def test_a_write_that_has_let_go_of_too_many_is_done_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entry is made; that the tables cannot be written now is the next flush's matter."""
    monkeypatch.setattr(let_go, "MAX_LET_GO", 0)
    tape = Tape(new_image(tmp_path))
    with open_on(tape) as disk:
        packed = random.Random(0).randbytes(30_000).ljust(65536, b"\0")
        disk.pwrite(0, packed, f.REQ_WRITE_COMPRESSED)
        disk.flush()
        s = state_of(disk)
        real = s.l2_cache.flush

        async def fail() -> None:
            if s.let_go:
                raise BlockError(errno.EIO, "not now")
            await real()

        s.l2_cache.flush = fail
        disk.pwrite(0, b"n" * 65536)
        s.l2_cache.flush = real
        disk.pwrite(1 << 20, b"m" * 65536)
        assert disk.pread(0, 65536) == b"n" * 65536
    path = tmp_path / "worked.qcow2"
    path.write_bytes(tape.data)
    assert check(path) == CLEAN


def test_copied_data_are_safe_before_an_entry_points_to_them(tmp_path: Path) -> None:
    tape = Tape(new_image(tmp_path))
    with open_on(tape) as disk:
        disk.pwrite(0, b"x" * 65536)
        disk.pwrite_zeroes(0, 65536)
        disk.flush()
        tape.writes.clear()
        disk.pwrite(512, b"y" * 512)
        disk.flush()
        _, l2 = places(disk, 0)
        order = [offset for offset, _ in tape.writes]
        assert len(tape.writes[0][1]) == 65536
    assert order[1:3] == [FLUSH[0], l2]


WORKER = """
import random, sys
from pathlib import Path
from tests.support.qcow2_work import OurImage, Work
path, seed, size, cluster = Path(sys.argv[1]), *map(int, sys.argv[2:])
work = Work(seed, size, cluster)
work.model = None
image = OurImage(path, work, **({"l2-cache-size": 1024, "l2-cache-entry-size": 512} if seed % 2
                                else {}))
image.work.note = lambda *args: None
print("ready", flush=True)
for op in work.ops(1_000_000):
    if op.what not in ("read", "reopen"):
        image.apply(op)
"""


def killed_while_working(folder: Path, seed: int, cluster_size: int) -> int:
    path = folder / f"{seed}.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE, cluster_size=cluster_size)
    words = [sys.executable, "-c", WORKER, path, str(seed), str(SIZE), str(cluster_size)]
    with subprocess.Popen(list(map(os.fspath, words)), stdout=subprocess.PIPE, cwd=ROOT) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        # A moment that the worker's own speed decides: when so much is in the file.
        wanted = random.Random(seed).randrange(300_000, 3_000_000)
        while path.stat().st_blocks * 512 < wanted and worker.poll() is None:
            pass
        worker.send_signal(signal.SIGKILL)
        assert worker.wait(30) == -signal.SIGKILL
    return check(path)


@pytest.mark.parametrize("seed", range(4))
def test_kill_9_leaves_leaks_at_most(tmp_path: Path, seed: int) -> None:
    killed_while_working(tmp_path, seed, (65536, 512, 4096, 16384)[seed % 4])


@pytest.mark.full
def test_kill_9_fifteen_times(tmp_path: Path) -> None:
    for seed in range(100, 115):
        killed_while_working(tmp_path, seed, (65536, 512, 4096, 16384)[seed % 4])


def test_the_tape_cuts_where_it_is_told() -> None:
    tape = Tape(b"....")
    tape.writes = [(0, b"a"), FLUSH, (1, b"b"), (5, b"c")]
    assert tape.cut(1, random.Random(0), False) == b"a..."
    assert tape.cut(4, random.Random(0), False) == b"ab..\0c"
    assert {tape.cut(3, random.Random(n), True) for n in range(20)} == {b"a...", b"ab.."}


def test_the_model_discards_whole_clusters_only() -> None:
    work = Work(0, 4096, 1024)
    work.model[:] = b"x" * 4096
    work.note(Op("discard", 100, 2000))
    assert work.model == b"x" * 1024 + bytes(1024) + b"x" * 2048
