# SPDX-License-Identifier: GPL-2.0-only
"""The texts that the program prints when asked: help, version, properties (QEMU: vl.c's help)."""

from __future__ import annotations

from miniqemu import VERSION
from miniqemu.machine import debug

from .options import GROUPS, OBJECTS, Row

INDENT = 16

KEYS = """
During emulation with -nographic or -serial mon:stdio, the following keys are useful:
ctrl-a h        print this help
ctrl-a x        exit emulator
ctrl-a t        toggle console timestamps
ctrl-a b        send break (magic sysrq)
ctrl-a c        would switch to the monitor: miniqemu has none yet
ctrl-a ctrl-a   send ctrl-a

Options take one or two dashes. What is not listed here and QEMU has is refused by name.
"""

COMMANDS = """\
       {program} create [options] FILE [SIZE]   makes a disk image, as qemu-img create does
       {program} doctor                         says what is missing here, and what mends it
"""


def version() -> str:
    """What --version prints."""
    return (
        f"miniqemu emulator version {VERSION} (command line of QEMU 7.2)\n"
        "Free software under the GNU GPL, version 2; there is no warranty\n"
    )


def usage(program: str) -> str:
    """What --help prints: the table of options by groups."""
    parts = [version(), f"usage: {program} [options]\n", COMMANDS.format(program=program)]
    for title, rows in GROUPS.items():
        parts.append(f"\n{title}:\n")
        parts += [describe(row) for row in rows]
    return "".join(parts) + KEYS


def describe(row: Row) -> str:
    """The lines of one option, in QEMU's columns."""
    names = " or ".join(f"-{name}" for name in row.names)
    head = f"{names} {row.argument}".rstrip()
    lines = row.help.split("\n")
    first = f"{head:<{INDENT}}{lines.pop(0)}" if len(head) < INDENT else head
    return first + "\n" + "".join(f"{'':<{INDENT}}{line}\n" for line in lines)


def log_help() -> str:
    """What '-d help' prints."""
    lines = [f"{name:<15} {what}\n" for name, what in debug.CATEGORIES.items()]
    return "Log items (comma separated):\n" + "".join(lines)


def listing(topic: str) -> str:
    """What '-machine help' and its like print: the names that the option takes."""
    from miniqemu.accel.cpuid import MODELS

    from .devices import MODELS as DEVICES
    from .machine_options import ACCELERATORS

    title, line, names = {
        "machine": ("Supported machines are:", "{:<20} microvm (i386) (default)", ("microvm",)),
        "accel": ("Accelerators supported by miniqemu:", "{}", ACCELERATORS),
        "cpu": ("Available CPUs:", "x86 {}", MODELS),
        "device": ("Supported devices are:", 'name "{}"', DEVICES),
        "object": ("List of user creatable objects:", "  {}", OBJECTS),
    }[topic]
    return "\n".join((title, *map(line.format, names))) + "\n"


def object_help(kind: str) -> str:
    """What '-object KIND,help' prints: the properties, as QEMU lists them."""
    from . import iothreads, secrets, throttling

    of_kind = {
        "iothread": [f"{name}=<int>" for name in iothreads.POLLING],
        "secret": [f"{name}=<{secrets.TYPES.get(name, 'string')}>" for name in secrets.PROPERTIES],
        "throttle-group": ["limits=<ThrottleLimits>"]
        + [f"{name}=<int>" for name in throttling.PROPERTIES],
    }
    return f"{kind} options:\n" + "".join(f"  {line}\n" for line in sorted(of_kind[kind]))


def format_help() -> str:
    """What '-drive format=help' prints."""
    from block.core.registry import format_names

    return f"Supported formats: {' '.join(format_names())}\n"
