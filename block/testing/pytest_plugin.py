# SPDX-License-Identifier: GPL-2.0-only
"""A test's choices, from a seed or from a recording: options of pytest, and a fixture.

    pytest --seed 7                    other orders of threads than seed 0, which is the usual one
    pytest --replay .replays/x.json    the one test that the recording is of, exactly as it failed

    def test_...(deterministic_world): ...

A test that fails leaves a recording, and its report says so. Python's `random` is seeded for every
test, too, and so is hypothesis if `--seed` is given.

R1  A seed leads to the same run in each process. What a test takes from a real clock or a real
    thread it does not cover.
R2  A recording holds the choices of the test's deterministic_world, and the seed of the rest.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from block.testing import choices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from block.testing.world import DeterministicWorld

FOLDER = ".replays"
USUAL_SEED = 0

_chooser = pytest.StashKey[choices.Chooser]()
_recording = pytest.StashKey[tuple[str, object, list[tuple[int, int]]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("block.testing")
    group.addoption("--seed", type=int, default=None, metavar="N",
                    help="the seed of all choices of a deterministic world")  # fmt: skip
    group.addoption("--replay", type=Path, default=None, metavar="FILE",
                    help="run the test of a recording again, exactly as it was")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--replay")
    if path is not None:
        try:
            config.stash[_recording] = choices.load(path)
        except (OSError, ValueError) as error:
            raise pytest.UsageError(f"--replay: {error}") from error
    if config.getoption("--seed") is not None and hasattr(config.option, "hypothesis_seed"):
        config.option.hypothesis_seed = config.getoption("--seed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a recording, only its test runs."""
    recording = config.stash.get(_recording, None)
    if recording is None:
        return
    others = [item for item in items if item.nodeid != recording[0]]
    items[:] = [item for item in items if item.nodeid == recording[0]]
    if not items:
        raise pytest.UsageError(f"--replay: there is no test {recording[0]}")
    config.hook.pytest_deselected(items=others)


def seed_of(config: pytest.Config) -> object:
    """Returns the seed that holds in this session."""
    recording = config.stash.get(_recording, None)
    if recording is not None:
        return recording[1]
    given = config.getoption("--seed")
    return USUAL_SEED if given is None else given


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    random.seed(f"{seed_of(item.config)} {item.nodeid}")


@pytest.fixture
def deterministic_world(request: pytest.FixtureRequest) -> Iterator[DeterministicWorld]:
    """A World in which nothing happens by chance; the process's one while the test runs."""
    from block.aio.world import set_world
    from block.testing.world import DeterministicWorld

    item, config = request.node, request.config
    recording = config.stash.get(_recording, None)
    chooser: choices.Chooser
    if recording is not None:
        chooser = choices.Replayed(recording[2])
    else:
        chooser = choices.Seeded(f"{seed_of(config)} {item.nodeid}")
    item.stash[_chooser] = chooser
    world = DeterministicWorld(chooser)
    before = set_world(world)
    yield world
    set_world(before)
    world.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps the choices of a test that failed, and says how to have them again."""
    report = yield
    chooser = item.stash.get(_chooser, None)
    if report.when == "call" and report.failed and chooser is not None:
        seed = seed_of(item.config)
        name = re.sub(r"[^\w.-]+", "-", item.nodeid)[-100:]
        path = item.config.rootpath / FOLDER / f"{name}.json"
        choices.save(path, item.nodeid, seed, chooser.made)
        text = f"seed {seed}, {len(chooser.made)} choices; again: pytest --replay {path}"
        report.sections.append(("choices of threads", text))
    return report
