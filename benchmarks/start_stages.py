# SPDX-License-Identifier: GPL-2.0-only
"""Where the milliseconds of a start go: `python -m benchmarks.start_stages` writes start.json.

The median of many starts, for each stage by itself; so their sum is near the median of a whole
start, and not quite it. The watch itself costs about a millisecond.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from benchmarks.machine import environment, words

HERE = Path(__file__).parent
STAGES = HERE / "start.json"
WATCH = HERE / "start_watch.py"
STARTS = 21


class Stage(TypedDict):
    """One stage: milliseconds, and how many of them modules took that were imported in it."""

    name: str
    ms: float
    modules: float


def one_start(command: str, *arguments: str) -> list[Stage]:
    """Starts the machine once and returns its stages; the command has a start image."""
    begin = str(time.monotonic_ns())
    line = [sys.executable, "-S", str(WATCH), command, begin, *arguments]
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, check=True, env=environment()
    )
    return joined([Stage(name=n, ms=ms, modules=m) for n, ms, m in json.loads(done.stderr)])


def joined(stages: Sequence[Stage]) -> list[Stage]:
    """Adds up those that have the same name: two devices are plugged in."""
    sums: dict[str, Stage] = {}
    for stage in stages:
        sum_ = sums.setdefault(stage["name"], Stage(name=stage["name"], ms=0.0, modules=0.0))
        sum_["ms"] += stage["ms"]
        sum_["modules"] += stage["modules"]
    return list(sums.values())


def medians(starts: Sequence[Sequence[Stage]]) -> list[Stage]:
    """Returns each stage's medians over all starts."""
    return [
        Stage(
            name=same[0]["name"],
            ms=statistics.median(stage["ms"] for stage in same),
            modules=statistics.median(stage["modules"] for stage in same),
        )
        for same in zip(*starts, strict=True)
    ]


def main() -> None:
    """Measures and writes."""
    line = words("ours", "poweroff")
    stages = medians([one_start(*line) for _ in range(STARTS)])
    STAGES.write_text(json.dumps(stages, indent=1) + "\n")
    for stage in stages:
        print(f"{stage['ms']:6.1f} ms, modules {stage['modules']:5.1f}  {stage['name']}")
    print(f"{sum(stage['ms'] for stage in stages):6.1f} ms")


if __name__ == "__main__":
    main()
