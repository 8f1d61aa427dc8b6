# SPDX-License-Identifier: GPL-2.0-only
"""Rules, and the machine that they make of a blkdebug node.

The machine has a state, a number that begins with 1, and errors that are armed. Two things happen
to it, and nothing else:

    an event    each rule for that event, and for the state (0: any), acts:
                    inject-error   is armed
                    set-state      names the next state
                    break point    stops the coroutine, once (suspend.py)
    a request   the first armed error that fits it makes it fail

R1  All rules for an event look at the state that was there before it.
R2  Armed errors stay armed, for all requests to come, until an event arms others: the first rule
    that an event arms disarms all from before.
R3  The rule that was written last acts first. So of two set-state rules for one event the first one
    decides, and of two errors the first one is looked at first.
R4  An error with errno 0 fits as any other, and lets the request pass: it switches errors off.
R5  A rule that says `once` is gone after the first request that it made fail.
Who may call it: driver.py, in the node's context.

Source: block/blkdebug.c (process_rule, blkdebug_debug_event, rule_check).
"""

from __future__ import annotations

IO_TYPES = ("read", "write", "write-zeroes", "discard", "flush", "block-status")
"""What a request can be (BlkdebugIOType)."""
DEFAULT_IO_TYPES = frozenset(IO_TYPES) - {"block-status"}

FIRST_STATE = 1
ANY_STATE = 0
ANY_PLACE = -1


class Rule:
    """What happens at an event, in a state (BlkdebugRule)."""

    __slots__ = ("event", "state")

    def __init__(self, event: str, state: int = ANY_STATE) -> None:
        self.event = event
        self.state = state


class InjectError(Rule):
    """Makes requests fail.

    `offset` is a byte that a request must touch, or ANY_PLACE. `immediately`: not by way of the
    event loop, but before the request has given way to anybody.
    """

    __slots__ = ("errno", "immediately", "io_types", "offset", "once")

    def __init__(
        self,
        event: str,
        state: int,
        errno: int,
        io_types: frozenset[str] = DEFAULT_IO_TYPES,
        offset: int = ANY_PLACE,
        once: bool = False,
        immediately: bool = False,
    ) -> None:
        super().__init__(event, state)
        self.errno = errno
        self.io_types = io_types
        self.offset = offset
        self.once = once
        self.immediately = immediately

    def fits(self, io_type: str, offset: int, nbytes: int) -> bool:
        """Whether it is about such a request. A flush touches no byte."""
        place = self.offset == ANY_PLACE or offset <= self.offset < offset + nbytes
        return place and io_type in self.io_types


class SetState(Rule):
    """Changes the machine's state."""

    __slots__ = ("new_state",)

    def __init__(self, event: str, state: int, new_state: int) -> None:
        super().__init__(event, state)
        self.new_state = new_state


class BreakPoint(Rule):
    """Stops the next coroutine that comes by; `tag` is what it is called."""

    __slots__ = ("tag",)

    def __init__(self, event: str, tag: str) -> None:
        super().__init__(event)
        self.tag = tag


class Machine:
    """The rules of one node, and where they have led it."""

    __slots__ = ("armed", "rules", "state")

    def __init__(self) -> None:
        self.state = FIRST_STATE
        self.armed: list[InjectError] = []
        self.rules: dict[str, list[Rule]] = {}

    def add(self, rule: Rule) -> None:
        """Takes a rule; it comes before those that are there (R3)."""
        self.rules.setdefault(rule.event, []).insert(0, rule)

    def remove(self, rule: Rule) -> None:
        """Drops a rule."""
        self.rules[rule.event].remove(rule)

    def break_points(self, tag: str) -> list[BreakPoint]:
        """The break points of that name that nobody has come to yet."""
        every = (rule for rules in self.rules.values() for rule in rules)
        return [rule for rule in every if isinstance(rule, BreakPoint) and rule.tag == tag]

    def happen(self, event: str) -> list[BreakPoint]:
        """An event: lets the rules act (R1, R2); returns the break points that were met, and are
        rules no more (blkdebug_debug_event)."""
        acting = [r for r in self.rules.get(event, ()) if r.state in (ANY_STATE, self.state)]
        errors = [rule for rule in acting if isinstance(rule, InjectError)]
        if errors:
            self.armed = errors[::-1]
        for rule in acting:
            if isinstance(rule, SetState):
                self.state = rule.new_state
        met = [rule for rule in acting if isinstance(rule, BreakPoint)]
        for rule in met:
            self.remove(rule)
        return met

    def error_for(self, io_type: str, offset: int, nbytes: int) -> InjectError | None:
        """A request: the error that makes it fail, if one does (rule_check)."""
        for error in self.armed:
            if error.fits(io_type, offset, nbytes):
                break
        else:
            return None
        if not error.errno:
            return None
        if error.once:
            self.armed.remove(error)
            self.remove(error)
        return error
