# SPDX-License-Identifier: GPL-2.0-only
"""--seed and --replay: a test that failed fails again, in the same way, in another process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from block.aio.iothread import IOThread
from block.aio.world import the_world
from block.testing import recording
from block.testing.recording import Recording
from block.testing.world import DeterministicWorld

ROOT = Path(__file__).parents[3]

FAILING = """
    def test_three_threads_come_in_order(deterministic_world):
        world = deterministic_world
        order = []
        lock = world.new_lock()

        def work(name):
            for _ in range(4):
                with lock:
                    order.append(name)

        threads = [world.start_thread(name, lambda name=name: work(name)) for name in "abc"]
        for thread in threads:
            thread.join()
        print("the order was", "".join(order), "in", world.scheduler.n_steps, "steps")
        assert order == sorted(order)

    def test_another():
        pass

    def test_chance():
        import os, random
        print("thrown", random.random(), os.urandom(4).hex())
        assert False
"""

EXAMPLES = """
    from hypothesis import given, settings, strategies as st
    from block.aio.iothread import IOThread
    from block.aio.world import the_world

    @given(st.lists(st.integers(0, 1000)))
    def test_sums(numbers):
        assert sum(numbers) < 1700, f"given {numbers}"

    @settings(max_examples=30)
    @given(st.lists(st.integers(0, 1000)))
    def test_orders(numbers):
        order = []
        with IOThread("a") as a, IOThread("b") as b:
            for number in numbers:
                ctx = a.ctx if number % 2 else b.ctx
                ctx.bh_schedule_oneshot(lambda number=number: order.append(number))
        assert order == sorted(order), f"given {numbers}, got {order}"
"""

OUTSIDE = """
    import subprocess, threading, time
    import pytest
    from block.aio.world import World, the_world

    def test_program():
        subprocess.run(["true"])
        assert the_world().scheduler.n_steps < 0

    def test_thread():
        threading.Thread(target=print).start()
        assert False

    def test_world():
        assert World() is None

    @pytest.mark.real_world("it looks at the clock")
    def test_clock():
        assert type(the_world()) is not World

    def test_strings():
        print("in the order of a set:", *{"a", "b", "c", "d", "e", "f"})
        assert False

    def test_good():
        assert the_world().scheduler is not None
"""


def run(folder: Path, *args: str) -> str:
    """Runs pytest in a folder, in a process of its own; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "random",
                   "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # fmt: skip
    plugins = [f"-p{each}" for each in ("block.testing.pytest_plugin", "_hypothesis_pytestplugin",
                                        "no:cacheprovider")]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "--rootdir", str(folder), "-c", "/dev/null",
         *args, "test_sample.py"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def sample(folder: Path, text: str) -> Path:
    """Writes the tests that run() runs."""
    (folder / "test_sample.py").write_text(textwrap.dedent(text))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return sample(tmp_path, FAILING)


def order_in(text: str) -> str:
    found = re.search("the order was .*", text)
    assert found is not None, text
    return found[0]


def recording_in(text: str) -> str:
    found = re.search(r"pytest --replay (\S+)", text)
    assert found is not None, text
    return found[1]


def test_a_failing_test_fails_in_the_same_way_when_it_is_replayed(folder: Path) -> None:
    first = run(folder, "--seed", "3")
    path = str(folder / recording_in(first))
    assert "seed 3" in first
    again = run(folder, "--replay", path)
    assert "replay: the same failure, after the same" in again
    assert order_in(again) == order_in(first)
    assert "1 failed, 2 deselected" in again
    assert json.loads(Path(path).read_text())["test"].endswith("come_in_order")


def test_the_replay_needs_the_choices_and_not_the_seed(folder: Path) -> None:
    first = run(folder, "--seed", "3")
    path = folder / recording_in(first)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "seed": 99}))
    assert order_in(run(folder, "--replay", str(path))) == order_in(first)


def test_another_seed_leads_to_another_order_and_the_same_to_the_same(folder: Path) -> None:
    orders = [order_in(run(folder, "--seed", seed)) for seed in ("1", "2", "1")]
    assert orders[0] == orders[2] != orders[1]


def test_what_a_test_throws_by_dice_follows_from_the_seed_too(folder: Path) -> None:
    seeds = [[], ["--seed", "0"], ["--seed", "1"]]
    thrown = [re.findall("thrown .*", run(folder, *seed)) for seed in seeds]
    assert thrown[0] == thrown[1] != thrown[2]


@pytest.mark.parametrize("options", [("-k", "sums"), ("-k", "orders", "--seed", "1")])
def test_the_example_that_hypothesis_has_found_is_the_one_that_is_replayed(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    first = run(sample(tmp_path, EXAMPLES), *options)
    again = run(tmp_path, "--replay", str(tmp_path / recording_in(first)))
    assert "hypothesis's example" in first
    assert re.findall("given .*", again)[:1] == re.findall("given .*", first)[:1]
    assert "replay: the same failure" in again


@pytest.mark.parametrize("options", [(), ("-p", "xdist", "--numprocesses", "2")])
def test_what_no_seed_reaches_is_told_and_counted(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    first = run(sample(tmp_path, OUTSIDE), "--seed", "1", *options)
    for line in ("not fixed: a program (true)", "not fixed: a real thread",
                 "not fixed: a World with the system's clock",
                 "not fixed: it looks at the clock"):  # fmt: skip
        assert line in first
    assert "    5 tests in the deterministic world" in first
    assert "    1 took from outside: a program (true)" in first
    assert "    1 in the real one: it looks at the clock" in first


def test_a_seed_fixes_how_strings_are_hashed_and_so_does_a_replay(tmp_path: Path) -> None:
    first = run(sample(tmp_path, OUTSIDE), "--seed", "1")
    order = re.findall("in the order .*", first)
    assert order
    assert re.findall("in the order .*", run(tmp_path, "--seed", "1")) == order
    path = next((tmp_path / ".replays").glob("*strings*"))
    assert re.findall("in the order .*", run(tmp_path, "--replay", str(path))) == order


def test_a_replay_says_so_if_the_test_passes_now_or_fails_otherwise(tmp_path: Path) -> None:
    first = run(sample(tmp_path, "def test_it():\n    assert 1 == 2"))
    path = str(tmp_path / recording_in(first))
    sample(tmp_path, "def test_it():\n    assert 1 == 3")
    assert "replay: another failure; it was AssertionError at test_sample.py:2" in run(
        tmp_path, "--replay", path
    )
    sample(tmp_path, "def test_it():\n    pass")
    assert "replay: the test has passed" in run(tmp_path, "--replay", path)


@pytest.mark.parametrize("text", ["nonsense", '{"test": "x"}', "[1]"])
def test_a_file_that_is_no_recording_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recording.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"recording.json: not a recording of a test"):
        recording.load(path)


def test_a_recording_of_a_test_that_is_gone_is_an_error_that_says_so(folder: Path) -> None:
    path = folder / "recording.json"
    Recording("test_sample.py::test_gone", 1).save(path)
    assert "there is no test test_sample.py::test_gone" in run(folder, "--replay", str(path))


def test_the_world_is_the_processes_own_while_a_test_runs(
    deterministic_world: DeterministicWorld,
) -> None:
    assert the_world() is deterministic_world
    with IOThread("io0") as iothread:
        assert iothread.world is deterministic_world
