# SPDX-License-Identifier: GPL-2.0-only
"""The whole machine: guest reads, start, memory and idleness, beside QEMU's microvm.

The guest counts its own reads and prints them (`bench N QD irq|poll`). Start is measured from
before the exec to the first byte on the serial line, interpreter and imports included.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path

from benchmarks.harness import Case, Other
from benchmarks.machine import Machine, cpu_seconds, resident_beyond_guest

SHELL = rb"> $"
READS = rb"(\d+) reads/s \([^)]*?(\d+) failed\)"
COUNTS = {1: 2_000, 8: 5_000, 32: 8_000}
TCG_COUNTS = {1: 20_000, 8: 60_000, 32: 100_000}
TCG_GOALS = {("poll", 1): 1.0, ("poll", 8): 1.0, ("poll", 32): 0.6}
TCG_IRQ_GOAL = 0.5
MEGABYTE = 1_000_000


def cases(quick: bool) -> list[Case]:
    """Returns the guest's reads at three depths, by interrupt and by polling, and the rest."""
    scale = 5 if quick else 1
    reads = [
        read_case(depth, how, count // scale)
        for how in ("irq", "poll")
        for depth, count in COUNTS.items()
    ]
    ways = [two_ways_case(depth, COUNTS[depth] // scale) for depth in (1, 32)]
    return [*reads, *ways, *tcg_cases(scale), *process_cases(1.0 if quick else 3.0)]


def read_case(depth: int, how: str, count: int) -> Case:
    """Returns the guest's 4 KiB reads at one depth, one way of waiting."""
    run = functools.partial(reads_per_second, depth, how, count)
    return Case(
        name=f"guest 4 KiB read, depth {depth}, {how}",
        unit="thousand/s",
        better="higher",
        ours=functools.partial(run, "ours"),
        others=(Other("QEMU kvm", functools.partial(run, "qemu"), 1.0),),
    )


def two_ways_case(depth: int, count: int) -> Case:
    """Returns our two ways to serve a disk: the IOThread against the main loop; no goal."""
    run = functools.partial(reads_per_second, depth, "irq", count, "ours")
    return Case(
        name=f"guest 4 KiB read, depth {depth}, irq, by the IOThread",
        unit="thousand/s",
        better="higher",
        ours=run,
        others=(Other("by the main loop", functools.partial(run, False)),),
    )


def tcg_cases(scale: int) -> list[Case]:
    """Returns the reads of a guest that is translated. QEMU has no IOThread for one; we have."""
    out = []
    for how in ("irq", "poll"):
        for depth, count in TCG_COUNTS.items():
            run = functools.partial(
                reads_per_second, depth, how, count // scale, iothread=False, accel="tcg"
            )
            goal = TCG_GOALS.get((how, depth), TCG_IRQ_GOAL)
            out.append(
                Case(
                    name=f"guest 4 KiB read under tcg, depth {depth}, {how}",
                    unit="thousand/s",
                    better="higher",
                    ours=functools.partial(run, which="ours"),
                    others=(
                        Other("QEMU tcg", functools.partial(run, which="qemu"), goal),
                        Other(
                            "by our IOThread", functools.partial(run, which="ours", iothread=True)
                        ),
                    ),
                )
            )
    return out


def process_cases(idle_seconds: float) -> list[Case]:
    """Returns start, memory and idleness of the program."""
    start = functools.partial(first_byte, "ours")
    other = Other("QEMU kvm", functools.partial(first_byte, "qemu"), 1.0)
    idle = functools.partial(idle_percent, idle_seconds)
    return [
        Case("start to the first serial byte", "ms", "lower", start, (other,)),
        Case("resident memory beyond the guest's", "MB", "lower", resident, goal=60.0),
        Case("idle guest at the shell", "% of a core", "lower", idle, goal=1.0),
    ]


def reads_per_second(
    depth: int, how: str, count: int, which: str, iothread: bool = True, accel: str = "kvm"
) -> float:
    """Boots a machine that runs one `bench`; returns thousand reads a second."""
    with Machine(which, f"bench {count} {depth} {how}; poweroff", iothread, accel) as machine:
        found = machine.read_until(READS)
    if int(found.group(2)):
        raise OSError(f"the guest's reads failed: {found.group(0)!r}")
    return int(found.group(1)) / 1000


def first_byte(which: str) -> float:
    """Returns the milliseconds from before the exec to the first serial byte."""
    with Machine(which, "poweroff") as machine:
        machine.read()
        return (time.perf_counter() - machine.started) * 1000


def resident() -> float:
    """Returns the megabytes at the shell, after a `bench` has used the whole data path."""
    with Machine("ours", "bench 500 8 irq") as machine:
        machine.read_until(SHELL)
        smaps = Path(f"/proc/{machine.pid}/smaps").read_text()
    return resident_beyond_guest(smaps) / MEGABYTE


def idle_percent(seconds: float) -> float:
    """Returns what an idle guest at its shell costs, in percent of one core."""
    with Machine("ours", "info") as machine:
        machine.read_until(SHELL)
        before = cpu_seconds(machine.pid)
        time.sleep(seconds)
        return (cpu_seconds(machine.pid) - before) / seconds * 100
