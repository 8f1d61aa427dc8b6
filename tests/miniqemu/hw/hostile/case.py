# SPDX-License-Identifier: GPL-2.0-only
"""A row of the table of bad deeds, what a device can answer, and the sentences of virtio 1.2."""

from __future__ import annotations

import enum
from typing import NamedTuple

from miniqemu.hw.virtio_blk_layout import S_IOERR, S_OK, S_UNSUPP
from tests.miniqemu.hw.hostile.makers import Act


class Answer(enum.Enum):
    """What the device does; a number is the status byte of the request."""

    RESET = "NEEDS_RESET"
    IGNORED = "ignored"
    REFUSED = "refused"  # a register keeps its old value
    OK = "served"
    IOERR = "IOERR"
    UNSUPP = "UNSUPP"


RESET, IGNORED, REFUSED, OK, IOERR, UNSUPP = Answer
STATUS_BYTES = {OK: S_OK, IOERR: S_IOERR, UNSUPP: S_UNSUPP}


class Case(NamedTuple):
    """One row."""

    deed: str
    standard: str
    answer: Answer
    act: Act
    word: str = ""
    writes: bool = False  # it may write to the disk


LOOPS = "2.7.5.2: a chain has no loop"
RANGE = "2.7.5: an address is that of guest memory"
ORDER = "2.7.4.2: writable descriptors come last"
FRAMING = "2.7.4.1: no assumption about the framing"
LENGTH = "2.7.5: a descriptor describes a buffer"
INDIRECTS = "2.7.5.3.1: "
AVAIL = "2.7.6: the index counts what was added"
ALIGNED = "2.7: parts are aligned to 16, 2 and 4 bytes"
SIZES = "2.7: a size is a power of 2, up to the maximum"
BEYOND = "5.2.6.1: no place beyond the capacity"
WHOLE = "5.2.6.1: data is a multiple of 512 bytes"
STEPS = "3.1.1: the steps are taken in order"
WIDTH = "4.2.2.2: registers are 32 bits wide"
CONFIG = "4.2.2.2: fields are accessed at their width"
READY = "4.2.2.2: no access while QueueReady is not 0"
UNKNOWN = "5.2.6: UNSUPP for what is not supported"
FLAGS = "5.2.6.2: UNSUPP for an unknown flag"
SEGMENTS = "5.2.6.1: data is whole segments"
ONE_USE = "2.7.13: a chain is the device's until it is used"
