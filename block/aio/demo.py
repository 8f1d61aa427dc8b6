# SPDX-License-Identifier: GPL-2.0-only
"""What the modules' demos share: a timeline on the terminal.

`python -m block.aio.bh` and its like show in ten lines what a module does. Each line of the output
begins with the time since the start and with the thread in which it was printed.
"""

from __future__ import annotations

import threading

from block.aio.world import ClockType, World, the_world


class Timeline:
    """Prints lines with the time since it was made."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or the_world()
        self.start_ns = self.world.clock_ns(ClockType.REALTIME)
        print("   ms  thread           what happens")

    def __call__(self, text: object) -> None:
        ms = (self.world.clock_ns(ClockType.REALTIME) - self.start_ns) / 1e6
        print(f"{ms:5.1f}  {threading.current_thread().name:15}  {text}")
