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
from block.testing import choices
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
        import random
        print("thrown", random.random())
        assert False
"""


def run(folder: Path, *args: str) -> str:
    """Runs pytest in a folder, in a process of its own; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "random",
                   "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "block.testing.pytest_plugin", "-p",
         "no:cacheprovider", "--rootdir", str(folder), "-c", "/dev/null", *args, "test_sample.py"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_sample.py").write_text(textwrap.dedent(FAILING))
    return tmp_path


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
    path = recording_in(first)
    assert "seed 3" in first
    again = run(folder, "--replay", path)
    assert order_in(again) == order_in(first)
    assert "1 failed, 2 deselected" in again
    assert json.loads(Path(path).read_text())["test"].endswith("come_in_order")


def test_the_replay_needs_the_choices_and_not_the_seed(folder: Path) -> None:
    first = run(folder, "--seed", "3")
    path = Path(recording_in(first))
    recording = json.loads(path.read_text())
    path.write_text(json.dumps({**recording, "seed": 99}))
    assert order_in(run(folder, "--replay", str(path))) == order_in(first)


def test_another_seed_leads_to_another_order_and_the_same_to_the_same(folder: Path) -> None:
    orders = [order_in(run(folder, "--seed", seed)) for seed in ("1", "2", "1")]
    assert orders[0] == orders[2] != orders[1]


def test_what_a_test_throws_by_dice_follows_from_the_seed_too(folder: Path) -> None:
    seeds = [[], ["--seed", "0"], ["--seed", "1"]]
    thrown = [re.findall("thrown .*", run(folder, *seed)) for seed in seeds]
    assert thrown[0] == thrown[1] != thrown[2]


@pytest.mark.parametrize("text", ["nonsense", '{"test": "x", "seed": 1}', "[1]"])
def test_a_file_that_is_no_recording_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recording.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"recording.json: not a recording of choices"):
        choices.load(path)


def test_a_recording_of_a_test_that_is_gone_is_an_error_that_says_so(folder: Path) -> None:
    path = folder / "recording.json"
    choices.save(path, "test_sample.py::test_gone", 1, [])
    assert "there is no test test_sample.py::test_gone" in run(folder, "--replay", str(path))


def test_the_world_is_the_processes_own_while_a_test_runs(
    deterministic_world: DeterministicWorld,
) -> None:
    assert the_world() is deterministic_world
    with IOThread("io0") as iothread:
        assert iothread.world is deterministic_world
