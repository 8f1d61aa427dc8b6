# SPDX-License-Identifier: GPL-2.0-only
"""What a run under the scheduler can end with, besides an exception of the code itself."""

from __future__ import annotations


class Deadlock(Exception):
    """Nobody can go on, and there is no timer to wait for. Says who waits for what."""


class Livelock(Exception):
    """The run has taken more steps than it may: somebody goes round in a circle."""


class Diverged(Exception):
    """A replayed run did not come to the choices that were recorded: it depends on something
    besides the scheduler (a real clock, the order of a set, a thread of its own)."""


class ThreadDied(Exception):
    """A thread has ended with an exception that nobody dealt with; it is the cause."""


class WorldIsOver(Exception):
    """A test has failed, which ended its world; what clears up after it cannot go on in there."""


class Aborted(BaseException):
    """Unwinds what a run still has on its stacks, after it is decided."""
