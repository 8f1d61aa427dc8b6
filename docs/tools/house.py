# SPDX-License-Identifier: GPL-2.0-only
"""The house: which room stands on which (docs/images/house.svg)."""

from __future__ import annotations

from docs.tools.draw import Box, Picture

ROOM = 46

# The arrows inside the machine: (who imports, whom). A test finds each in the source.
MACHINE_IMPORTS = (
    ("cli", "machine"),
    ("machine", "hw"),
    ("hw", "chardev"),
    ("machine", "accel"),
    ("accel", "pykvm"),
)


def picture() -> Picture:
    """Draws the rooms from the guest down to the kernel; arrows are imports."""
    made = Picture("house", 860, 640, "The rooms of miniqemu, and which imports which")
    guest = made.box(
        20,
        12,
        820,
        50,
        "guest/",
        "~the toy kernel, in C and assembly: boots, finds its disk, reads and writes it",
        kind="amber",
    )
    machine = upper(made)
    layer = lower(made)
    kernel = made.box(
        20, 586, 820, 44, "the host's kernel", "~/dev/kvm, eventfd, epoll, preadv, pwritev"
    )
    made.arrow(guest.bottom(), machine.top(), dashed=True)
    made.text(440, 82, "~registers and interrupts, no import")
    made.arrow(machine.bottom(0.25), layer.top(0.25))
    made.text(240, 275, "~imports; never the other way round")
    made.arrow(layer.bottom(), kernel.top(), dashed=True)
    return made


def upper(made: Picture) -> Box:
    """Draws miniqemu/, the virtual machine."""
    whole = made.region(20, 96, 820, 160, "miniqemu/: the virtual machine", kind="blue")
    rooms = {
        "cli": made.box(36, 132, 180, ROOM, "`cli`", "~QEMU's command line"),
        "machine": made.box(236, 132, 180, ROOM, "`machine`", "~memory, loader, board"),
        "hw": made.box(436, 132, 188, ROOM, "`hw`", "~UART, virtio, data-plane"),
        "chardev": made.box(644, 132, 180, ROOM, "`chardev`", "~where serial bytes go"),
        "accel": made.box(236, 198, 180, ROOM, "`accel`", "~what runs a vCPU"),
        "pykvm": made.box(436, 198, 188, ROOM, "`pykvm`", "~the ioctls of /dev/kvm"),
    }
    for user, used in MACHINE_IMPORTS:
        connect(made, rooms[user], rooms[used])
    return whole


def connect(made: Picture, user: Box, used: Box) -> None:
    """Draws one import: to the right, or down."""
    if user.y == used.y:
        made.arrow(user.right(), used.left())
    else:
        made.arrow(user.bottom(), used.top())


def lower(made: Picture) -> Box:
    """Draws block/, the block layer: what works with whole images, drivers, what they stand on."""
    whole = made.region(20, 286, 820, 274, "block/: the block layer, usable alone", kind="green")
    drivers = [
        made.box(36, 322, 180, ROOM, "`formats`", "~raw, qcow2, qed, vmdk, luks"),
        made.box(236, 322, 180, ROOM, "`protocols`", "~file, null-co, null-aio"),
        made.box(436, 322, 180, ROOM, "`filters`", "~blkdebug, throttle, ..."),
        made.box(636, 322, 188, ROOM, "`ops`", "~convert, compare, map, ..."),
    ]
    core = made.box(36, 402, 788, 58, "`core`", "~nodes, edges, the device's handle, opening, "
                    "requests, drain, moving between loops")  # fmt: skip
    aio = made.box(36, 490, 788, 58, "`aio`", "~the event loop: bottom halves, timers, "
                   "fd handlers, coroutines, IOThreads, thread pool")  # fmt: skip
    for driver in drivers:
        x, y = driver.bottom()
        made.arrow((x, y), (x, core.y))
    made.arrow(core.bottom(), aio.top())
    return whole
