# SPDX-License-Identifier: GPL-2.0-only
"""Finds the museum's pieces, and looks for the mistake of each, with and without its mend."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from block.testing.choices import Seeded
from block.testing.explore import Failure, Result, explore, run_once
from block.testing.replaced import replaced
from block.testing.report import rows_that_matter

HERE = Path(__file__).parent
SECONDS = 30.0


class Piece:
    """One mistake: how it was, and where one sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.before: ModuleType = importlib.import_module(f"tutorials.museum.{name}.before")
        self.scene: ModuleType = importlib.import_module(f"tutorials.museum.{name}.scenario")
        self.forms: dict[str, Callable[..., object]] = self.before.FORMS
        self.fix: str = self.scene.FIX
        self.date: str = self.scene.DATE
        self.mistake: str = self.scene.MISTAKE
        self.seen: str = self.scene.SEEN
        self.fails_with: type[BaseException] = self.scene.FAILS_WITH
        self.preemptions: int = getattr(self.scene, "PREEMPTIONS", 2)
        self.watched: tuple[str, ...] = getattr(self.scene, "WATCHED", ())
        self.steps: tuple[str, ...] = getattr(self.scene, "STEPS", ("block.aio",))
        # A leak or a wrong count is there in every order: one run shows it.
        self.in_one_run: bool = getattr(self.scene, "IN_ONE_RUN", False)
        # The piece's files of which all lines are in the table, not only those of a race.
        self.shown: tuple[str, ...] = getattr(self.scene, "SHOWN", ())

    @property
    def text(self) -> str:
        """What the scenario says of itself."""
        return inspect.getdoc(self.scene) or ""

    def search(self, mistaken: bool, seconds: float = SECONDS) -> Result:
        """Looks for the mistake; `mistaken`: with the functions of then in place."""
        with replaced(self.forms if mistaken else {}):
            if self.in_one_run:
                return run_once(self.scene.scenario, Seeded(0))
            result = explore(
                self.scene.scenario,
                self.preemptions,
                seconds,
                steps=(*self.steps, f"tutorials.museum.{self.name}"),
                watched=self.watched,
                fewest_first=mistaken,
            )
        if result.failure is not None and self.shown:
            files = {str(HERE / self.name / f"{name}.py") for name in self.shown}
            result.failure.rows = rows_that_matter(result.failure.all_rows, files)
        return result

    def is_found(self, failure: Failure | None) -> bool:
        """Whether a failure is this piece's mistake, not some other."""
        error: BaseException | None = failure.error if failure is not None else None
        while error is not None and not isinstance(error, self.fails_with):
            error = error.__cause__
        return error is not None


def names() -> list[str]:
    """Returns the names of all pieces: each is a folder with a scenario."""
    return sorted(path.parent.name for path in HERE.glob("*/scenario.py"))


def pieces() -> list[Piece]:
    """Returns all pieces, the oldest mistake first."""
    return sorted((Piece(name) for name in names()), key=lambda piece: (piece.date, piece.fix))
