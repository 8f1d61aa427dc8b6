# SPDX-License-Identifier: GPL-2.0-only
"""Right command lines: what each option leaves in the configuration."""

from __future__ import annotations

import pytest

from block.core import flags as f
from miniqemu.cli.build import SUPPORTED
from miniqemu.cli.config import CliError, Config, Item
from miniqemu.cli.devices import Device, global_properties
from miniqemu.cli.drives import Drive
from miniqemu.cli.help import object_help
from miniqemu.cli.machine_options import MachineOptions
from miniqemu.cli.options import GROUPS, OBJECTS, Stop, lookup, parse
from miniqemu.cli.qemu_names import DEVICES, FLAGS, OPTIONS_WITH_ARGUMENT

MIB = 1 << 20


def config(*arguments: str) -> Config:
    return parse("prog", list(arguments))


def machine(*arguments: str) -> MachineOptions:
    return MachineOptions(config(*arguments))


def drive(text: str) -> Drive:
    return Drive(config("-drive", text).drives[0], 0)


def device(text: str, *arguments: str) -> Device:
    given = config("-device", text, *arguments)
    return Device(given.devices[0], global_properties(given))


def test_every_option_of_ours_is_one_of_qemus_and_takes_an_argument_as_there() -> None:
    for rows in GROUPS.values():
        for row in rows:
            for name in row.names:
                assert name in (OPTIONS_WITH_ARGUMENT if row.argument else FLAGS)


def test_one_dash_or_two_and_long_names_mean_the_same() -> None:
    for line in (["-M", "microvm"], ["--M", "microvm"], ["-machine", "microvm"]):
        assert config(*line).machine.values == {"type": "microvm"}
    assert lookup("M") is lookup("machine")


def test_three_dashes_are_no_option() -> None:
    with pytest.raises(CliError, match=r"^---M: invalid option$"):
        config("---M", "microvm")


def test_an_option_keeps_how_it_was_typed() -> None:
    assert config("--drive", "file=x").drives[0].where == "--drive file=x"


def test_several_machine_options_add_up() -> None:
    given = config("-M", "microvm,acpi=off", "-machine", "isa-serial=off").machine.values
    assert given == {"type": "microvm", "acpi": "off", "isa-serial": "off"}


@pytest.mark.parametrize(
    ("text", "size"),
    [("64", 64 * MIB), ("64M", 64 * MIB), ("1G", 1024 * MIB), ("size=8192k", 8 * MIB),
     ("0", 128 * MIB), ("0.5G", 512 * MIB), ("1025k", 1032 * 1024), ("", 128 * MIB)],
)  # fmt: skip
def test_memory_is_in_mib_or_with_a_suffix(text: str, size: int) -> None:
    assert machine("-m", text).ram_size == size


def test_without_options_the_machine_is_small() -> None:
    small = machine()
    assert (small.ram_size, small.vcpus, small.cpu_model) == (128 * MIB, 1, "host")
    assert small.has_serial
    assert small.announce_disks


@pytest.mark.parametrize("text", ["2", "cpus=2"])
def test_processors_are_counted(text: str) -> None:
    assert machine("-smp", text).vcpus == 2


@pytest.mark.parametrize(
    "line",
    [["-accel", "kvm"], ["-enable-kvm"], ["-M", "accel=kvm"], ["-M", "accel=tcg:kvm"],
     ["-accel", "kvm,kernel-irqchip=on"]],
)  # fmt: skip
def test_kvm_may_be_asked_for_in_many_ways(line: list[str]) -> None:
    assert machine(*line).accelerators[-1].text_of("accel") == "kvm"


@pytest.mark.parametrize(
    "line",
    [["-M", "accel=kvm:tcg"], ["-accel", "kvm", "-accel", "tcg,thread=single"], []],
)
def test_kvm_is_tried_before_tcg(line: list[str]) -> None:
    assert [item.text_of("accel") for item in machine(*line).accelerators] == ["kvm", "tcg"]


def test_properties_that_are_true_of_the_board_are_accepted() -> None:
    board = machine(
        "-M", "microvm,acpi=off,pit=on,pic=on,rtc=off,pcie=off,usb=off,x-option-roms=off,"
        "isa-serial=off,auto-kernel-cmdline=off,mem-merge=off,dump-guest-core=on,graphics=off"
    )  # fmt: skip
    assert not board.has_serial
    assert not board.announce_disks


@pytest.mark.parametrize(
    ("mode", "direct", "no_flush", "writethrough"),
    [("writeback", False, False, False), ("none", True, False, False),
     ("writethrough", False, False, True), ("directsync", True, False, True),
     ("unsafe", False, True, False)],
)  # fmt: skip
def test_a_cache_mode_is_three_switches(
    mode: str, direct: bool, no_flush: bool, writethrough: bool
) -> None:
    given = drive(f"file=a,cache={mode}")
    assert given.options["cache.direct"] is direct
    assert given.options["cache.no-flush"] is no_flush
    assert given.writethrough is writethrough


def test_what_is_said_of_one_switch_wins_over_the_cache_mode() -> None:
    given = drive("file=a,cache=none,cache.direct=off,cache.writeback=off")
    assert given.options["cache.direct"] == "off"
    assert given.writethrough


def test_a_drive_goes_to_the_node_without_the_words_of_old() -> None:
    given = drive("file=a,,b,format=raw,if=none,id=d,node-name=n,readonly=on,file.locking=off")
    assert given.filename == "a,b"
    assert given.id == "d"
    assert given.options == {
        "driver": "raw", "node-name": "n", "read-only": True, "file.locking": "off",
        "auto-read-only": True, "cache.direct": False, "cache.no-flush": False,
    }  # fmt: skip


def test_a_drive_without_a_name_gets_one() -> None:
    items = config("-drive", "file=a", "-drive", "file=b").drives
    assert [Drive(item, number).id for number, item in enumerate(items)] == ["none0", "none1"]


def test_errors_of_a_drive_are_reported_unless_there_is_no_space() -> None:
    assert (drive("file=a").on_read_error, drive("file=a").on_write_error) == ("report", "enospc")
    given = drive("file=a,rerror=stop,werror=ignore")
    assert (given.on_read_error, given.on_write_error) == ("stop", "ignore")


def test_a_cdrom_is_read_only() -> None:
    assert drive("file=a,media=cdrom").options["read-only"] is True


def test_copy_on_read_is_for_drives_that_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert drive("file=a.img,copy-on-read=on").flags == f.BDRV_O_COPY_ON_READ
    assert drive("file=a.img,copy-on-read=off").flags == 0
    assert capsys.readouterr().err == ""
    text = "file=a.img,copy-on-read=on,read-only=on"
    assert drive(text).flags == 0
    warning = "warning: disabling copy-on-read on read-only drive"
    assert capsys.readouterr().err == f"-drive {text}: {warning}\n"


def test_a_drive_may_be_empty() -> None:
    assert drive("id=d").is_empty
    assert not drive("file=a").is_empty
    assert not drive("driver=null-co").is_empty


def test_a_device_has_defaults_globals_and_its_own_properties_in_that_order() -> None:
    plain = device("virtio-blk-device,drive=d")
    assert plain.properties["queue-size"] == 256
    line = ["-global", "virtio-blk-device.queue-size=64"]
    assert device("virtio-blk-device,drive=d", *line).properties["queue-size"] == 64
    own = device("virtio-blk-device,drive=d,queue-size=32", *line)
    assert own.properties["queue-size"] == 32


def test_a_global_may_be_spelled_out() -> None:
    given = config("-global", "driver=virtio-mmio,property=ioeventfd,value=off")
    assert global_properties(given) == {"virtio-mmio": {"ioeventfd": False}}


def test_properties_come_as_text_or_as_json() -> None:
    text = device("virtio-blk-device,drive=d,num-queues=2,config-wce=off,min_io_size=4k")
    json = device('{"driver":"virtio-blk-device","drive":"d","num-queues":2,"config-wce":false,'
                  '"min_io_size":4096}')  # fmt: skip
    assert text.properties == json.properties


def test_every_device_of_ours_is_one_of_qemus() -> None:
    assert {"virtio-blk-device", "isa-debug-exit"} <= DEVICES


@pytest.mark.parametrize(("text", "code"), [("1", 1), ("0x14", 20), ("20", 20)])
def test_the_escape_key_is_a_code(text: str, code: int) -> None:
    assert config("-echr", text).escape == code


@pytest.mark.parametrize("line", ["-h", "-version", "-d help", "-device isa-debug-exit,?"])
def test_texts_stop_the_program_before_anything_is_made(line: str) -> None:
    with pytest.raises(Stop):
        config(*line.split())


@pytest.mark.parametrize(
    ("line", "names"),
    [("-M help", "microvm"), ("-machine ?", "microvm"), ("-accel help", "kvm tcg"),
     ("-cpu help", "host qemu64"), ("-device help", "virtio-blk-device isa-debug-exit"),
     ("-object help", "iothread secret throttle-group"), ("-drive format=help", "raw qcow2"),
     ("-object iothread,help", "poll-max-ns=<int>"), ("-object secret,?", "file=<string>"),
     ("-object throttle-group,help", "x-iops-total=<int>")],
)  # fmt: skip
def test_help_in_place_of_a_name_lists_the_names(line: str, names: str) -> None:
    with pytest.raises(Stop) as stop:
        config(*line.split())
    for name in names.split():
        assert name in str(stop.value)


def test_a_snapshot_is_asked_for_by_drive_or_for_all_drives() -> None:
    assert not drive("file=x").snapshot
    assert drive("file=x,snapshot=on").snapshot
    assert config("-snapshot").snapshot
    assert Drive(config("-drive", "file=x").drives[0], 0, True).snapshot
    assert not Drive(config("-drive", "file=x,snapshot=off").drives[0], 0, True).snapshot


def test_a_password_may_have_a_cry_for_help_in_it() -> None:
    (item,) = config("-object", "secret,id=s,data=a,,help").objects
    assert item.values["data"] == "a,help"


def test_the_objects_that_help_lists_are_those_that_can_be_made() -> None:
    for kind in OBJECTS:
        assert kind in SUPPORTED
        assert f"{kind} options:" in object_help(kind)


def test_what_a_machine_never_has_may_be_switched_off() -> None:
    line = (
        "-nodefaults -no-user-config -no-acpi -no-hpet -display none -vga none -nic none -net none "
        "-parallel none -monitor none -name guest=x"
    )
    assert not config(*line.split()).defaults


def test_an_item_says_where_it_stands() -> None:
    assert str(Item("-m 5").error("too small")) == "-m 5: too small"
