# SPDX-License-Identifier: GPL-2.0-only
"""The matrix: on which machine, and over which disk, the guest's self-test has to pass.

A cell is one choice of each axis. `why_not` names the cells that cannot be, with the reason that a
person gets there. `pairwise` picks few cells that show every pair of choices at least once: most
faults need two things to meet, hardly one needs three.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from tests.support.boot import MINIQEMU_KVM, MINIQEMU_TCG, QEMU_KVM, QEMU_TCG, Vmm

MACHINES = ("qemu-kvm", "qemu-tcg", "miniqemu-kvm", "miniqemu-tcg", "miniqemu-nested")
FORMATS = ("raw", "qcow2", "qed", "vmdk")
SERVED = ("main loop", "iothread")
ENGINES = ("threads", "native", "io_uring")
VMMS: dict[str, Vmm] = {
    "qemu-kvm": QEMU_KVM,
    "qemu-tcg": QEMU_TCG,
    "miniqemu-kvm": MINIQEMU_KVM,
    "miniqemu-tcg": MINIQEMU_TCG,
    "miniqemu-nested": MINIQEMU_KVM,
}


@dataclass(frozen=True)
class Cell:
    """One machine with one disk."""

    machine: str
    format: str
    served: str
    engine: str

    def __str__(self) -> str:
        return " ".join(astuple(self)).replace("main loop", "main-loop")

    @property
    def nested(self) -> bool:
        """Whether it runs inside tests/tools/nested-kvm."""
        return self.machine == "miniqemu-nested"


def every() -> list[Cell]:
    """All cells, also those that cannot be."""
    return [Cell(*choice) for choice in itertools.product(MACHINES, FORMATS, SERVED, ENGINES)]


def why_not(cell: Cell) -> str | None:
    """Why a cell cannot be, None if it can."""
    if cell.machine == "qemu-tcg" and cell.served == "iothread":
        return "QEMU has no ioeventfd under tcg, and refuses the IOThread"
    return None


def possible(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that can be."""
    return [cell for cell in cells if why_not(cell) is None]


Pair = tuple[tuple[int, str], tuple[int, str]]


def pairs(cell: Cell) -> set[Pair]:
    """Each two choices of a cell."""
    return set(itertools.combinations(enumerate(astuple(cell)), 2))


def pairwise(cells: Sequence[Cell]) -> list[Cell]:
    """Few of `cells` that have every pair of choices which any of them has."""
    missing = set().union(*map(pairs, cells))
    chosen = []
    while missing:
        best = max(cells, key=lambda cell: len(pairs(cell) & missing))
        missing -= pairs(best)
        chosen.append(best)
    return chosen
