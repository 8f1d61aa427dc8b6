# SPDX-License-Identifier: GPL-2.0-only
"""Warnings to the person at the terminal (util/qemu-error.c).

R1  An error is raised, never reported here: whoever called decides. This is for what goes on
    in spite of a doubt.
R2  A program sets `program` to the name it was called by; the lines then begin with it, as QEMU's.

Called from any thread; one write per line.
"""

from __future__ import annotations

import sys

program = ""
"""The name that warnings begin with, '' for none."""


def warn_report(message: str) -> None:
    """Prints 'program: warning: message' on standard error (warn_report)."""
    prefix = f"{program}: " if program else ""
    sys.stderr.write(f"{prefix}warning: {message}\n")
    sys.stderr.flush()
