# SPDX-License-Identifier: GPL-2.0-only
"""-device and -global: which devices there are, and what each of their properties accepts.

A table for each device, with QEMU's names, types and defaults (QEMU: qdev-properties.c).
A property that describes something miniqemu always or never does accepts that one value
(`only`) and refuses the others by name: so a command line means the same in both programs
or is not accepted.
"""

from __future__ import annotations

from block.core.error import BlockError
from block.core.options import parse_bool, parse_number, parse_size

from .config import CliError, Config, Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ON_OFF_AUTO = ("on", "off", "auto")
ERROR_ACTIONS = ("report", "ignore", "enospc", "stop", "auto")


class Property:
    """One property of a device: `kind` of value, default, and the only value if there is one."""

    __slots__ = ("default", "help", "kind", "name", "only")

    def __init__(
        self, name: str, kind: str, default: object = None, help: str = "", only: bool = False
    ) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.help = help
        self.only = only

    def parse(self, value: object) -> object:
        """A user's text or JSON value as this kind. Raises BlockError or CliError."""
        parsed = KINDS[self.kind](self.name, value)
        if self.only and parsed != self.default:
            shown = {True: "on", False: "off"}.get(parsed, parsed)
            raise CliError(f"{self.name}={shown} is not supported by miniqemu")
        return parsed


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise CliError(f"Invalid parameter type for '{name}', expected: string")
    return value


def _integer(bits: int, signed: bool = False) -> Callable[[str, object], int]:
    def parse(name: str, value: object) -> int:
        try:
            number = parse_number(name, value)
        except BlockError:
            raise CliError(f"Parameter '{name}' expects integer") from None
        if signed and number >> 63:
            number -= 1 << 64
        low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
        if not low <= number < high:
            raise CliError(f"Parameter '{name}' expects {'' if signed else 'u'}int{bits}_t")
        return number

    return parse


def _size(name: str, value: object) -> int:
    try:
        return parse_size(name, value)
    except BlockError:
        raise CliError(f"Parameter '{name}' expects size") from None


def _block_size(name: str, value: object) -> int:
    size = _size(name, value)
    if not size:
        return 0
    if not 512 <= size <= 2 << 20:
        raise CliError(
            f"Property .{name} doesn't take value {size} (minimum: 512, maximum: 2097152)"
        )
    if size & (size - 1):
        raise CliError(f"Property .{name} doesn't take value '{size}', it's not a power of 2")
    return size


def _choice(choices: tuple[str, ...]) -> Callable[[str, object], str]:
    def parse(name: str, value: object) -> str:
        if value not in choices:
            raise CliError(f"Parameter '{name}' does not accept value '{value}'")
        return str(value)

    return parse


KINDS: dict[str, Callable[[str, object], Any]] = {
    "str": _text,
    "bool": parse_bool,
    "int32": _integer(32, signed=True),
    "uint16": _integer(16),
    "uint32": _integer(32),
    "size": _size,
    "blocksize": _block_size,
    "OnOffAuto": _choice(ON_OFF_AUTO),
    "BlockdevOnError": _choice(ERROR_ACTIONS),
}

P = Property
VIRTIO_BLK = (
    P("account-failed", "OnOffAuto", "auto", only=True),
    P("account-invalid", "OnOffAuto", "auto", only=True),
    P("any_layout", "bool", True, only=True),
    P("bootindex", "int32", None, "has no meaning here: nothing boots from a disk"),
    P("config-wce", "bool", True, "the guest may switch the write cache"),
    P("discard", "bool", True),
    P("discard_granularity", "size", 0xFFFFFFFF),
    P("drive", "str", None, "Node name or ID of a block device to use as a backend"),
    P("event_idx", "bool", True),
    P("indirect_desc", "bool", True),
    P("iommu_platform", "bool", False, only=True),
    P("iothread", "str", None, "ID of the iothread to work in"),
    P("logical_block_size", "blocksize", 0, "A power of two between 512 B and 2 MiB"),
    P("max-discard-sectors", "uint32", 4194303),
    P("max-write-zeroes-sectors", "uint32", 4194303),
    P("min_io_size", "size", 0),
    P("num-queues", "uint16", 65535),
    P("opt_io_size", "size", 0),
    P("packed", "bool", False, only=True),
    P("physical_block_size", "blocksize", 0, "A power of two between 512 B and 2 MiB"),
    P("queue-size", "uint16", 256),
    P("report-discard-granularity", "bool", True),
    P("request-merging", "bool", True),
    P("rerror", "BlockdevOnError", "auto", "report/ignore/enospc/stop/auto"),
    P("scsi", "bool", False, only=True),
    P("seg-max-adjust", "bool", True),
    P("serial", "str"),
    P("share-rw", "bool", False),
    P("werror", "BlockdevOnError", "auto", "report/ignore/enospc/stop/auto"),
    P("write-cache", "OnOffAuto", "auto", "on/off/auto"),
    P("write-zeroes", "bool", True),
)
# What the real one has besides, for messages: 2.x compatibility switches and CHS geometry.
VIRTIO_BLK_QEMU = (
    "backend_defaults", "cyls", "heads", "lcyls", "lheads", "lsecs", "notify_on_empty",
    "queue_reset", "secs", "use-disabled-flag", "use-started", "x-disable-legacy-check",
    "x-enable-wce-if-config-wce",
)  # fmt: skip
DEBUG_EXIT = (P("iobase", "uint32", 0x501), P("iosize", "uint32", 2))
VIRTIO_MMIO = (
    P("force-legacy", "bool", False, "the registers of virtio 1.0 are the only ones", only=True),
    P("format_transport_address", "bool", True, only=True),
    P("ioeventfd", "bool", True, "doorbells go to the disk's thread without a stop"),
)

MODELS: dict[str, tuple[Property, ...]] = {
    "virtio-blk-device": VIRTIO_BLK,
    "isa-debug-exit": DEBUG_EXIT,
}
DRIVERS = {**MODELS, "virtio-mmio": VIRTIO_MMIO}
COMMON = ("driver", "id")


class Device:
    """One -device with its properties parsed, defaults and globals in."""

    def __init__(self, item: Item, globals: dict[str, dict[str, object]]) -> None:
        self.item = item
        self.model = item.text_of("driver") or ""
        self.id = item.text_of("id") or ""
        self.properties = self._parse(globals.get(check_model(item, self.model), {}))

    def _parse(self, globals: dict[str, object]) -> dict[str, Any]:
        table = MODELS[self.model]
        properties = {row.name: row.default for row in table} | globals
        by_name = {row.name: row for row in table}
        for name, value in self.item.values.items():
            if name not in COMMON:
                properties[name] = _parse_one(self.item, self.model, by_name, name, value)
        return properties

    def error(self, message: str) -> CliError:
        """The error to raise about this device."""
        return self.item.error(message)


def check_model(item: Item, model: str) -> str:
    """The name of a device that there is; the others are refused, QEMU's by name."""
    if model not in MODELS:
        from .qemu_names import DEVICES

        if model in DEVICES:
            raise item.error(f"'{model}' is not supported by miniqemu")
        raise item.error(f"'{model}' is not a valid device model name")
    return model


def _parse_one(
    item: Item, model: str, table: dict[str, Property], name: str, value: object
) -> object:
    if name in table:
        try:
            return item.check(table[name].parse, value)
        except CliError as error:
            text = str(error)
            raise (error if text.startswith(item.where) else item.error(text)) from None
    if name == "bus" or (model == "virtio-blk-device" and name in VIRTIO_BLK_QEMU):
        raise item.error(f"property '{name}' is not supported by miniqemu")
    raise item.error(f"Property '{model}.{name}' not found")


def global_properties(config: Config) -> dict[str, dict[str, object]]:
    """What -global says, by driver, parsed. A driver that miniqemu has not is an error where
    nobody has it; QEMU only warns, and then goes on without what was asked for."""
    given: dict[str, dict[str, object]] = {}
    for item in config.globals:
        driver, name = str(item.values["driver"]), str(item.values["property"])
        if driver not in DRIVERS:
            from .qemu_names import DEVICES

            known = driver in DEVICES
            raise item.error(
                f"'{driver}' is not supported by miniqemu"
                if known
                else f"global {driver}.{name} has invalid class name"
            )
        table = {row.name: row for row in DRIVERS[driver]}
        value = _parse_one(item, driver, table, name, item.values["value"])
        given.setdefault(driver, {})[name] = value
    return given


def describe(model: str) -> str:
    """What '-device MODEL,help' prints."""
    lines = [f"{model} options:\n"]
    for row in MODELS[model]:
        head = f"  {row.name}=<{row.kind}>"
        default = str(row.default).lower() if row.kind == "bool" else row.default
        notes = [row.help] if row.help else []
        if row.default is not None:
            notes.append(f"(default: {default})")
        if row.only:
            notes.append("(no other value is supported)")
        lines.append(f"{head:<24} - {' '.join(notes)}".rstrip(" -") + "\n")
    return "".join(lines)
