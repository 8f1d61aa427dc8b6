# SPDX-License-Identifier: GPL-2.0-only
"""Internal snapshots, ours and the real QEMU's: any sequence of steps, each by either of them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import block
from block.core import snapshot, vmstate
from block.core.snapshot import SnapshotInfo
from miniqemu.cli.img import main as img
from tests.support.qemu_tools import is_clean, qemu, qemu_done
from tests.support.snapshots import CLUSTER, SECTOR, Kept, Step, command, do, node_of, steps

pytestmark = pytest.mark.full

SIZE = 10 * CLUSTER + SECTOR
KINDS = {
    "plain": {},
    "subclusters": {"extended_l2": "on", "cluster_size": 16384},
    "narrow": {"refcount_bits": 4},
    "old": {"compat": "0.10"},
    "lazy": {"lazy_refcounts": "on"},
}


def make(path: Path, kind: str, theirs: bool) -> None:
    options = {"cluster_size": CLUSTER, **KINDS[kind]}
    if theirs:
        words = ",".join(f"{name}={value}" for name, value in options.items())
        qemu_done("qemu-img", "create", "-q", "-f", "qcow2", "-o", words, path, str(SIZE))
    else:
        block.create(os.fspath(path), "qcow2", SIZE, **options)


def take(path: Path, kept: Kept, step: Step, theirs: bool) -> None:
    """Does one step with one of the two."""
    if theirs:
        line = command(kept, step, os.fspath(path))
        if line:
            qemu_done(*line)
        return
    options = {"discard": "unmap"}
    with block.open(os.fspath(path), format="qcow2", share=True, options=options) as disk:
        do(disk, kept, step)
        assert disk.pread(0, disk.length) == kept.disk


def raw_of(path: Path, *words: str) -> bytes:
    """What the real tool reads."""
    out = path.with_suffix(".raw")
    qemu_done("qemu-img", "convert", "-O", "raw", *words, path, out)
    return out.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.booleans(), st.lists(st.booleans(), min_size=9, max_size=9), steps(9))
def test_any_sequence_by_either_of_them(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    made_there: bool,
    who: list[bool],
    sequence: list[Step],
) -> None:
    path = tmp_path_factory.mktemp("both") / "a.qcow2"
    make(path, kind, made_there)
    cluster = int(str(KINDS[kind].get("cluster_size", CLUSTER)))
    kept = Kept(SIZE, cluster)
    for step, theirs in zip(sequence, who, strict=False):
        if step.what == "resize" and kind == "old" and kept.snapshots:
            continue
        take(path, kept, step, theirs)
        is_clean(path, "qcow2")
    assert raw_of(path, "-f", "qcow2") == kept.disk
    for name, content in kept.snapshots.items():
        with block.open(os.fspath(path), format="qcow2", read_only=True) as reader:
            snapshot.load_tmp_by_id_or_name(node_of(reader), name)
            length = min(len(content), reader.length)
            assert reader.pread(0, length) == content[:length]
    for number, (name, content) in enumerate(list(kept.snapshots.items())):
        take(path, kept, Step("goto", number), who[number % 9])
        is_clean(path, "qcow2")
        assert raw_of(path, "-f", "qcow2") == content
        assert raw_of(path, "-f", "qcow2", "-l", name) == content
    while kept.snapshots:
        take(path, kept, Step("delete", 0), who[len(kept.snapshots) % 9])
        is_clean(path, "qcow2")


def test_a_machines_state_goes_from_one_to_the_other(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    block.create(os.fspath(path), "qcow2", SIZE)
    with block.open(os.fspath(path), format="qcow2") as disk:
        vmstate.save(disk, 0, [memoryview(b"o" * 150_000)])
        snapshot.create(node_of(disk), SnapshotInfo("ours", vm_state_size=150_000))
    is_clean(path, "qcow2")
    qemu_done("qemu-img", "snapshot", "-a", "ours", path)
    qemu_done("qemu-io", "-f", "qcow2", "-c", "read -q -b -P 111 0 149504", path)
    done = qemu("qemu-io", "-f", "qcow2", "-c", "read -q -b -P 111 0 150016", path)
    assert "Pattern verification failed" in done.stdout, "behind it there are zeroes"
    qemu_done("qemu-io", "-f", "qcow2", "-c", "write -q -b -P 5 64k 64k", path)
    qemu_done("qemu-img", "snapshot", "-c", "theirs", path)
    with block.open(os.fspath(path), format="qcow2") as disk:
        snapshot.goto(node_of(disk), "theirs")
        found = bytearray(192 << 10)
        vmstate.load(disk, 0, [memoryview(found)])
    assert found[: 64 << 10] == b"o" * (64 << 10)
    assert found[64 << 10 : 128 << 10] == b"\5" * (64 << 10)
    is_clean(path, "qcow2")


LINES = (
    "snapshot -l a.qcow2", "snapshot -l empty.qcow2", "snapshot -l disk.raw", "snapshot a.qcow2",
    "info -U a.qcow2", "info --output=json a.qcow2", "snapshot -a nope a.qcow2",
    "snapshot -d nope a.qcow2", "snapshot -a x disk.qed", "snapshot -c x disk.vmdk",
    "snapshot -d x disk.qed", "snapshot -c x data.qcow2", "snapshot -l data.qcow2",
    "snapshot -a x data.qcow2", "convert -l nope -O raw a.qcow2 x.raw",
    "convert -l snapshot.id=9 -O raw a.qcow2 x.raw",
    "convert -l snapshot.id=1,snapshot.name=zwei -O raw a.qcow2 x.raw",
    "convert -l snapshot.what=1 -O raw a.qcow2 x.raw", "convert -l 1 -f raw -O raw disk.raw x.raw",
    "convert -l 1 -O raw a.qcow2 a.qcow2 x.raw", "measure -l eins a.qcow2",
    "measure -l nope -O qcow2 a.qcow2", "measure -l snapshot.name=eins -O qcow2 a.qcow2",
    "resize old.qcow2 9M", "compare -l eins a.qcow2 a.qcow2",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that the real tools have made, with snapshots of all kinds of names."""
    folder = tmp_path_factory.mktemp("corpus")
    for fmt in ("raw", "qed", "vmdk"):
        qemu_done("qemu-img", "create", "-q", "-f", fmt, folder / f"disk.{fmt}", "1M")
    for name, words in (("a", ""), ("empty", ""), ("old", "-ocompat=0.10")):
        options = [words] if words else []
        path = folder / f"{name}.qcow2"
        qemu_done("qemu-img", "create", "-q", "-f", "qcow2", *options, path, "8M")
    where = f"-odata_file={folder / 'data.raw'}"
    qemu_done("qemu-img", "create", "-q", "-f", "qcow2", where, folder / "data.qcow2", "1M")
    path = folder / "a.qcow2"
    for number, name in enumerate(("eins", "zwei Wörter", "3", "x" * 300)):
        write = f"write -q -P {number + 1} {number * 64}k 100k"
        qemu_done("qemu-io", "-f", "qcow2", "-c", write, path)
        qemu_done("qemu-img", "snapshot", "-c", name, path)
    qemu_done("qemu-img", "snapshot", "-c", "alt", folder / "old.qcow2")
    with block.open(os.fspath(path), format="qcow2") as disk:
        running = SnapshotInfo(
            "running", vm_state_size=3 << 20, date_sec=1_700_000_000, icount=123_456_789,
            vm_clock_nsec=(400 * 3600 + 25 * 60 + 7) * 1_000_000_000 + 89_000_000,
        )  # fmt: skip
        snapshot.create(node_of(disk), running)
        snapshot.create(node_of(disk), SnapshotInfo("without a clock"))
    return folder


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dates are those of this place's clocks."""
    with monkeypatch.context() as here:
        here.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize("line", LINES)
def test_both_say_the_same(
    folder: Path,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    words = line.split()
    theirs = qemu("qemu-img", *words)
    status = img.main(["qemu-img", *words])
    out, err = capfd.readouterr()
    assert (status, out, err) == (theirs.returncode, theirs.stdout, theirs.stderr)


def test_a_whole_life_looks_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lives = []
    for name in ("ours", "theirs"):
        image = f"{name}.qcow2"
        qemu_done("qemu-img", "create", "-q", "-f", "qcow2", image, "8M")
        qemu_done("qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 1M", image)
        life = []
        for words in ("-c one", "-c two", "-l", "-a one", "-d one", "-l", "-d two", "-l"):
            line = ["snapshot", *words.split(), image]
            if name == "ours":
                status = img.main(["qemu-img", *line])
                said = "".join(capfd.readouterr())
            else:
                done = qemu("qemu-img", *line)
                status, said = done.returncode, done.stdout + done.stderr
            life.append((words, status, re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", said)))
            is_clean(Path(image), "qcow2")
        lives.append(life)
    assert lives[0] == lives[1]
