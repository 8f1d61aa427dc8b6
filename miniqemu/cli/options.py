# SPDX-License-Identifier: GPL-2.0-only
"""Every option of the program in one table (QEMU: qemu-options.hx).

A row says what the option is called, what it takes, what the help says, and which function
puts it into a Config. Those functions check grammar only; whether a file, a drive or a device
exists is seen when the machine is made. What QEMU has beyond these rows is refused by name.
"""

from __future__ import annotations

from block.core import keyval
from block.core.options import is_identifier

from .config import CliError, Config, Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


OBJECTS = ("iothread", "secret", "throttle-group")  # what -object makes


class Row:
    """One option: its names without dashes, its argument ('' where it has none), its help."""

    __slots__ = ("argument", "help", "names", "take")

    def __init__(
        self, names: str, argument: str, take: Callable[[Config, Item], None], help: str
    ) -> None:
        self.names = names.split()
        self.argument = argument
        self.take = take
        self.help = help


class Stop(Exception):
    """The command line asked for a text (help, version): print it, exit 0."""


def lookup(word: str) -> Row | None:
    """The row of an option by its name without dashes."""
    for rows in GROUPS.values():
        for row in rows:
            if word in row.names:
                return row
    return None


def parse(program: str, arguments: list[str]) -> Config:
    """Reads a command line, the program's name apart. Raises CliError, or Stop for texts.

    As in QEMU, a name that nobody knows is found before any option is looked at.
    """
    items = list(split(arguments))
    config = Config(program)
    for row, item in items:
        row.take(config, item)
    return config


def split(arguments: list[str]) -> list[tuple[Row, Item]]:
    """Pairs each option with its row and its argument (lookup_opt)."""
    items = []
    at = 0
    while at < len(arguments):
        word = arguments[at]
        if not word.startswith("-") or word == "-":
            raise CliError(
                f"{word}: a disk image alone is not supported by miniqemu: name it in -drive"
            )
        row = lookup(word.removeprefix("-").removeprefix("-"))
        if row is None:
            raise refusal(word)
        given = arguments[at : at + (2 if row.argument else 1)]
        if row.argument and len(given) < 2:
            raise CliError(f"{word}: requires an argument")
        items.append((row, Item(" ".join(given), given[-1])))
        at += len(given)
    return items


def refusal(word: str) -> CliError:
    """The error for an option that is not ours: QEMU's, or nobody's."""
    from .qemu_names import FLAGS, OPTIONS_WITH_ARGUMENT

    name = word.removeprefix("-").removeprefix("-")
    if name in FLAGS or name in OPTIONS_WITH_ARGUMENT:
        return CliError(f"{word}: not supported by miniqemu")
    return CliError(f"{word}: invalid option")


# How each option enters the Config


def store(attribute: str) -> Callable[[Config, Item], None]:
    """The last one of its kind counts."""
    return lambda config, item: setattr(config, attribute, item)


def add(attribute: str) -> Callable[[Config, Item], None]:
    """All of them count, in order."""
    return lambda config, item: getattr(config, attribute).append(item)


def switch(attribute: str, value: bool) -> Callable[[Config, Item], None]:
    """A flag."""
    return lambda config, item: setattr(config, attribute, value)


def or_list(topic: str, take: Callable[[Config, Item], None]) -> Callable[[Config, Item], None]:
    """The option itself, or, where it says 'help' instead, what could stand there."""

    def taken(config: Config, item: Item) -> None:
        if keyval.is_help(item.text):
            from .help import listing

            raise Stop(listing(topic))
        take(config, item)

    return taken


def accept(config: Config, item: Item) -> None:
    """True of every machine here."""


def only(*values: str) -> Callable[[Config, Item], None]:
    """Accepts an option that switches off what miniqemu does not have anyway."""

    def take(config: Config, item: Item) -> None:
        if item.text not in values:
            raise item.error(f"not supported by miniqemu (only '{values[0]}' is)")

    return take


def take_machine(config: Config, item: Item) -> None:
    """-machine: several of them add up."""
    item.read(keyval.parse_keyval, "type")
    config.machine.values |= item.values
    config.machine.where = item.where


def take_enable_kvm(config: Config, item: Item) -> None:
    """-enable-kvm is -machine accel=kvm."""
    config.machine.values["accel"] = "kvm"
    config.machine.where = item.where


def take_object(config: Config, item: Item) -> None:
    """-object: key=value or JSON, the type first; 'TYPE,help' lists the type's properties."""
    from .objects import split_settings

    kind, *settings = split_settings(item.text)
    if kind in OBJECTS and any(keyval.is_help(word) for word in settings):
        from .help import object_help

        raise Stop(object_help(kind))
    item.read(keyval.parse_either, "qom-type")
    config.objects.append(item)


def take_blockdev(config: Config, item: Item) -> None:
    """-blockdev: key=value or JSON, the driver first."""
    item.read(keyval.parse_either, "driver")
    config.blockdevs.append(item)


def take_drive(config: Config, item: Item) -> None:
    """-drive: a flat list of settings; 'format=help' lists the formats."""
    item.read(keyval.parse_opts)
    if keyval.is_help(item.text_of("format") or ""):
        from .help import format_help

        raise Stop(format_help())
    check_id(item, "drive", config.drives)
    config.drives.append(item)


def take_device(config: Config, item: Item) -> None:
    """-device: settings or JSON, the driver first."""
    is_json = item.text.startswith("{")
    item.read(keyval.parse_either if is_json else keyval.parse_opts, "driver")
    if any(keyval.is_help(name) for name in item.values):
        from .devices import check_model, describe

        raise Stop(describe(check_model(item, item.text_of("driver") or "")))
    check_id(item, "device", config.devices)
    config.devices.append(item)


def check_id(item: Item, kind: str, others: list[Item]) -> None:
    """An id is an identifier that no other one of its kind has (qemu_opts_create)."""
    name = item.text_of("id")
    if name is None:
        return
    if not is_identifier(name):
        raise item.error("Parameter 'id' expects an identifier")
    if any(other.values.get("id") == name for other in others):
        raise item.error(f"Duplicate ID '{name}' for {kind}")


def take_global(config: Config, item: Item) -> None:
    """-global driver.property=value, or driver=,property=,value=."""
    head, equals, value = item.text.partition("=")
    driver, dot, name = head.partition(".")
    if equals and dot and "," not in head:
        item.values = {"driver": driver, "property": name, "value": value}
    else:
        item.read(keyval.parse_opts)
    for parameter in item.values:
        if parameter not in ("driver", "property", "value"):
            raise item.error(f"Invalid parameter '{parameter}'")
    for parameter in ("driver", "property", "value"):
        if parameter not in item.values:
            raise item.error(f"Parameter '{parameter}' is missing")
    config.globals.append(item)


def take_name(config: Config, item: Item) -> None:
    """-name: the guest's, for who reads the command line; the process keeps its own."""
    item.read(keyval.parse_opts, "guest")
    item.refuse_others(("guest",), ("process", "debug-threads"), "Invalid parameter '{}'")


def take_escape(config: Config, item: Item) -> None:
    """-echr: the code of the escape key; like C's strtol, 0x and 0 mean what they mean."""
    try:
        config.escape = int(item.text, 16 if item.text.lower().startswith("0x") else 10)
    except ValueError:
        raise item.error(f"Bad argument to echr: '{item.text}'") from None


def take_display(config: Config, item: Item) -> None:
    """-display none: there is nothing to show."""
    if item.text != "none":
        raise item.error("not supported by miniqemu (only 'none' is)")
    config.display = item


def take_log_items(config: Config, item: Item) -> None:
    """-d: what to log; 'help' lists it."""
    if keyval.is_help(item.text):
        from .help import log_help

        raise Stop(log_help())
    config.log_items = item


def take_help(config: Config, item: Item) -> None:
    """-h, -help"""
    from .help import usage

    raise Stop(usage(config.program))


def take_version(config: Config, item: Item) -> None:
    """-version"""
    from .help import version

    raise Stop(version())


GROUPS: dict[str, tuple[Row, ...]] = {
    "Standard options": (
        Row("h help", "", take_help, "display this help and exit"),
        Row("version", "", take_version, "display version information and exit"),
        Row(
            "machine M",
            "[type=]microvm[,prop=value][,...]",
            or_list("machine", take_machine),
            "the machine to emulate: microvm is the only one (default)\n"
            "accel=kvm selects the accelerator\n"
            "isa-serial=on|off the serial port (default: on)\n"
            "auto-kernel-cmdline=on|off tell the kernel of the disks (default: on)\n"
            "pit=, pic=, rtc=, acpi=, pcie=, usb=, x-option-roms=: as this machine has them",
        ),
        Row(
            "cpu",
            "host|max|qemu64|kvm64",
            or_list("cpu", store("cpu")),
            "the processor: the host's own ('-cpu help' lists the others)",
        ),
        Row(
            "accel",
            "kvm|tcg",
            or_list("accel", add("accels")),
            "the accelerator; several are tried in order",
        ),
        Row("smp", "[cpus=]n", store("smp"), "the number of processors (default: 1)"),
        Row(
            "global",
            "driver.property=value",
            take_global,
            "the default for a property of every device of a kind",
        ),
        Row("m", "[size=]megs", store("memory"), "guest memory, in MiB or with a suffix (128)"),
        Row(
            "device",
            "driver[,prop=value][,...]",
            or_list("device", take_device),
            "add a device: virtio-blk-device or isa-debug-exit\n"
            "'-device driver,help' lists its properties",
        ),
        Row("name", "string", take_name, "the name of the guest"),
    ),
    "Block device options": (
        Row(
            "blockdev",
            "[driver=]driver[,node-name=N][,option=value][,...]",
            take_blockdev,
            "open a node of the tree of block drivers; also as JSON\n"
            "[,read-only=on|off][,auto-read-only=on|off]\n[,force-share=on|off]\n"
            "[,cache.direct=on|off][,cache.no-flush=on|off]\n"
            "[,discard=ignore|unmap][,detect-zeroes=on|off|unmap]",
        ),
        Row(
            "drive",
            "[file=file][,if=none][,id=name][,format=f][,option=value][,...]",
            take_drive,
            "open an image for a device to use\n"
            "[,cache=writethrough|writeback|none|directsync|unsafe]\n"
            "[,aio=threads|native|io_uring][,copy-on-read=on|off]\n"
            "[,readonly=on|off][,snapshot=on|off][,node-name=name]\n"
            "[,discard=ignore|unmap][,detect-zeroes=on|off|unmap]\n"
            "[,rerror=ignore|stop|report]\n[,werror=ignore|stop|report|enospc]\n"
            "[,throttling.iops-total=n][,throttling.bps-total=n]\n[,throttling.group=name][,...]\n"
            "and the format's own options; 'format=help' lists the formats",
        ),
        Row("snapshot", "", switch("snapshot", True), "as snapshot=on for each -drive"),
    ),
    "Display options": (
        Row("display", "none", take_display, "there is no display"),
        Row("nographic", "", switch("nographic", True), "the serial line on this terminal"),
        Row("vga", "none", only("none"), "there is no graphics card"),
    ),
    "Network options": (
        Row("nic", "none", only("none"), "there is no network"),
        Row("net", "none", only("none"), "there is no network"),
    ),
    "Linux/Multiboot boot specific": (
        Row("kernel", "elf", store("kernel"), "an ELF with a PVH note (default: our own guest)"),
        Row("append", "cmdline", store("append"), "the kernel's command line"),
    ),
    "Debug/Expert options": (
        Row(
            "serial",
            "dev",
            add("serials"),
            "where the serial line goes: stdio, mon:stdio (with the escape key), file:PATH,\n"
            "unix:PATH[,server=on|off][,wait=on|off], null or none",
        ),
        Row("parallel", "none", only("none"), "there is no parallel port"),
        Row("monitor", "none", only("none", "null"), "there is no monitor"),
        Row("pidfile", "file", store("pidfile"), "write the process's number to a file"),
        Row("S", "", switch("paused", True), "do not start the processors"),
        Row("d", "item1,...", take_log_items, "log these items ('-d help' lists them)"),
        Row("D", "logfile", store("log_file"), "log to a file (default: standard error)"),
        Row("enable-kvm", "", take_enable_kvm, "the same as -accel kvm"),
        Row("no-reboot", "", switch("reboot", False), "exit instead of rebooting"),
        Row("echr", "chr", take_escape, "the escape key's code instead of Ctrl-A's (1)"),
        Row("nodefaults", "", switch("defaults", False), "no serial line unless asked for"),
        Row("no-user-config", "", accept, "there are no configuration files"),
        Row("no-acpi", "", accept, "there is no ACPI"),
        Row("no-hpet", "", accept, "there is no HPET"),
    ),
    "Generic object creation": (
        Row(
            "object",
            "iothread|secret|throttle-group,id=id[,prop=value][,...]",
            or_list("object", take_object),
            "make something for disks to use; also as JSON\n"
            "iothread[,poll-max-ns=n][,poll-grow=n][,poll-shrink=n]: a thread to work in,\n"
            "which looks for work at most n ns before it sleeps\n"
            "secret,file=path|data=text: a password or a key of an encrypted image\n"
            "throttle-group[,x-iops-total=n][,...]: limits that several disks share\n"
            "'-object type,help' lists its properties",
        ),
    ),
}
