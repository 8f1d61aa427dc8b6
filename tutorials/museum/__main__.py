# SPDX-License-Identifier: GPL-2.0-only
"""`make museum`: looks for each mistake, put back and mended, and prints what was found.

`python -m tutorials.museum bh_ctx` shows one piece with the shortest interleaving.
"""

from __future__ import annotations

import sys
import time
import warnings

from block.testing.explore import Result
from tutorials.museum.pieces import Piece, pieces

HEAD = """\
                             put back                   |  mended
piece           mended       orders     time            |  orders     time
----------------------------------------------------------------------------------"""


def show(piece: Piece, with_table: bool) -> bool:
    """Prints one piece; says whether all is as it should be."""
    print(f"{piece.name:15} {piece.date:10}", end="", flush=True)
    mistaken = piece.search(True)
    found = piece.is_found(mistaken.failure)
    print(cells(mistaken, "found" if found else "NOT FOUND"), end="  |", flush=True)
    mended = piece.search(False)
    quiet = mended.failure is None and mended.complete
    verdict = "all pass" if quiet else "NOT ALL TRIED" if mended.failure is None else "FAILED"
    print(cells(mended, verdict).rstrip(), flush=True)
    if with_table:
        print(f"\n{label(piece)}\n\n{message(piece, mistaken)}\n")
    if mended.failure is not None:
        print(f"\nWith the mend in place:\n{message(piece, mended)}")
    return found and quiet


def label(piece: Piece) -> str:
    """Returns what stands on the plate below a piece."""
    return (
        f"{piece.text}\n\n"
        f"The mistake:  {piece.mistake}.\n"
        f"What one saw: {piece.seen}.\n"
        f"Mended by:    QEMU's commit {piece.fix}; see tutorials/museum/{piece.name}/story.md"
    )


def cells(result: Result, verdict: str) -> str:
    """Returns what a search has taken, and what came of it."""
    return f"{result.tried:8,} {result.seconds:6.1f} s  {verdict:9}"


def message(piece: Piece, result: Result) -> str:
    """Returns what went wrong, and in which order of lines, where that matters."""
    if result.failure is None:
        return "Nothing was found."
    if piece.in_one_run:
        return f"In any order: {type(result.failure.error).__name__}: {result.failure.error}"
    return str(result.failure)


def main(wanted: list[str]) -> int:
    """Prints those pieces, or all; returns the exit status."""
    every = pieces()
    names = [piece.name for piece in every]
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        print(f"no such piece: {', '.join(unknown)}; there are: {', '.join(names)}")
        return 2
    start = time.monotonic()
    print(HEAD)
    verdicts = [show(piece, bool(wanted)) for piece in every if piece.name in (wanted or names)]
    if not wanted:
        right = "as it should be" if all(verdicts) else "NOT as it should be"
        print(f"\n{len(names)} pieces in {time.monotonic() - start:.0f} s: all is {right}. "
              f"One with its order of lines: make museum ARGS={names[0]}")  # fmt: skip
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    # A run that failed leaves coroutines behind that were to begin later.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    sys.exit(main(sys.argv[1:]))
