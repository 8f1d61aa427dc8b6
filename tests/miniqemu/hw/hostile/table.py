# SPDX-License-Identifier: GPL-2.0-only
"""The table of what a bad guest tries, and of the answers that the standard asks for.

One row a case: what the guest does; what virtio 1.2 says about it, with its section; the answer
that our device must give; how the deed is done (acts); and a word that must be in what the
person who runs the machine is told. test_table.py plays every row in each way of serving a disk;
the page docs/hostile-guests.md prints the table.
"""

from __future__ import annotations

from tests.miniqemu.hw.hostile import register_cases as regs
from tests.miniqemu.hw.hostile import ring_cases as rings

GROUPS = {
    "Chains of descriptors": rings.CHAINS,
    "Addresses and lengths": rings.ADDRESSES,
    "Headers and buffers": rings.HEADERS,
    "Indirect tables": rings.INDIRECT_TABLES,
    "The rings": rings.RINGS,
    "Setting up queues": rings.QUEUES,
    "Status and features": regs.STATUS,
    "Registers, configuration, interrupts": regs.REGISTERS,
    "Requests": regs.REQUESTS,
    "Discards and zeroes": regs.RANGES,
}
CASES = {case.deed: case for group in GROUPS.values() for case in group}
assert len(CASES) == sum(map(len, GROUPS.values())), "two cases of one name"


def as_markdown() -> str:
    """The table as the docs show it."""
    lines: list[str] = []
    for title, group in GROUPS.items():
        lines += [f"### {title}", "", "| The guest's deed | virtio 1.2 | answer |", "|---|---|---|"]
        for case in group:
            section, _, text = case.standard.partition(": ")
            lines.append(f"| {case.deed} | {section}: {text} | {case.answer.value} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())
