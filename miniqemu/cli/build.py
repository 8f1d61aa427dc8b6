# SPDX-License-Identifier: GPL-2.0-only
"""Makes what a command line asked for, runs it, and takes it apart again (QEMU: vl.c).

    objects -> nodes and drives -> accelerator -> serial line -> board -> devices -> kernel

and back in the opposite order, whatever happens: `close` is called however far `build` came.
In the main thread.
"""

from __future__ import annotations

import os

from block.aio.world import the_world
from block.core.error import BlockError
from miniqemu.chardev.base import Chardev, ChardevError
from miniqemu.machine import debug

from .config import CliError, Config, Item, message_of
from .devices import Device, global_properties
from .drives import Drive
from .machine_options import MachineOptions
from .signals import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.iothread import IOThread
    from block.core.backend import BlockBackend
    from block.core.node import BlockDriverState
    from block.objects.secret import Secret
    from block.objects.throttle_group import ThrottleGroup
    from miniqemu.machine.microvm import Microvm


SUPPORTED = "iothread, secret and throttle-group are"


class Emulator:
    """A machine with all that belongs to it."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self.config = config
        self.say = say
        self.ctx = the_world().main_context
        self.options = MachineOptions(config)
        self.iothreads: dict[str, IOThread] = {}
        self.throttle_groups: dict[str, ThrottleGroup] = {}
        self.secrets: dict[str, Secret] = {}
        self.nodes: list[BlockDriverState] = []
        self.drives: dict[str, Drive] = {}
        self.backends: list[BlockBackend] = []
        self.in_use: set[BlockBackend] = set()
        self.serial: Chardev | None = None
        self.board: Microvm | None = None
        self.signals: Signals | None = None
        self.pidfile: str | None = None

    def build(self) -> None:
        """Makes everything. Raises CliError, or signals.Terminated."""
        self.signals = Signals(self.ctx)
        self._open_log()
        for item in self.config.objects:
            self._add_object(item)
        for item in self.config.blockdevs:
            self._add_node(item)
        for number, item in enumerate(self.config.drives):
            self._add_drive(Drive(item, number, self.config.snapshot))
        self._make_board()
        globals = global_properties(self.config)
        for item in self.config.devices:
            self._add_device(Device(item, globals), globals)
        self._load_kernel()
        self._write_pidfile()

    def run(self) -> int:
        """Runs the machine to its end; the exit status."""
        assert self.board is not None
        assert self.signals is not None
        self.signals.on_end = self._terminate
        return self.board.machine.run(paused=self.config.paused)

    def _terminate(self, number: int) -> None:
        assert self.board is not None
        self.say(f"terminating on signal {number}")
        self.board.machine.request_shutdown(0, f"signal {number}")

    def _quit(self) -> None:
        if self.board is None:
            raise SystemExit(0)
        self.board.machine.request_shutdown(0, "quit")

    # Logging and the pid file

    def _open_log(self) -> None:
        items, file = self.config.log_items, self.config.log_file
        if items is None and file is None:
            return
        try:
            debug.enable(items.text if items else "", file.text if file else None)
        except ValueError as unknown:
            assert items is not None
            raise items.error(_log_refusal(str(unknown))) from None
        except OSError as error:
            assert file is not None
            message = f"Error opening logfile {file.text}: {error.strerror}"
            raise file.error(message) from None

    def _write_pidfile(self) -> None:
        item = self.config.pidfile
        if item is None:
            return
        try:
            fd = os.open(item.text, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = f"cannot create PID file: Could not create '{item.text}': {error.strerror}"
            raise item.error(message) from None
        self.pidfile = item.text
        os.write(fd, f"{os.getpid()}\n".encode())
        os.close(fd)

    # Objects and the block layer

    def _add_object(self, item: Item) -> None:
        kind = item.values.get("qom-type")
        if kind is None:
            raise item.error("Parameter 'qom-type' is missing")
        taken = (*self.iothreads, *self.throttle_groups, *self.secrets)
        if kind == "iothread":
            from . import iothreads

            iothread = iothreads.make(item, taken)
            self.iothreads[iothread.id] = iothread
        elif kind == "throttle-group":
            from . import throttling

            group = throttling.make_group(item, taken)
            self.throttle_groups[group.name] = group
        elif kind == "secret":
            from . import secrets

            secret = secrets.make_secret(item, taken)
            self.secrets[secret.name] = secret
        else:
            from .qemu_names import OBJECTS

            if kind in OBJECTS:
                raise item.error(f"object '{kind}' is not supported by miniqemu ({SUPPORTED})")
            raise item.error(f"Parameter 'qom-type' does not accept value '{kind}'")

    def _add_node(self, item: Item) -> None:
        from block.core.open import blockdev_add

        self.nodes.append(item.check(blockdev_add, item.values))

    def _add_drive(self, drive: Drive) -> None:
        self.drives[drive.id] = drive
        if drive.is_empty:
            return
        try:
            blk = _open_drive(drive)
        except BlockError as error:
            raise drive.item.error(message_of(error)) from None
        if drive.throttling is not None:
            drive.throttling.enable(blk)
        blk.on_read_error, blk.on_write_error = drive.on_read_error, drive.on_write_error
        self.backends.append(blk)
        drive.blk = blk

    # The machine

    def _make_board(self) -> None:
        from miniqemu.accel.base import AccelError
        from miniqemu.machine import microvm

        accel = self.options.open_accelerator(self.say)
        try:
            self.serial = self._make_serial()
            self.board = microvm.build(
                accel,
                self.options.ram_size,
                vcpus=self.options.vcpus,
                serial=self.serial if self.options.has_serial else None,
                no_reboot=not self.config.reboot,
            )
        except AccelError as error:  # it has been closed
            raise CliError(str(error)) from None
        except microvm.BoardError as error:
            accel.close()
            where = self.config.memory or Item("-m")
            raise where.error(str(error).removeprefix("-m: ")) from None
        except BaseException:
            accel.close()
            raise

    def _make_serial(self) -> Chardev | None:
        items = [item for item in self.config.serials if item.text != "none"]
        if len(items) > 1:
            raise items[1].error("microvm has one serial port")
        if items:
            return self._make_chardev(items[0])
        if self.config.serials or not self.config.defaults:
            return None
        if self.config.display is not None and not self.config.nographic:
            return Chardev()
        return self._make_chardev(Item("-nographic", "mon:stdio"))

    def _make_chardev(self, item: Item) -> Chardev:
        from miniqemu.chardev.create import new_chardev

        assert self.signals is not None
        try:
            line = new_chardev(
                item.text, self.ctx, self._quit, self.config.program, self.config.escape
            )
        except ChardevError as error:
            raise item.error(str(error)) from None
        self.signals.on_continue = line.resume
        return line

    def _add_device(self, device: Device, globals: dict[str, dict[str, object]]) -> None:
        if device.model == "isa-debug-exit":
            self._add_debug_exit(device)
        else:
            self._add_disk(device, globals.get("virtio-mmio", {}))

    def _add_debug_exit(self, device: Device) -> None:
        assert self.board is not None
        try:
            self.board.add_debug_exit(device.properties["iobase"], device.properties["iosize"])
        except ValueError as error:
            raise device.error(str(error)) from None

    def _add_disk(self, device: Device, transport: dict[str, object]) -> None:
        from miniqemu.hw.virtio_blk import VirtioBlk
        from miniqemu.hw.virtio_blk_conf import DeviceError
        from miniqemu.machine.microvm import BoardError

        from .disks import disk_conf

        assert self.board is not None
        blk = self._disk_backend(device)
        try:
            conf = disk_conf(device, blk, self.iothreads, bool(transport.get("ioeventfd", True)))
            self.board.plug(VirtioBlk(conf))
        except DeviceError as error:
            raise device.error(str(error)) from None
        except BlockError as error:
            raise device.error(message_of(error)) from None
        except BoardError as error:
            raise device.error(str(error).removeprefix("-device: ")) from None

    def _disk_backend(self, device: Device) -> BlockBackend:
        """The backend that 'drive=' names: a -drive's own, or a new one on a node."""
        from block.core.backend import BlockBackend
        from block.core.graph import find_node

        name = device.properties["drive"]
        if name is None:
            raise device.error("drive property not set")
        drive = self.drives.get(name)
        node = find_node(name) if drive is None else None
        if drive is None and node is None:
            raise device.error(f"Property 'virtio-blk-device.drive' can't find value '{name}'")
        if drive is not None:
            if drive.is_empty:
                raise device.error("Device needs media, but drive is empty")
            assert drive.blk is not None
            blk = drive.blk
            if blk in self.in_use:
                raise device.error(f"Drive '{name}' is already in use by another device")
        else:
            assert node is not None
            blk = BlockBackend(0)
            self.backends.append(blk)
            device.item.check(blk.insert_bs, node)
        self.in_use.add(blk)
        blk.dev_id = device.id
        return blk

    def _load_kernel(self) -> None:
        from miniqemu.machine.elf import KernelError

        assert self.board is not None
        item, append = self.config.kernel, self.config.append
        path = item.text if item is not None else default_kernel()
        self.board.announce_disks = self.options.announce_disks
        try:
            self.board.load(path, append.text if append is not None else "")
        except KernelError as error:
            raise CliError(str(error)) from None
        self.board.finish()

    # The end

    def close(self) -> None:
        """Takes everything apart: the guest, then its disks with a last flush, then the line."""
        if self.board is not None:
            self.board.machine.close()
        for blk in self.backends:
            _flush(blk)
            blk.unref()
        for node in reversed(self.nodes):
            node.unref()
        for group in self.throttle_groups.values():
            group.unref()
        for secret in self.secrets.values():
            secret.unref()
        for iothread in self.iothreads.values():
            iothread.close()
        if self.serial is not None:
            self.serial.close()
        if self.signals is not None:
            self.signals.close()
        if self.pidfile is not None:
            try:
                os.unlink(self.pidfile)
            except OSError:
                pass  # somebody was quicker
        debug.disable()


def _open_drive(drive: Drive) -> BlockBackend:
    """Opens what a -drive names (blockdev_init). Raises BlockError."""
    if drive.snapshot:
        from block.ops.snapshot_overlay import open_with_overlay

        return open_with_overlay(
            drive.filename, drive.options, drive.flags, drive.writethrough, drive.id
        )
    from block.core.open import open_backend

    return open_backend(
        drive.filename,
        options=drive.options,
        flags=drive.flags,
        name=drive.id,
        writethrough=drive.writethrough,
    )


def _flush(blk: BlockBackend) -> None:
    """What the disk's cache holds reaches the disk. Nobody is there to hear of an error."""
    try:
        blk.flush()
    except OSError:
        pass


def _log_refusal(name: str) -> str:
    from .qemu_names import LOG_ITEMS

    if name in LOG_ITEMS or name.startswith("trace:"):
        return f"'{name}' is not supported by miniqemu"
    return f"'{name}' is not a log item ('-d help' lists them)"


def default_kernel() -> str:
    """Our own guest, beside the package's source. Raises CliError where it was not built."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.path.join(root, "guest", "guest.elf")
    if not os.path.exists(path):
        raise CliError("-kernel: not given, and our own guest is not built: run `make guest`")
    return path
