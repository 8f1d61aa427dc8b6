# SPDX-License-Identifier: GPL-2.0-only
"""What is kept of a test that failed, so that it can fail again: a file of JSON.

R1  Whatever is ours is in it: which test, the seed of all dice, how strings are hashed,
    hypothesis's example, and each choice that a deterministic world made.
R2  What is not ours is named in it (`outside`), and how the test failed (`failure`): so a
    replay can say whether it is the same failure, and if not, what may be the reason.
"""

from __future__ import annotations

import json
import re
import traceback
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")


class Recording:
    """One failed test, with all that is needed to run it again.

    test        its node id
    seed        of the dice, of hypothesis and of the choices
    everywhere  --seed was given: the deterministic world was the test's default
    hash_seed   PYTHONHASHSEED; "": Python threw its own dice
    options     of pytest, that matter for the test
    example     hypothesis's version, and what its test was given
    choices     how many candidates there were at each point, and which was taken
    outside     what no seed reaches
    failure     how it failed
    """

    def __init__(
        self,
        test: str,
        seed: int | str,
        *,
        everywhere: bool = False,
        hash_seed: str = "",
        options: dict[str, Any] | None = None,
        example: Sequence[str] | None = None,
        choices: Iterable[Sequence[int]] = (),
        outside: Iterable[str] = (),
        failure: dict[str, str] | None = None,
    ) -> None:
        self.test = test
        self.seed = seed
        self.everywhere = everywhere
        self.hash_seed = hash_seed
        self.options = options or {}
        self.example = None if example is None else (example[0], example[1])
        self.choices = [(n, which) for n, which in choices]
        self.outside = list(outside)
        self.failure = failure or {}

    def save(self, path: Path) -> None:
        """Writes it to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(vars(self)) + "\n")


def load(path: Path) -> Recording:
    """Reads a recording. Raises ValueError with what is wrong."""
    try:
        return Recording(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a recording of a test: {error}") from error


def failure(error: BaseException, folders: dict[str, str]) -> dict[str, str]:
    """Describes how a test failed, in words that are the same whenever it fails in that way.

    folders  what a path begins with -> what to write instead: they differ from run to run
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    text = ADDRESS.sub("0x...", str(error))
    for folder, name in folders.items():
        where, text = where.replace(folder, name), text.replace(folder, name)
    return {"error": type(error).__name__, "where": where, "text": text}
