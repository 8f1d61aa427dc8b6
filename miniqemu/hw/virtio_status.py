# SPDX-License-Identifier: GPL-2.0-only
"""The device status register as a state machine (virtio 1.2, sections 2.1 and 3.1).

The driver walks the register up one step at a time: ACKNOWLEDGE, DRIVER, FEATURES_OK,
DRIVER_OK. Each write carries all bits set so far. What a write does depends on where the
device is, and `TABLE` is the whole of it: a row for each state, a column for each thing a
driver can ask for. QEMU believes any value; we follow the standard's order, as Firecracker
does, so that no write can put the device where its set-up was skipped.

Rules:
R1  A step is taken only from the step before it; ACKNOWLEDGE and DRIVER may come in one write.
    Anything else is ignored, and the register still shows the old value: that is how a driver
    learns that it was refused.
R2  Only a reset (a write of 0) leads back. No write clears a single bit.
R3  NEEDS_RESET is the device's to set. A driver that writes it back is not asking for anything.

`python -m miniqemu.hw.virtio_status` prints the table of the docs (docs/two-ways.md).
"""

from __future__ import annotations

from block.lean import Enum

ACKNOWLEDGE = 0x01
DRIVER = 0x02
DRIVER_OK = 0x04
FEATURES_OK = 0x08
NEEDS_RESET = 0x40
FAILED = 0x80


class State(Enum):
    """Where a device is; the value is what the register shows (less NEEDS_RESET, FAILED)."""

    RESET = 0
    ACKNOWLEDGED = ACKNOWLEDGE
    DRIVER = ACKNOWLEDGE | DRIVER
    NEGOTIATED = ACKNOWLEDGE | DRIVER | FEATURES_OK
    RUNNING = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
    BROKEN = NEEDS_RESET  # the device gave up: something it cannot recover from
    GIVEN_UP = FAILED  # the driver gave up


class Asked(Enum):
    """What a written value asks for; the value is the one the standard's sequence writes."""

    RESET = 0
    ACKNOWLEDGE = State.ACKNOWLEDGED.value
    DRIVER = State.DRIVER.value
    FEATURES_OK = State.NEGOTIATED.value
    DRIVER_OK = State.RUNNING.value
    FAILED = FAILED  # with any other bits
    NONSENSE = -1  # no value of the sequence


class Action(Enum):
    """What the device does about it."""

    IGNORE = "ignored"
    RESET = "reset"
    STEP = "step"  # remember the new bits, nothing else
    NEGOTIATE = "negotiate"  # FEATURES_OK stays clear if the features are refused
    START = "start"  # the device is live: buffers may be used
    GIVE_UP = "give up"  # stop, and wait for a reset


_NO, _ZERO, _STEP, _FAIL = Action.IGNORE, Action.RESET, Action.STEP, Action.GIVE_UP
_FEAT, _LIVE = Action.NEGOTIATE, Action.START

# One row a state; the columns are those of Asked, in order:
#                    0      ACK    DRIVER FEATURES DRIVER_OK FAILED nonsense
_ROWS = {
    State.RESET:        (_ZERO, _STEP, _STEP, _NO,     _NO,      _FAIL, _NO),
    State.ACKNOWLEDGED: (_ZERO, _NO,   _STEP, _NO,     _NO,      _FAIL, _NO),
    State.DRIVER:       (_ZERO, _NO,   _NO,   _FEAT,   _NO,      _FAIL, _NO),
    State.NEGOTIATED:   (_ZERO, _NO,   _NO,   _NO,     _LIVE,    _FAIL, _NO),
    State.RUNNING:      (_ZERO, _NO,   _NO,   _NO,     _NO,      _FAIL, _NO),
    State.BROKEN:       (_ZERO, _NO,   _NO,   _NO,     _NO,      _FAIL, _NO),
    State.GIVEN_UP:     (_ZERO, _NO,   _NO,   _NO,     _NO,      _NO,   _NO),
}  # fmt: skip

TABLE: dict[State, dict[Asked, Action]] = {
    state: dict(zip(Asked, row, strict=True)) for state, row in _ROWS.items()
}

_SEQUENCE = {asked.value: asked for asked in Asked}


def asked_by(value: int) -> Asked:
    """What a write of `value` (32 bits, a guest's) asks for."""
    value &= ~NEEDS_RESET
    if value & FAILED:
        return Asked.FAILED
    return _SEQUENCE.get(value, Asked.NONSENSE)


def state_of(register: int) -> State:
    """The state that a register value shows."""
    if register & FAILED:
        return State.GIVEN_UP
    if register & NEEDS_RESET:
        return State.BROKEN
    return State(register)


def as_markdown() -> str:
    """The table as the docs show it; "·" is a write that is ignored."""
    lines = ["| state | " + " | ".join(asked.name for asked in Asked) + " |"]
    lines.append("|---" * (len(Asked) + 1) + "|")
    for state, row in TABLE.items():
        cells = ("·" if action is Action.IGNORE else action.value for action in row.values())
        lines.append(f"| {state.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())
