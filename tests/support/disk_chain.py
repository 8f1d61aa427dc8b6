# SPDX-License-Identifier: GPL-2.0-only
"""What a chain of images must hold: a plain bytearray for each, and for each snapshot.

A layer's bytes are what a guest would read from it, its backing file included. Where a change
below changes what a snapshot shows, nobody keeps account: its bytes are None then.

`without_places` and `own_extents` take out of `info` and `map` what may differ between two chains
that hold the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Saved:
    """A snapshot in a layer."""

    name: str
    data: bytes | None


@dataclass
class Layer:
    """An image: its file's name, its format, its bytes, and the snapshots in it.

    `is_packed`: it may have compressed clusters.
    """

    name: str
    fmt: str
    data: bytearray
    saved: list[Saved] = field(default_factory=list)
    is_packed: bool = False

    def fill(self, offset: int, nbytes: int, byte: int) -> None:
        """A write of one byte over and over; also of zeroes."""
        self.data[offset : offset + nbytes] = bytes([byte]) * nbytes

    def discard(self, offset: int, nbytes: int, cluster_size: int) -> None:
        """Whole clusters become zeroes; the last one is whole even if the disk ends within it."""
        end = offset + nbytes
        start = -(-offset // cluster_size) * cluster_size
        if end != len(self.data):
            end = end // cluster_size * cluster_size
        if start < end:
            self.fill(start, end - start, 0)

    def resize(self, size: int) -> None:
        """What is new reads as zeroes, whatever a backing file has there."""
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))

    def find(self, name: str) -> Saved | None:
        """The snapshot that a name stands for: the first of that name."""
        return next((saved for saved in self.saved if saved.name == name), None)

    def forget_saved(self) -> None:
        """What is below has changed, so the snapshots may show other bytes."""
        for saved in self.saved:
            saved.data = None

    def commit(self, below: Layer) -> None:
        """The layer below takes all; what it has behind this one's end stays."""
        below.data[: len(self.data)] = self.data


def without_places(info: dict[str, Any]) -> dict[str, Any]:
    """`info` of an image, but for what its file takes and for the snapshots' dates."""
    del info["actual-size"]
    for snapshot in info.get("snapshots", ()):
        del snapshot["date-sec"], snapshot["date-nsec"]
    return info


def own_extents(extents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`map` of an image: what is its own, without the offsets; neighbours that are alike are one.

    Where data are in the file, the file below may have a hole: that is not looked at. Nor which
    zeroes have an entry: we make no table for zeroes where nothing is below.
    """
    found: list[dict[str, Any]] = []
    for extent in extents:
        extent.pop("offset", None)
        if extent["depth"]:
            extent = {"start": extent["start"], "length": extent["length"]}
        elif extent["data"]:
            extent["zero"] = False
        elif extent["zero"]:
            extent["present"] = False
        before = found[-1] if found else None
        if before and {**before, "start": 0, "length": 0} == {**extent, "start": 0, "length": 0}:
            before["length"] += extent["length"]
        else:
            found.append(extent)
    return found
