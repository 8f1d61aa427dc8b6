# SPDX-License-Identifier: GPL-2.0-only
"""Run states: every cell of the table, and the order in which devices are told."""

from __future__ import annotations

from itertools import product

import pytest

from miniqemu.machine.runstate import TRANSITIONS, RunState, RunStates

# QEMU 7.2's runstate_transitions_def, without migration and suspend.
ALLOWED = """
prelaunch -> running shutdown
running -> paused io-error internal-error guest-panicked debug shutdown
paused -> running prelaunch shutdown
io-error -> running prelaunch shutdown
internal-error -> paused prelaunch shutdown
guest-panicked -> paused prelaunch shutdown
debug -> running prelaunch shutdown
shutdown -> paused prelaunch
"""


def test_the_table_is_what_the_documentation_says() -> None:
    said = {
        RunState(line.split(" -> ")[0]): {RunState(word) for word in line.split(" -> ")[1].split()}
        for line in ALLOWED.strip().splitlines()
    }
    assert said == TRANSITIONS


@pytest.mark.parametrize(("before", "after"), list(product(RunState, RunState)))
def test_each_cell_of_the_table(before: RunState, after: RunState) -> None:
    states = RunStates()
    states.now = before
    if after is before or after in TRANSITIONS[before]:
        states.set(after)
        assert states.now is after
        assert states.running == (after is RunState.RUNNING)
    else:
        with pytest.raises(AssertionError, match=f"{before.value} -> {after.value}"):
            states.set(after)


def test_devices_start_in_order_and_stop_in_the_reverse_order() -> None:
    states, told = RunStates(), list[str]()
    for name in ("disk", "network"):
        states.tell(lambda running, state, name=name: told.append(f"{name} {running}"))
    states.notify(True)
    states.notify(False)
    assert told == ["disk True", "network True", "network False", "disk False"]
