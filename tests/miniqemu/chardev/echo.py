# SPDX-License-Identifier: GPL-2.0-only
"""A program with nothing but a chardev: shows each key it gets, ends in the way it is told.

python echo.py SPEC HOW      HOW: what to do at the key 'q'
"""

from __future__ import annotations

import os
import sys

from block.aio.world import the_world
from miniqemu.chardev.create import new_chardev
from miniqemu.chardev.stdio import StdioChardev, fill_standard_descriptors
from miniqemu.cli.signals import Signals


def main(spec: str, how: str) -> None:
    fill_standard_descriptors()
    ctx = the_world().main_context
    running = [True]
    line = new_chardev(spec, ctx, running.clear, "echo", 1)

    def read(data: bytes) -> None:
        line.write(b"".join(b"<%d>" % key for key in data))
        if b"q" in data:
            {"return": running.clear, "exit": sys.exit, "raise": lambda: 1 // 0}[how]()

    signals = Signals(ctx)
    signals.on_end = lambda number: running.clear()
    if isinstance(line, StdioChardev):
        signals.on_continue = line.resume
    line.set_handlers(lambda: 16, read)
    line.write(b"ready\n")
    while running:
        ctx.poll(True)
    if how != "raise":
        line.close()
    os.write(2, b"ended\n")


main(*sys.argv[1:])
