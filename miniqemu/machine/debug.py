# SPDX-License-Identifier: GPL-2.0-only
"""`-d`: what the machine tells about itself while it runs (QEMU's qemu_log).

Nothing is formatted, and nothing but one global flag is read, while no category is on:
callers write `if debug.enabled: debug.log(...)`.

Who may call it: any thread; a line is written by one write(2) so that lines do not mix.
"""

from __future__ import annotations

import os
import sys

CATEGORIES = {
    "int": "interrupt lines as devices drive them",
    "exits": "every exit of a vCPU that reaches a device, with address and value",
    "guest_errors": "what a correct guest does not do: accesses that no device answers",
    "unimp": "features of a device that are not implemented",
    "cpu_reset": "registers before a reset",
    "mmap": "how guest memory is laid out",
}

enabled: frozenset[str] = frozenset()
_fd = 2


def enable(names: str, path: str | None = None) -> None:
    """Turns categories on, comma-separated as in `-d int,exits` (qemu_str_to_log_mask).

    Raises ValueError, naming the category, for one that does not exist. `path` is
    `-D`: the file to append to instead of standard error.
    """
    global enabled, _fd
    wanted = {name for name in names.split(",") if name}
    for name in sorted(wanted):
        if name not in CATEGORIES:
            raise ValueError(name)
    if path is not None:
        _fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    enabled = frozenset(wanted)


def disable() -> None:
    """Turns everything off again, and closes the log file if there is one."""
    global enabled, _fd
    enabled = frozenset()
    if _fd != 2:
        os.close(_fd)
        _fd = 2


def log(category: str, line: str) -> None:
    """Writes one line when the category is on (qemu_log_mask)."""
    if category in enabled:
        sys.stdout.flush()
        os.write(_fd, f"{line}\n".encode())


def unassigned(kind: str, what: str, addr: int, size: int, value: int | None = None) -> None:
    """Tells of an access that no device answers (unassigned_mem_read/write)."""
    stored = "" if value is None else f" of 0x{value:x}"
    log("guest_errors", f"{kind}: unassigned {what}{stored} at 0x{addr:x}, {size} bytes")
