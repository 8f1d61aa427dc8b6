# SPDX-License-Identifier: GPL-2.0-only
"""-machine, -accel, -cpu, -smp, -m: what kind of machine it is to be (QEMU: vl.c, machine.c).

There is one board. Each property of QEMU's board is accepted with the value that is true of
ours, and refused by name with any other.
"""

from __future__ import annotations

from block.core import keyval
from block.core.options import SIZE_HINT, parse_bool, size_of_text
from miniqemu.accel.base import AccelError

from .config import CliError, Config, Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from miniqemu.accel.base import Accelerator

DEFAULT_RAM = 128 << 20
RAM_ALIGN = 8192
MAX_CPUS = 288  # QEMU's microvm

ON_OFF = ("on", "off")
ON_OFF_AUTO = ("on", "off", "auto")
# Property -> what QEMU's parser accepts, and what is true here.
MACHINE_PROPERTIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "acpi": (ON_OFF_AUTO, ("off", "auto")),
    "auto-kernel-cmdline": (ON_OFF, ON_OFF),
    "dump-guest-core": (ON_OFF, ("on",)),
    "graphics": (ON_OFF, ("off",)),
    "ioapic2": (ON_OFF_AUTO, ("off", "auto")),
    "isa-serial": (ON_OFF, ON_OFF),
    "mem-merge": (ON_OFF, ("off",)),
    "pcie": (ON_OFF_AUTO, ("off", "auto")),
    "pic": (ON_OFF_AUTO, ("on", "auto")),
    "pit": (ON_OFF_AUTO, ("on", "auto")),
    "rtc": (ON_OFF_AUTO, ("off", "auto")),
    "smm": (ON_OFF_AUTO, ("off", "auto")),
    "usb": (ON_OFF, ("off",)),
    "x-option-roms": (ON_OFF, ("off",)),
}
# Accelerator -> its properties, as above, and those that only QEMU has.
ACCELERATORS: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "kvm": {"kernel-irqchip": (("on", "off", "split"), ("on",))},
    "tcg": {"thread": (("single", "multi"), ("single",))},
}
QEMU_PROPERTIES = {
    "kvm": ("dirty-ring-size", "kvm-shadow-mem", "notify-vmexit", "notify-window"),
    "tcg": ("one-insn-per-tb", "split-wx", "tb-size"),
}
DEFAULT_ACCELERATORS = ("kvm", "tcg")
TCG_MAX_CPUS = 255  # a local APIC's id has eight bits, and the last one means "all"


class MachineOptions:
    """What these options say, checked."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._check_type()
        properties = self._properties()
        self.has_serial = properties.get("isa-serial") != "off"
        self.announce_disks = properties.get("auto-kernel-cmdline") != "off"
        self.accelerators = self._accelerators()
        self.cpu_model = self._cpu_model()
        self.vcpus = self._vcpus()
        self.ram_size = self._ram_size()

    def _check_type(self) -> None:
        machine = self.config.machine
        kind = machine.text_of("type")
        if kind in (None, "microvm"):
            return
        from .qemu_names import MACHINES

        if kind in MACHINES:
            raise machine.error(f"machine '{kind}' is not supported by miniqemu (microvm is)")
        raise machine.error("unsupported machine type")

    def _properties(self) -> dict[str, str]:
        machine = self.config.machine
        given = {name: name for name in machine.values if name not in ("type", "accel")}
        for name in given:
            if name not in MACHINE_PROPERTIES:
                from .qemu_names import MACHINE_PROPERTIES as qemu

                if name in qemu:
                    raise machine.error(f"property '{name}' is not supported by miniqemu")
                raise machine.error(f"Property 'microvm-machine.{name}' not found")
        return {name: choose(machine, name, *MACHINE_PROPERTIES[name]) for name in given}

    def _accelerators(self) -> list[Item]:
        """The accelerators to try, in order, each with the option that asked for it."""
        machine, accels = self.config.machine, self.config.accels
        listed = machine.text_of("accel")
        if listed is None:
            for item in accels:
                item.read(keyval.parse_opts, "accel")
            return accels or [_named(Item(f"-accel {name}"), name) for name in DEFAULT_ACCELERATORS]
        if accels:
            raise CliError('The -accel and "-machine accel=" options are incompatible')
        names = [name for name in listed.split(":") if name]
        if not names:
            raise machine.error("no accelerator found")
        return [_named(Item(machine.where), name) for name in names]

    def open_accelerator(self, say: Callable[[str], None]) -> Accelerator:
        """The first of the accelerators that works (configure_accelerators).

        `say` tells why it is not the first one. CliError: none works, and why none does.
        """
        for item in self.accelerators:
            check_accelerator(item)
        ours = [item for item in self.accelerators if item.text_of("accel") in ACCELERATORS]
        if not ours:
            raise self.accelerators[0].error(
                f"accelerator '{self.accelerators[0].text_of('accel')}' is not supported by "
                "miniqemu (kvm and tcg are)"
            )
        failures = []
        for item in ours:
            name = item.text_of("accel") or ""
            try:
                accel = self._open_tcg() if name == "tcg" else self._open_kvm()
            except AccelError as error:
                failures.append(str(error))
                continue
            if failures:
                say(f"falling back to {name}: {'; '.join(failures)}")
            return accel
        raise CliError("; ".join(failures))

    def _open_kvm(self) -> Accelerator:
        from miniqemu.accel.kvm import KvmAccel

        return KvmAccel(self.vcpus, self.cpu_model)

    def _open_tcg(self) -> Accelerator:
        from miniqemu.accel.tcg import TcgAccel

        if self.config.cpu is not None and self.cpu_model == "host":
            raise self.config.cpu.error("CPU model 'host' requires KVM")
        if self.vcpus > TCG_MAX_CPUS:
            raise AccelError(f"-smp {self.vcpus}: -accel tcg has at most {TCG_MAX_CPUS} vCPUs")
        return TcgAccel(self.vcpus, self.cpu_model)

    def _cpu_model(self) -> str:
        item = self.config.cpu
        if item is None:
            return "host"
        from miniqemu.accel.cpuid import MODELS

        model, _, features = item.text.partition(",")
        if model not in MODELS:
            from .qemu_names import CPUS

            base = model.rpartition("-v")[0]
            if model in CPUS or base in CPUS:
                raise item.error(
                    f"CPU model '{model}' is not supported by miniqemu ({', '.join(MODELS)} are)"
                )
            raise item.error(f"unable to find CPU model '{model}'")
        if features:
            raise item.error(f"CPU feature '{features}' is not supported by miniqemu")
        return model

    def _vcpus(self) -> int:
        item = self.config.smp
        if item is None:
            return 1
        item.read(keyval.parse_keyval, "cpus")
        qemu = ("maxcpus", "sockets", "dies", "clusters", "cores", "threads")
        item.refuse_others(("cpus",), qemu, "Parameter 'smp.{}' is unexpected")
        text = item.text_of("cpus") or "1"
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal()):
            raise item.error("Parameter 'smp.cpus' expects integer")
        if not 1 <= int(text) <= MAX_CPUS:
            most = f"The max CPUs supported by machine 'microvm' is {MAX_CPUS}"
            raise item.error(f"Invalid SMP CPUs {text}. {most}")
        return int(text)

    def _ram_size(self) -> int:
        item = self.config.memory
        if item is None or not item.text:
            return DEFAULT_RAM
        item.read(keyval.parse_opts, "size")
        item.refuse_others(("size",), ("slots", "maxmem"), "Invalid parameter '{}'")
        text = item.text_of("size") or ""
        size = size_of_text(text, default_suffix="M")
        if size is None:
            hint = " ".join(SIZE_HINT.split())
            raise item.error(f"Parameter 'size' expects a non-negative number below 2^64. {hint}")
        if size >= 1 << 63:
            raise item.error(f"Value '{text}' is out of range for parameter 'size'")
        return -(-size // RAM_ALIGN) * RAM_ALIGN or DEFAULT_RAM


def _named(item: Item, name: str) -> Item:
    item.values["accel"] = name
    return item


def check_accelerator(item: Item) -> None:
    """One accelerator and its properties exist, in QEMU at least."""
    name = item.text_of("accel") or ""
    if name not in ACCELERATORS:
        from .qemu_names import ACCELERATORS as QEMU_ACCELERATORS

        if name not in QEMU_ACCELERATORS:
            raise item.error(f"invalid accelerator {name}")
        return
    for key in item.values:
        if key in ACCELERATORS[name]:
            choose(item, key, *ACCELERATORS[name][key])
        elif key in QEMU_PROPERTIES[name]:
            raise item.error(f"property '{key}' is not supported by miniqemu")
        elif key != "accel":
            raise item.error(f"Property '{name}-accel.{key}' not found")


def choose(item: Item, name: str, grammar: tuple[str, ...], here: tuple[str, ...]) -> str:
    """The value of a property: one that QEMU's parser takes, and true of our machine."""
    value = item.text_of(name) or ""
    if grammar == ON_OFF:
        item.check(parse_bool, name, value)
    elif value not in grammar:
        raise item.error(f"Parameter '{name}' does not accept value '{value}'")
    if value not in here:
        raise item.error(f"{name}={value} is not supported by miniqemu ({name}={here[0]} is)")
    return value
