# SPDX-License-Identifier: GPL-2.0-only
"""A test's choices, from a seed or from a recording: options of pytest, a mark, and a fixture.

    pytest --seed 7                    tests in the deterministic world, in orders that 7 chooses
    pytest --replay .replays/x.json    the one test that the recording is of, exactly as it failed

    @pytest.mark.real_world("asyncio has a clock of its own")      stays where it is
    def test_...(deterministic_world): ...                         is there without --seed, too

A test that fails, in whatever run, leaves a recording; its report says how to have it again, and
what no recording can hold.

R1  A seed leads to the same run in each process: of the threads of the test's World, of Python's
    dice (`random`, `os.urandom`), of hypothesis and of the hashes of strings.
R2  With --seed a test's World is a DeterministicWorld, unless it bears the mark. What it takes
    from outside all the same (outside.py) is noted, counted and told.
R3  Each example of hypothesis has a world of its own, so that it runs the same if it runs alone.
R4  With --seed, what a failed test leaves behind in our modules is cleared away: the next one would
    fail of it, and not when it runs alone.
R5  A recording is complete (recording.py): --replay takes no other option, and says whether the
    test failed as it did then.
R6  What is told at the end comes from all processes among which pytest-xdist has dealt the tests.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import sys
import zlib
from collections import Counter
from pathlib import Path

import pytest

from block.testing import choices, examples, recording
from block.testing.explore import loaded
from block.testing.failures import Aborted, WorldIsOver
from block.testing.outside import Outside
from block.testing.recording import Recording
from block.testing.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

    from block.testing.world import DeterministicWorld

FOLDER = ".replays"
USUAL_SEED = 0
MOST_STEPS = 100_000_000  # a test that needs more is ended by its time-out
OPTIONS = ("portable",)  # of pytest, that change what a test does
TOLD = "block.testing"  # the key of what a worker of pytest-xdist hands over


class Session:
    """What holds for all tests of this run of pytest."""

    def __init__(self, config: pytest.Config) -> None:
        given: int | None = config.known_args_namespace.seed
        path: Path | None = config.known_args_namespace.replay
        self.recording = None if path is None else _load(path)
        self.seed: int | str = USUAL_SEED if given is None else given
        self.everywhere = given is not None
        if self.recording is not None:
            self.seed, self.everywhere = self.recording.seed, self.recording.everywhere
        self.outside = Outside()
        self.exits = contextlib.ExitStack()
        self.worlds: Counter[str] = Counter()  # why tests have run in the real world; "": not
        self.taken: Counter[str] = Counter()  # what tests have taken from outside
        self.clean: State | None = None  # what modules remember before the first test
        self.again: list[str] = []  # how the replayed test has ended

    @property
    def hash_seed(self) -> str:
        """What PYTHONHASHSEED must be; "": no matter what."""
        if self.recording is not None:
            return self.recording.hash_seed
        return str(zlib.crc32(str(self.seed).encode())) if self.everywhere else ""

    def to_tell(self) -> dict[str, Any]:
        """Returns what is told at the end of the run, as plain data."""
        return {"worlds": dict(self.worlds), "taken": dict(self.taken), "again": self.again}

    def add(self, told: dict[str, Any]) -> None:
        """Adds what another process has to tell."""
        self.worlds.update(told["worlds"])
        self.taken.update(told["taken"])
        self.again += told["again"]


class Run:
    """What holds for one test."""

    def __init__(self, real: str) -> None:
        self.real = real  # why it stays in the real world, if it does
        self.chooser: choices.Chooser | None = None  # of its present deterministic world
        self.world: DeterministicWorld | None = None
        self.exits = contextlib.ExitStack()
        self.failed = False


_session = pytest.StashKey[Session]()
_run = pytest.StashKey[Run]()


def _load(path: Path) -> Recording:
    try:
        return recording.load(path)
    except (OSError, ValueError) as error:
        raise pytest.UsageError(f"--replay: {error}") from error


# -- the run of pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("block.testing")
    group.addoption("--seed", type=int, default=None, metavar="N",
                    help="run tests in a deterministic world; N chooses the orders")  # fmt: skip
    group.addoption("--replay", type=Path, default=None, metavar="FILE",
                    help="run the test of a recording again, exactly as it was")  # fmt: skip


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    """Starts Python again if it hashes strings otherwise than the seed has it (R1)."""
    early_config.stash[_session] = session = Session(early_config)
    wanted = session.hash_seed
    if wanted and os.environ.get("PYTHONHASHSEED") != wanted:
        os.environ["PYTHONHASHSEED"] = wanted
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_world(why): not in a deterministic world with --seed")
    session = config.stash[_session]
    examples.prepare(config, session.seed if session.everywhere else None)
    recorded = session.recording
    if recorded is not None:
        for name, value in recorded.options.items():
            setattr(config.option, name, value)
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args = [str(config.rootpath / recorded.test.partition("::")[0])]


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_session].exits.close()


def pytest_report_header(config: pytest.Config) -> str | None:
    session = config.stash[_session]
    if session.recording is not None:
        return f"replay: {session.recording.test}, seed {session.seed}"
    return f"seed: {session.seed}, a deterministic world" if session.everywhere else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a recording, only its test runs."""
    recorded = config.stash[_session].recording
    if recorded is None:
        return
    others = [item for item in items if item.nodeid != recorded.test]
    items[:] = [item for item in items if item.nodeid == recorded.test]
    if not items:
        raise pytest.UsageError(f"--replay: there is no test {recorded.test}")
    config.hook.pytest_deselected(items=others)
    if recorded.example is not None:
        examples.give_only(items[0], recorded.example)


def pytest_collection_finish(session: pytest.Session) -> None:
    mine = session.config.stash[_session]
    mine.exits.enter_context(mine.outside.watched())
    mine.clean = State(loaded(("block",)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands over what is to be told (R6)."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[TOLD] = session.config.stash[_session].to_tell()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended; one that has crashed tells nothing."""
    told = getattr(node, "workeroutput", {}).get(TOLD)
    if told is not None:
        node.config.stash[_session].add(told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says in which worlds the tests have run, and how a replay has ended."""
    session = terminalreporter.config.stash[_session]
    for line in session.again:
        terminalreporter.line(line)
    if not session.everywhere or session.recording is not None:
        return
    terminalreporter.section(f"seed {session.seed}")
    in_order = session.worlds[""]
    terminalreporter.line(f"{in_order:5} tests in the deterministic world")
    for what, count in session.taken.most_common():
        terminalreporter.line(f"      {count:5} took from outside: {what}")
    for reason, count in session.worlds.most_common():
        if reason:
            terminalreporter.line(f"{count:5} in the real one: {reason}")


# -- one test


def why_real(item: pytest.Item) -> str:
    """Returns why a test stays in the real world; "" if it does not."""
    mark = item.get_closest_marker("real_world")
    return "" if mark is None else str(mark.args[0])


@contextlib.contextmanager
def _deterministic(item: pytest.Item) -> Iterator[DeterministicWorld]:
    """A DeterministicWorld is the process's World, while this lasts."""
    from block.aio.world import set_world
    from block.testing.world import DeterministicWorld

    session, run = item.config.stash[_session], item.stash[_run]
    recorded = session.recording
    outer = run.world
    if recorded is None or (outer is None and examples.is_given(item)):
        run.chooser = choices.Seeded(f"{session.seed} {item.nodeid}")
    else:
        run.chooser = choices.Replayed(recorded.choices)
    run.world = world = DeterministicWorld(run.chooser)
    world.scheduler.most_steps = MOST_STEPS
    before = set_world(world)
    try:
        yield world
    finally:
        set_world(before)
        run.world = outer
        world.close()


@contextlib.contextmanager
def _dice(seed: str) -> Iterator[None]:
    """Python's dice fall as the seed has it, while this lasts."""
    random.seed(seed)
    dice = random.Random(seed)
    before = os.urandom
    os.urandom = dice.randbytes
    random._urandom = dice.randbytes  # type: ignore[attr-defined]  # of random.SystemRandom
    try:
        yield
    finally:
        os.urandom = random._urandom = before  # type: ignore[attr-defined]  # of random.SystemRandom


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    session = item.config.stash[_session]
    item.stash[_run] = run = Run(why_real(item) if session.everywhere else "")
    session.outside.begin()
    run.exits.enter_context(_dice(f"{session.seed} {item.nodeid}"))
    if session.everywhere:
        session.worlds[run.real] += 1
        if not run.real:
            # As in the real world, the main loop is there before the test begins.
            _ = run.exits.enter_context(_deterministic(item)).main_context
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Each example of hypothesis runs in a world of its own (R3)."""
    run = item.stash[_run]
    if run.world is None or not examples.is_given(item):
        return (yield)
    with examples.each_in(item, lambda: _deterministic(item)):
        return (yield)


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    session, run = item.config.stash[_session], item.stash[_run]
    if run.world is not None:
        run.world.scheduler.abort = WorldIsOver  # pytest goes on after an Exception
    try:
        return (yield)
    finally:
        run.exits.close()
        if run.failed and session.everywhere and session.clean is not None:
            session.clean.restore()  # R4
        if not run.real:
            session.taken.update(list(session.outside.taken))


@pytest.fixture
def deterministic_world(request: pytest.FixtureRequest) -> Iterator[DeterministicWorld]:
    """A World in which nothing happens by chance; the process's one while the test runs."""
    there = request.node.stash[_run].world
    if there is not None:
        yield there
        return
    with _deterministic(request.node) as world:
        yield world


# -- a test that has failed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps what a test that failed needs to fail again, and says how."""
    report = yield
    session = item.config.stash[_session]
    run = item.stash[_run]
    if run.failed:
        return report  # the first failure counts: what a teardown finds then comes of it
    run.failed = report.failed and call.excinfo is not None
    if session.recording is not None:
        if run.failed or report.when == "teardown":
            session.again[:] = _compared(item, session.recording, call)
    elif run.failed and call.excinfo is not None:
        made = _recording(item, call)
        path = item.config.rootpath / FOLDER / file_name(item.nodeid)
        made.save(path)
        report.sections.append(("to run it again", _how_again(made, path, item.config)))
    return report


def file_name(test: str) -> str:
    """Returns the name of a test's recording."""
    readable = re.sub(r"[^\w.-]+", "-", test)[-100:]
    return f"{readable}-{zlib.crc32(test.encode()):08x}.json"


def _failure(item: pytest.Item, call: pytest.CallInfo[None]) -> dict[str, str]:
    """Describes how a test has failed. If its world ended while it ran, that is the reason."""
    assert call.excinfo is not None
    error, world = call.excinfo.value, item.stash[_run].world
    if isinstance(error, Aborted) and world is not None and world.scheduler.failure is not None:
        error = world.scheduler.failure
    tmp_path = getattr(item, "funcargs", {}).get("tmp_path")
    folders = {} if tmp_path is None else {str(tmp_path): "TMP"}
    return recording.failure(error, {**folders, f"{item.config.rootpath}/": ""})


def _recording(item: pytest.Item, call: pytest.CallInfo[None]) -> Recording:
    assert call.excinfo is not None
    session, run = item.config.stash[_session], item.stash[_run]
    option = item.config.option
    return Recording(
        test=item.nodeid,
        seed=session.seed,
        everywhere=session.everywhere,
        hash_seed=os.environ.get("PYTHONHASHSEED", "").replace("random", ""),
        options={name: getattr(option, name) for name in OPTIONS if hasattr(option, name)},
        example=examples.failed_example(call.excinfo.value),
        choices=run.chooser.made if run.chooser is not None else [],
        outside=_outside(item),
        failure=_failure(item, call),
    )


def _outside(item: pytest.Item) -> list[str]:
    """Says what of a test no seed reaches."""
    session, run = item.config.stash[_session], item.stash[_run]
    reasons = [run.real] if run.real else []
    if run.chooser is None and not run.real:
        reasons.append("the order of its threads, if it has some (with --seed it is fixed)")
    return [*reasons, *session.outside.taken]


def _how_again(made: Recording, path: Path, config: pytest.Config) -> str:
    cwd = config.invocation_params.dir
    shown = path.relative_to(cwd) if path.is_relative_to(cwd) else path
    fixed = f"seed {made.seed}"
    if made.choices:
        fixed += f", {len(made.choices)} choices"
    if made.example is not None:
        fixed += ", hypothesis's example"
    text = f"{fixed}; again: pytest --replay {shown}"
    return "\n".join([text, *(f"not fixed: {each}" for each in made.outside)])


def _compared(item: pytest.Item, recorded: Recording, call: pytest.CallInfo[None]) -> list[str]:
    """Says whether a replayed test has failed as it did when it was recorded."""
    run = item.stash[_run]
    not_fixed = [f"not fixed: {each}" for each in recorded.outside]
    if call.excinfo is None:
        return ["replay: the test has passed", *not_fixed]
    now = _failure(item, call)
    made = run.chooser.made if run.chooser is not None else []
    if now != recorded.failure:
        then = recorded.failure
        return [f"replay: another failure; it was {then['error']} at {then['where']}", *not_fixed]
    if made != recorded.choices:
        return ["replay: the same failure, after other choices", *not_fixed]
    return [f"replay: the same failure, after the same {len(made)} choices"]
