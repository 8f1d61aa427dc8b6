# SPDX-License-Identifier: GPL-2.0-only
"""Work with internal snapshots beside a model: the disk and every snapshot as plain bytes.

Kept   the model: what the disk must hold, and what each snapshot
steps  a hypothesis strategy for sequences of changes, snapshots, and lengths
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st

from block.core import flags as f
from block.core import snapshot
from block.core.backend import BlockBackend
from block.core.node import BlockDriverState

CLUSTER = 4096
SECTOR = 512
LONGEST = 40 * CLUSTER


class Step(NamedTuple):
    """One step; numbers mean what `what` says."""

    what: str
    first: int = 0
    second: int = 0
    pattern: int = 0


class Kept:
    """The disk, and the snapshots in the order in which they were made, by name."""

    def __init__(self, size: int, cluster: int = CLUSTER) -> None:
        self.cluster = cluster
        self.disk = bytearray(size)
        self.snapshots: dict[str, bytes] = {}
        self.made = 0

    def name_of(self, step: Step) -> str | None:
        """The snapshot that a step is about; None: there is none yet."""
        names = list(self.snapshots)
        return names[step.first % len(names)] if names else None

    def place(self, step: Step) -> tuple[int, int]:
        """(offset, bytes) of a change, within the disk, by sectors."""
        offset = step.first * SECTOR % len(self.disk)
        return offset, min(step.second * SECTOR, len(self.disk) - offset)

    def note(self, step: Step) -> str | None:
        """Does a step; returns the name of the snapshot it was about."""
        name = None
        if step.what == "create":
            self.made += 1
            name = f"s{self.made}"
            self.snapshots[name] = bytes(self.disk)
        elif step.what in ("goto", "delete"):
            name = self.name_of(step)
            if name is not None and step.what == "goto":
                self.disk = bytearray(self.snapshots[name])
            elif name is not None:
                del self.snapshots[name]
        elif step.what == "resize":
            size = step.second * SECTOR
            self.disk = self.disk[:size].ljust(size, b"\0")
        else:
            self._change(step)
        return name

    def _change(self, step: Step) -> None:
        offset, nbytes = self.place(step)
        end = offset + nbytes
        if step.what == "discard":
            offset = -(-offset // self.cluster) * self.cluster
            end = end if end == len(self.disk) else end // self.cluster * self.cluster
        pattern = step.pattern if step.what == "write" else 0
        if offset < end:
            self.disk[offset:end] = bytes([pattern]) * (end - offset)


def node_of(disk: BlockBackend) -> BlockDriverState:
    """The node under a backend."""
    assert disk.bs is not None
    return disk.bs


def do(disk: BlockBackend, kept: Kept, step: Step) -> None:
    """Does a step with our own driver, and in the model."""
    place = kept.place(step)
    name = kept.note(step)
    bs = node_of(disk)
    if step.what == "create":
        snapshot.create(bs, snapshot.SnapshotInfo(str(name), date_sec=kept.made))
    elif step.what == "goto":
        if name is not None:
            snapshot.goto(bs, name)
    elif step.what == "delete":
        if name is not None:
            snapshot.delete(bs, None, name)
    elif step.what == "resize":
        disk.truncate(len(kept.disk))
    elif step.what == "write":
        disk.pwrite(place[0], bytes([step.pattern]) * place[1])
    elif step.what == "zeroes":
        disk.pwrite_zeroes(*place)
    elif step.what == "unmap":
        disk.pwrite_zeroes(*place, f.REQ_MAY_UNMAP)
    else:
        disk.pdiscard(*place)


def command(kept: Kept, step: Step, name_of_image: str) -> list[str]:
    """The same step as a command line for the real tools, [] for none; and in the model."""
    offset, nbytes = kept.place(step)
    name = kept.note(step)
    if step.what in ("create", "goto", "delete"):
        letter = {"create": "-c", "goto": "-a", "delete": "-d"}[step.what]
        return [] if name is None else ["qemu-img", "snapshot", letter, name, name_of_image]
    if step.what == "resize":
        size = str(len(kept.disk))
        return ["qemu-img", "resize", "-q", "-f", "qcow2", "--shrink", name_of_image, size]
    verb = {
        "write": f"write -q -P {step.pattern}", "zeroes": "write -q -z",
        "unmap": "write -q -z -u", "discard": "discard -q",
    }[step.what]  # fmt: skip
    line = f"{verb} {offset} {nbytes}"
    return ["qemu-io", "-f", "qcow2", "-d", "unmap", "-c", line, name_of_image] if nbytes else []


def _changes(what: str) -> st.SearchStrategy[Step]:
    place = st.integers(0, LONGEST // SECTOR)
    length = st.integers(1, 5 * CLUSTER // SECTOR)
    whole = st.integers(0, LONGEST // CLUSTER).map(lambda n: n * (CLUSTER // SECTOR))
    return st.builds(Step, st.just(what), place | whole, length | whole, st.integers(1, 255))


def steps(max_size: int) -> st.SearchStrategy[list[Any]]:
    """Sequences of steps."""
    which = st.integers(0, 9)
    return st.lists(
        st.one_of(
            _changes("write"),
            _changes("write"),
            _changes("zeroes"),
            _changes("unmap"),
            _changes("discard"),
            st.just(Step("create")),
            st.builds(Step, st.just("goto"), which),
            st.builds(Step, st.just("delete"), which),
            st.builds(Step, st.just("resize"), st.just(0), st.integers(1, LONGEST // SECTOR)),
        ),
        min_size=4,
        max_size=max_size,
    )
