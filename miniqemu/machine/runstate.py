# SPDX-License-Identifier: GPL-2.0-only
"""What the machine is doing, and who is told when that changes (QEMU's softmmu/runstate.c).

The state machine is the table below; a change that it does not allow is a bug and is
asserted. Those who asked are told in their order when the machine starts to run, and in the
reverse order when it stops: a device that was connected last stops first.

Who may call it: the main thread.
"""

from __future__ import annotations

from block.lean import Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class RunState(Enum):
    """QEMU's RunState, with its names in QMP."""

    PRELAUNCH = "prelaunch"  # made or reset, never ran: `-S`
    RUNNING = "running"
    PAUSED = "paused"  # by a person, or by a program
    IO_ERROR = "io-error"  # by a disk whose error action is to stop
    INTERNAL_ERROR = "internal-error"  # the accelerator cannot go on
    GUEST_PANICKED = "guest-panicked"  # triple fault
    DEBUG = "debug"  # by a debugger
    SHUTDOWN = "shutdown"  # the guest is off; only a reset helps


S = RunState
TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    S.PRELAUNCH: frozenset({S.RUNNING, S.SHUTDOWN}),
    S.RUNNING: frozenset(
        {S.PAUSED, S.IO_ERROR, S.INTERNAL_ERROR, S.GUEST_PANICKED, S.DEBUG, S.SHUTDOWN}
    ),
    S.PAUSED: frozenset({S.RUNNING, S.PRELAUNCH, S.SHUTDOWN}),
    S.IO_ERROR: frozenset({S.RUNNING, S.PRELAUNCH, S.SHUTDOWN}),
    S.INTERNAL_ERROR: frozenset({S.PAUSED, S.PRELAUNCH, S.SHUTDOWN}),
    S.GUEST_PANICKED: frozenset({S.PAUSED, S.PRELAUNCH, S.SHUTDOWN}),
    S.DEBUG: frozenset({S.RUNNING, S.PRELAUNCH, S.SHUTDOWN}),
    S.SHUTDOWN: frozenset({S.PAUSED, S.PRELAUNCH}),
}


class RunStates:
    """The state, and those who want to know (VMChangeStateEntry)."""

    def __init__(self) -> None:
        self.now = RunState.PRELAUNCH
        self._told: list[Callable[[bool, RunState], None]] = []

    @property
    def running(self) -> bool:
        """Whether the guest runs (runstate_is_running)."""
        return self.now is RunState.RUNNING

    def may_become(self, state: RunState) -> bool:
        """Whether the table allows it; staying is always allowed."""
        return state is self.now or state in TRANSITIONS[self.now]

    def set(self, state: RunState) -> None:
        """Goes to another state (runstate_set)."""
        assert self.may_become(state), f"run state: {self.now.value} -> {state.value}"
        self.now = state

    def tell(self, callback: Callable[[bool, RunState], None]) -> None:
        """callback(running, state) at each change (qemu_add_vm_change_state_handler)."""
        self._told.append(callback)

    def notify(self, running: bool) -> None:
        """Tells all (vm_state_notify)."""
        for callback in list(self._told) if running else list(reversed(self._told)):
            callback(running, self.now)
