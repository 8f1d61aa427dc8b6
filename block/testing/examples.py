# SPDX-License-Identifier: GPL-2.0-only
"""hypothesis, as far as a test is to be run again: its dice, and the one example that failed.

R1  With a seed, hypothesis draws the same examples in each run, and takes none from a database.
R2  A test that failed is run again with its failing example alone, which hypothesis itself
    writes down (`reproduce_failure`). That takes the same version of hypothesis.
R3  It reports one failure of a test: the example belongs to it.
R4  hypothesis is not needed: without it there are no examples.
"""

from __future__ import annotations

import contextlib
import functools
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    import pytest

PROFILE = "block.testing"
BLOB = re.compile(r"@reproduce_failure\('([^']+)', b'([^']*)'\)")


def prepare(config: pytest.Config, seed: int | str | None) -> None:
    """Sets hypothesis up, before tests are imported: they take its settings over."""
    if not hasattr(config.option, "hypothesis_seed"):
        return
    from hypothesis import settings

    wanted: dict[str, Any] = {"print_blob": True, "report_multiple_bugs": False}
    if seed is not None:
        config.option.hypothesis_seed = seed
        wanted["database"] = None
    settings.register_profile(PROFILE, settings.default, **wanted)
    settings.load_profile(PROFILE)


def is_given(item: pytest.Item) -> bool:
    """Whether hypothesis gives a test its arguments."""
    return bool(getattr(getattr(item, "obj", None), "is_hypothesis_test", False))


def failed_example(error: BaseException) -> tuple[str, str] | None:
    """Returns (version, blob) of the example that made a test fail, if there was one."""
    for note in getattr(error, "__notes__", ()):
        found = BLOB.search(note)
        if found is not None:
            return found[1], found[2]
    return None


def give_only(item: pytest.Item, example: tuple[str, str]) -> None:
    """A test shall run with one example (R2)."""
    from hypothesis import reproduce_failure

    method: Any = item.obj  # type: ignore[attr-defined]  # is_given(item)
    function = getattr(method, "__func__", method)
    version, blob = example
    reproduce_failure(version, blob.encode())(function)


@contextlib.contextmanager
def each_in(item: pytest.Item, around: Callable[[], contextlib.AbstractContextManager[object]],
            ) -> Iterator[None]:  # fmt: skip
    """While this lasts, each example of a test runs inside of `around()`."""
    handle = item.obj.hypothesis  # type: ignore[attr-defined]  # is_given(item)
    inner = handle.inner_test

    @functools.wraps(inner)
    def test(*args: Any, **named: Any) -> Any:
        with around():
            return inner(*args, **named)

    handle.inner_test = test
    try:
        yield
    finally:
        handle.inner_test = inner
