# SPDX-License-Identifier: GPL-2.0-only
"""`make museum`: looks for each mistake, put back and mended, and prints what was found.

`python -m tutorials.museum bh_ctx` shows one piece with the shortest interleaving.
"""

from __future__ import annotations

import sys

from block.testing.explore import Result
from tutorials.museum.pieces import Piece, pieces


def cells(result: Result, verdict: str) -> str:
    return f"{result.tried:7} {result.seconds:6.1f} s  {verdict:9}"


def message(piece: Piece, result: Result) -> str:
    """Returns what went wrong, and in which order of lines, where that matters."""
    if result.failure is None:
        return "Nothing was found."
    if piece.in_one_run:
        return f"In any order: {type(result.failure.error).__name__}: {result.failure.error}"
    return str(result.failure)


def show(piece: Piece, with_table: bool) -> bool:
    """Prints one piece; says whether all is as it should be."""
    mistaken, mended = piece.search(True), piece.search(False)
    found = piece.is_found(mistaken.failure)
    quiet = mended.failure is None and mended.complete
    verdict = "nothing" if quiet else "NOT ALL" if mended.failure is None else "FAILED"
    print(f"{piece.name:20} {piece.fix}  {cells(mistaken, 'found' if found else 'NOT FOUND')}  "
          f"{cells(mended, verdict)}", flush=True)  # fmt: skip
    if with_table:
        print(f"\n{piece.text}\nThe mistake: {piece.mistake}.\nWhat one saw: {piece.seen}.\n")
        print(message(piece, mistaken))
    elif mended.failure is not None:
        print(mended.failure)
    return found and quiet


def main() -> int:
    wanted = sys.argv[1:]
    every = pieces()
    unknown = set(wanted) - {piece.name for piece in every}
    if unknown:
        print(f"no such piece: {', '.join(sorted(unknown))}; there are: "
              f"{', '.join(piece.name for piece in every)}")  # fmt: skip
        return 2
    print(f"{'':20} {'mended by':10}  {'-- as it was then --':27}  -- as it is now --")
    print(f"{'piece':20} {'':10}  {'orders':>7} {'time':>8}  {'mistake':9}  "
          f"{'orders':>7} {'time':>8}  mistake")  # fmt: skip
    chosen = [piece for piece in every if not wanted or piece.name in wanted]
    verdicts = [show(piece, bool(wanted)) for piece in chosen]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
