# SPDX-License-Identifier: GPL-2.0-only
"""The program `miniqemu`: QEMU's command line on our machine.

Whatever is wrong with what a person asked for ends in one line that begins with the name the
program was called by, and exit status 1. A traceback is a bug of ours, always.
"""

from __future__ import annotations

import gc
import sys

from block.core import report
from miniqemu.chardev.stdio import fill_standard_descriptors

from . import options
from .config import CliError
from .output import program_name, write
from .signals import Terminated, end_by_ctrl_c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .config import Config


def console() -> int:
    """The entry point of the command."""
    end_by_ctrl_c()
    return main(sys.argv)


def main(argv: list[str]) -> int:
    """Runs the program with `argv[0]` as its name; the exit status.

    Leaves the process as it was, for those who call it inside of another program.
    """
    fill_standard_descriptors()
    before = report.program, report.on_mismatch
    report.program, report.on_mismatch = program_name(argv[0]), report.die
    try:
        return command(report.program, argv)
    finally:
        report.program, report.on_mismatch = before


def command(program: str, argv: list[str]) -> int:
    """Runs what the first word asks for, or the machine."""
    if argv[1:2] == ["create"]:
        from . import create

        return create.main(program, argv[2:])
    if argv[1:2] == ["doctor"]:
        from . import doctor

        return doctor.main(program, argv[2:])
    try:
        config = options.parse(program, argv[1:])
        gc.disable()  # a start makes much and drops nothing: collecting costs 5 ms of it
        return run(config)
    except options.Stop as text:
        return write(1, str(text))
    except CliError as error:
        write(2, f"{program}: {error}\n")
        return 1


def run(config: Config) -> int:
    """Builds the machine, runs it, takes it apart."""
    from .build import Emulator

    def say(text: str) -> None:
        write(2, f"{config.program}: {text}\n")

    emulator = Emulator(config, say)
    try:
        emulator.build()
        settle()
        return emulator.run()
    except Terminated as signal:
        say(f"terminating on signal {signal.number}")
        return 0
    finally:
        gc.enable()
        emulator.close()


def settle() -> None:
    """What has been made stays: from now on the collector looks at what comes later only, and
    seldom. With its own thresholds it takes a tenth of the block layer's time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
