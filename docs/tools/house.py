# SPDX-License-Identifier: GPL-2.0-only
"""The house: which room stands on which (docs/images/house.svg)."""

from __future__ import annotations

from docs.tools.draw import Box, Picture

ROOM = 46

# The arrows: (who imports, whom). A test finds each in the source.
MACHINE_IMPORTS = (
    ("cli", "machine"),
    ("machine", "hw"),
    ("hw", "chardev"),
    ("machine", "accel"),
    ("accel", "pykvm"),
)
LAYER_IMPORTS = (
    ("ops", "core"),
    ("protocols", "core"),
    ("filters", "core"),
    ("formats", "core"),
    ("formats", "crypto"),
    ("crypto", "core"),
    ("core", "aio"),
    ("core", "objects"),
    ("core", "qapi"),
    ("testing", "aio"),
)


def picture() -> Picture:
    """Draws the rooms from the guest down to the kernel; arrows are imports."""
    made = Picture("house", 860, 706, "The rooms of miniqemu, and which imports which")
    guest = made.box(
        20,
        12,
        820,
        50,
        "guest/",
        "~the toy kernel, in C and assembly: boots, finds its disk, reads and writes it",
        kind="amber",
    )
    machine, _ = upper(made)
    layer, _ = lower(made)
    kernel = made.box(
        20, 652, 820, 44, "the host's kernel", "~/dev/kvm, eventfd, epoll, preadv, pwritev"
    )
    made.arrow(guest.bottom(), machine.top(), dashed=True)
    made.text(440, 82, "~registers and interrupts, no import")
    made.arrow(machine.bottom(0.25), layer.top(0.25))
    made.text(240, 275, "~imports; never the other way round")
    made.arrow(layer.bottom(), kernel.top(), dashed=True)
    return made


def upper(made: Picture) -> tuple[Box, dict[str, Box]]:
    """Draws miniqemu/, the virtual machine; the whole and its rooms."""
    whole = made.region(20, 96, 820, 160, "miniqemu/: the virtual machine", kind="blue")
    rooms = {
        "cli": made.box(36, 132, 180, ROOM, "`cli`", "~QEMU's command lines"),
        "machine": made.box(236, 132, 180, ROOM, "`machine`", "~memory, loader, board"),
        "hw": made.box(436, 132, 188, ROOM, "`hw`", "~UART, virtio, data-plane"),
        "chardev": made.box(644, 132, 180, ROOM, "`chardev`", "~where serial bytes go"),
        "accel": made.box(236, 198, 180, ROOM, "`accel`", "~what runs a vCPU"),
        "pykvm": made.box(436, 198, 188, ROOM, "`pykvm`", "~the ioctls of /dev/kvm"),
    }
    for user, used in MACHINE_IMPORTS:
        connect(made, rooms[user], rooms[used])
    return whole, rooms


def connect(made: Picture, user: Box, used: Box) -> None:
    """Draws one import: down, or to the right where both stand side by side."""
    if user.y == used.y:
        made.arrow(user.right(), used.left())
        return
    x = max(user.x, used.x) + min(user.width, used.width) / 2
    made.arrow((x, user.y + user.height), (x, used.y))


def lower(made: Picture) -> tuple[Box, dict[str, Box]]:
    """Draws block/, the block layer; the whole and its rooms."""
    whole = made.region(20, 286, 820, 336, "block/: the block layer, usable alone", kind="green")
    rooms = {
        "ops": made.box(36, 322, 180, ROOM, "`ops`", "~convert, compare, map, ..."),
        "protocols": made.box(236, 322, 180, ROOM, "`protocols`", "~file, host_device, null"),
        "filters": made.box(436, 322, 180, ROOM, "`filters`", "~blkdebug, throttle, ..."),
        "formats": made.box(636, 322, 188, ROOM, "`formats`", "~raw, qcow2, qed, vmdk, luks"),
        "crypto": made.box(670, 390, 154, ROOM, "`crypto`", "~ciphers, LUKS headers"),
        "core": made.box(36, 458, 788, 54, "`core`", "~nodes, edges, the device's handle, opening, "
                         "requests, drain, moving between loops"),
        "testing": made.box(36, 546, 140, 60, "`testing`", "~a world in which",
                            "~nothing is chance"),
        "aio": made.box(200, 546, 316, 60, "`aio`", "~the event loop: bottom halves, timers,",
                        "~fd handlers, coroutines, IOThreads, threads"),
        "objects": made.box(540, 546, 136, 60, "`objects`", "~throttle groups,", "~secrets"),
        "qapi": made.box(696, 546, 128, 60, "`qapi`", "~JSON as QEMU", "~writes it"),
    }  # fmt: skip
    for user, used in LAYER_IMPORTS:
        if (user, used) == ("formats", "core"):
            made.arrow((653, 322 + ROOM), (653, rooms["core"].y))  # past crypto
        else:
            connect(made, rooms[user], rooms[used])
    made.text(426, 410, "~drivers do not import each other:", anchor="middle")
    made.text(426, 426, "~they meet through core", anchor="middle")
    return whole, rooms
