# SPDX-License-Identifier: GPL-2.0-only
"""Wrong command lines: one line that names the option and the cause, exit 1, as QEMU says it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from block.aio.world import the_world
from miniqemu.cli.miniqemu import main
from tests.support import needs
from tests.support.descriptors import open_fds

BASE = "-M microvm -nodefaults -display none"
DRIVE = f"{BASE} -drive file=a.img,format=raw,id=d"
DISK = f"{DRIVE} -device virtio-blk-device,drive=d"
GROUP = f"{BASE} -object throttle-group,id=a"
GROUP_JSON = f'{BASE} -object {{"qom-type":"throttle-group","id":"a"'
NODE = f"{BASE} -blockdev driver=file,filename=a.img,node-name=d"

# What QEMU 7.2 says to each of these, we say too (a second line of explanation may become the
# end of the first, and the option goes in front where QEMU leaves it out).
SAME_AS_QEMU = [
    "-foo",
    "--foo",
    "-nodefaults -foo -drive file=x",
    "-machine",
    "-device",
    "-append",
    "-M foo",
    "-M microvm,foo=1",
    "-M microvm,pit=maybe",
    "-M microvm,accel=foo",
    "-M microvm,accel=",
    f"{BASE} -accel foo",
    f"{BASE} -accel kvm,foo=1",
    f"{BASE} -accel kvm,kernel-irqchip=foo",
    f"{BASE} -accel kvm -M accel=kvm",
    f"{BASE} -enable-kvm -accel kvm",
    f"{BASE} -cpu foo",
    f"{BASE} -m abc",
    f"{BASE} -m 1Q",
    f"{BASE} -m -1",
    f"{BASE} -m size=",
    f"{BASE} -m 16E",
    f"{BASE} -m 128,foo=1",
    f"{BASE} -smp abc",
    f"{BASE} -smp 1000",
    f"{BASE} -smp -1",
    f"{BASE} -smp foo=1",
    f"{BASE} -smp cpus=2,foo=1",
    f"{BASE} -name foo,bar=1",
    f"{BASE} -global a=b",
    f"{BASE} -global virtio-mmio",
    f"{BASE} -object iothread",
    f"{BASE} -object foo",
    f"{BASE} -object foo,id=a",
    f"{BASE} -object qom-type=",
    f"{BASE} -object iothread,id=a -object iothread,id=a",
    f"{BASE} -object iothread,id=1a",
    f"{BASE} -object iothread,id=a,foo=1",
    f"{BASE} -object iothread,id=a,poll-max-ns=-1",
    f"{BASE} -object iothread,id=a,poll-grow=-0x1",
    f"{BASE} -object iothread,id=a,poll-max-ns=1k",
    f"{BASE} -object iothread,id=a,poll-max-ns=",
    f"{BASE} -object iothread,id=a,poll-shrink=0x8000000000000000",
    f'{BASE} -object {{"qom-type":"iothread","id":"a","poll-shrink":-3}}',
    f'{BASE} -object {{"qom-type":"iothread","id":"a","poll-shrink":"3"}}',
    f'{BASE} -object {{"qom-type":"iothread","id":"a","poll-max-ns":true}}',
    f'{BASE} -object {{"qom-type":"iothread"}}',
    f'{BASE} -object {{"qom-type":"iothread","id":"a","foo":1}}',
    f'{BASE} -object {{"qom-type":"iothread","id":1}}',
    f"{BASE} -blockdev x",
    f"{BASE} -blockdev node-name=d",
    f"{BASE} -blockdev driver=file,filename=a.img",
    f"{BASE} -blockdev driver=file,filename=nope,node-name=d",
    f"{BASE} -blockdev driver=file,filename=a.img,node-name=1d",
    f"{BASE} -blockdev driver=raw,node-name=d,file=nope",
    f"{BASE} -blockdev driver=file,node-name=d,filename=a.img,read-only=foo",
    f"{NODE} -blockdev driver=file,filename=a.img,node-name=d",
    f"{BASE} -blockdev driver=file,node-name=d",
    f"{BASE} -blockdev driver=throttle,node-name=d,file.driver=null-co",
    f"{BASE} -blockdev driver=throttle,file.driver=null-co",
    f"{BASE} -blockdev driver=raw,node-name=d,file.driver=throttle",
    f"{BASE} -blockdev driver=raw,node-name=d,file.filename=a.img",
    f"{BASE} -blockdev driver=quorum,node-name=d,children.0.driver=file,vote-threshold=1",
    f"{BASE} -blockdev driver=qcow2,node-name=d,file.driver=null-co,backing.driver=raw",
    f"{BASE} -blockdev driver=blkverify,node-name=d,test=a",
    f'{BASE} -blockdev {{"driver":"raw","node-name":"d","file":{{"driver":"throttle"}}}}',
    f"{BASE} -blockdev driver=null-co,node-name=d,discard=on",
    f"{BASE} -blockdev driver=null-co,node-name=d,detect-zeroes=foo",
    f"{BASE} -blockdev driver=raw,node-name=d,file.driver=null-co,file.discard=foo",
    f"{BASE} -drive file=a.img,format=raw,detect-zeroes=foo",
    f"{BASE} -drive file=a.img,format=raw,snapshot=foo",
    f"{BASE} -drive file=nope,format=raw,snapshot=on",
    f"{BASE} -snapshot -drive file=a.img,format=raw,foo=1",
    f"{BASE} -blockdev {{}}",
    f"{BASE} -drive file=nope",
    f"{BASE} -drive file=nope,if=none,format=raw",
    f"{BASE} -drive file=/nope/a,format=raw",
    f"{BASE} -drive file=/etc,format=raw",
    f"{BASE} -drive file=a.img,format=blah",
    f"{BASE} -drive file=a.img,if=foo",
    f"{BASE} -drive file=a.img,id=1a",
    f"{BASE} -drive file=a.img,media=foo",
    f"{BASE} -drive file=a.img,index=0,unit=1",
    f"{BASE} -drive file=a.img,format=raw,driver=raw",
    f"{BASE} -drive file=a.img,format=raw,foo=bar",
    f"{BASE} -drive file=a.img,format=raw,cache=foo",
    f"{BASE} -drive file=a.img,format=raw,aio=foo",
    f"{BASE} -drive file=a.img,format=raw,discard=foo",
    f"{BASE} -drive file=a.img,format=raw,rerror=foo",
    f"{BASE} -drive file=a.img,format=raw,werror=foo",
    f"{BASE} -drive file=a.img,format=raw,readonly=foo",
    f"{BASE} -drive file=foo:x",
    f"{DRIVE},readonly=on,read-only=on",
    f"{DRIVE},iops=10,iops_rd=5",
    f"{DRIVE},throttling.iops-total=10,throttling.iops-read=5",
    f"{DRIVE},iops=10,throttling.iops-total=5",
    f"{DRIVE},group=a,throttling.group=b",
    f"{DRIVE},bps_max=10",
    f"{DRIVE},bps=10,bps_max=5",
    f"{DRIVE},throttling.iops-total=abc",
    f"{DRIVE},iops=1k",
    f"{DRIVE},iops=-1",
    f"{DRIVE},bps=1000000000000001",
    f"{DRIVE},iops_size=512",
    f"{DRIVE},bps=10,throttling.bps-total-max-length=2",
    f"{DRIVE},bps=10,bps_max=20,throttling.bps-total-max-length=0",
    f"{DRIVE},throttling.foo=1",
    f"{DRIVE},iops=10,iops_wr=5,werror=foo",
    f"{DRIVE},iops=10,iops_wr=5,format=foo",
    f"{BASE} -drive id=d,iops_max=10",
    f"{BASE} -object throttle-group",
    f"{BASE} -object throttle-group,id=1a",
    f"{GROUP} -object iothread,id=a",
    f"{GROUP} -object throttle-group,id=a",
    f"{GROUP},foo=1",
    f"{GROUP},limits=1",
    f"{GROUP},limits.foo=1",
    f"{GROUP},x-iops-total=abc",
    f"{GROUP},x-iops-total=",
    f"{GROUP},x-iops-total=-1",
    f"{GROUP},x-iops-total=1000000000000001",
    f"{GROUP},x-iops-total=1,x-iops-read=1",
    f"{GROUP},x-iops-size=1",
    f"{GROUP},x-bps-write-max=1",
    f"{GROUP},x-bps-read=10,x-bps-read-max=1",
    f"{GROUP},x-iops-total=1,x-iops-total-max-length=3",
    f"{GROUP},x-bps-read=1,x-bps-read-max=2,x-bps-read-max-length=0",
    f'{GROUP_JSON},"limits":3}}',
    f'{GROUP_JSON},"limits":{{"iops-total":"1"}}}}',
    f'{GROUP_JSON},"limits":{{"iops-total":-1}}}}',
    f'{GROUP_JSON},"limits":{{"foo":1}}}}',
    f'{GROUP_JSON},"x-bps-total":true}}',
    f'{GROUP_JSON},"foo":1}}',
    f'{GROUP_JSON},"limits":{{"bps-read":1,"bps-total":1}}}}',
    f'{GROUP_JSON},"limits":{{"bps-read-max-length":4294967296}}}}',
    f"{BASE} -drive driver=throttle,file.driver=null-co",
    f"{BASE} -drive driver=throttle,file.driver=null-co,throttle-group=g",
    f"{BASE} -blockdev driver=throttle,node-name=d,throttle-group=g,file.driver=null-co",
    f"{DRIVE} -drive file=a.img,format=raw,id=d",
    f"{DRIVE},node-name=n -drive file=b.img,format=raw,node-name=n",
    f"{BASE} -device foo",
    f"{BASE} -device driver=",
    f"{BASE} -device virtio-blk-device",
    f"{BASE} -device virtio-blk-device,x=y",
    f"{BASE} -device virtio-blk-device,drive=nope",
    f'{BASE} -device {{"driver":"virtio-blk-device","drive":"d"}}',
    f"{BASE} -drive id=d -device virtio-blk-device,drive=d",
    f"{DISK},x=y",
    f"{DISK},ioeventfd=on",
    f"{DISK},iothread=nope",
    f"{DISK},id=1a",
    f"{DISK},id=a -device virtio-blk-device,drive=d,id=a",
    f"{DISK},id=a -device virtio-blk-device,drive=d",
    f"{DISK} -drive file=a.img,format=raw,id=e -device virtio-blk-device,drive=e",
    f"{DISK},num-queues=abc",
    f"{DISK},num-queues=70000",
    f"{DISK},num-queues=0",
    f"{DISK},queue-size=abc",
    f"{DISK},queue-size=100",
    f"{DISK},queue-size=2048",
    f"{DISK},queue-size=1",
    f"{DISK},logical_block_size=1000",
    f"{DISK},logical_block_size=256",
    f"{DISK},logical_block_size=4M",
    f"{DISK},logical_block_size=abc",
    f"{DISK},logical_block_size=4096,physical_block_size=512",
    f"{DISK},min_io_size=1000",
    f"{DISK},opt_io_size=100",
    f"{DISK},min_io_size=64M",
    f"{DISK},config-wce=maybe",
    f"{DISK},rerror=foo",
    f"{DISK},write-cache=foo",
    f"{DISK},bootindex=x",
    f"{DISK},max-discard-sectors=99999999999",
    f"{BASE} -device isa-debug-exit,iobase=x",
    f"{BASE} -device isa-debug-exit,foo=1",
    f"{BASE} -serial foo",
    f"{BASE} -serial mon:foo",
    f"{BASE} -serial file:/nope/x",
    f"{BASE} -serial unix:/nope/x",
    f"{BASE} -serial unix:/nope/x,server=on",
    f"{BASE} -serial unix:s,foo=1",
    f"{BASE} -serial unix:s,wait=off",
    f"{BASE} -D /nope/x -d guest_errors",
    f"{BASE} -pidfile /nope/x",
]

# What QEMU does and we do not is refused by name; what is ours has words of its own.
OURS = {
    "-netdev user": "-netdev: not supported by miniqemu",
    "--usb": "--usb: not supported by miniqemu",
    "a.img": "a.img: a disk image alone is not supported by miniqemu: name it in -drive",
    "-M q35": "-M q35: machine 'q35' is not supported by miniqemu (microvm is)",
    "-M microvm,acpi=on": "acpi=on is not supported by miniqemu (acpi=off is)",
    "-M microvm,pit=off": "pit=off is not supported by miniqemu (pit=on is)",
    "-M microvm,firmware=x": "property 'firmware' is not supported by miniqemu",
    "-accel hvf": "-accel hvf: accelerator 'hvf' is not supported by miniqemu (kvm and tcg are)",
    "-accel tcg,thread=multi": "thread=multi is not supported by miniqemu (thread=single is)",
    "-accel tcg,tb-size=64": "property 'tb-size' is not supported by miniqemu",
    "-accel tcg -cpu host": "-cpu host: CPU model 'host' requires KVM",
    "-accel tcg -smp 256": "-smp 256: -accel tcg has at most 255 vCPUs",
    "-accel kvm,kernel-irqchip=split": "kernel-irqchip=split is not supported by miniqemu",
    "-accel kvm,dirty-ring-size=1": "property 'dirty-ring-size' is not supported by miniqemu",
    "-cpu Nehalem": "CPU model 'Nehalem' is not supported by miniqemu",
    "-cpu Haswell-v4": "CPU model 'Haswell-v4' is not supported by miniqemu",
    "-cpu max,+avx": "CPU feature '+avx' is not supported by miniqemu",
    "-m 128,slots=2": "'slots' is not supported by miniqemu",
    "-m 4096T": "-m 4096T: cannot map",
    "-smp 2,sockets=2": "'sockets' is not supported by miniqemu",
    "-smp 0": "Invalid SMP CPUs 0",
    "-name a,process=b": "'process' is not supported by miniqemu",
    "-display gtk": "-display gtk: not supported by miniqemu (only 'none' is)",
    "-vga std": "-vga std: not supported by miniqemu (only 'none' is)",
    "-monitor stdio": "-monitor stdio: not supported by miniqemu",
    "-d in_asm": "-d in_asm: 'in_asm' is not supported by miniqemu",
    "-d trace:x": "'trace:x' is not supported by miniqemu",
    "-d foo": "-d foo: 'foo' is not a log item ('-d help' lists them)",
    "-echr x": "-echr x: Bad argument to echr: 'x'",
    "-object tls-creds-psk,id=a": "object 'tls-creds-psk' is not supported by miniqemu (iothread,",
    "-object secret,id=a": "-object secret,id=a: Either 'file' or 'data' must be provided",
    "-object secret,id=a,data=x,foo=1": "Invalid parameter 'foo'",
    "-object iothread,id=a,aio-max-batch=1": "'aio-max-batch' is not supported by miniqemu",
    "-global foo.bar=1": "-global foo.bar=1: global foo.bar has invalid class name",
    "-global e1000.mac=1": "-global e1000.mac=1: 'e1000' is not supported by miniqemu",
    "-global virtio-mmio.foo=1": "Property 'virtio-mmio.foo' not found",
    "-global virtio-mmio.force-legacy=on": "force-legacy=on is not supported by miniqemu",
    "-device virtio-net-device": "'virtio-net-device' is not supported by miniqemu",
    "-drive file=a.img,if=virtio": "if=virtio is not supported by miniqemu (if=none is)",
    "-drive file=a.img,stats-intervals.0=5": "'stats-intervals.0' is not supported by miniqemu",
    "-drive file=a.img,readonly=on,read-only=on": "can't be used at the same time",
    f"{DISK},packed=on": "packed=on is not supported by miniqemu",
    f"{DISK},scsi=on": "scsi=on is not supported by miniqemu",
    f"{DISK},secs=9": "property 'secs' is not supported by miniqemu",
    f"{DISK},bus=x": "property 'bus' is not supported by miniqemu",
    f"{DISK},num-queues=2000": "num-queues property must",
    "-serial pty": "-serial pty: 'pty' is not supported by miniqemu",
    "-serial stdio -serial stdio": "-serial stdio: microvm has one serial port",
    "-kernel nope": "-kernel nope: No such file or directory",
    "-kernel /etc/passwd": "-kernel /etc/passwd: not an ELF file",
    "-kernel /bin/true": "no PVH note",
    "-kernel /tmp": "-kernel /tmp: Is a directory",
    "-m 1": "-kernel",
}


@pytest.fixture(autouse=True)
def in_a_directory_with_two_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.img", "b.img"):
        with open(name, "wb") as image:
            image.truncate(1 << 20)


@pytest.fixture(autouse=True)
def everything_is_closed_again() -> Iterator[None]:
    the_world().main_context.poll(False)  # it is made once and stays
    before = open_fds()
    yield
    assert len(open_fds()) <= len(before)


def our_line(line: str, capfd: pytest.CaptureFixture[str]) -> str:
    """What we say, without the program's name; checks that it is one line and status 1."""
    assert main(["prog", *line.split()]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("prog: ")
    return lines[0].removeprefix("prog: ")


def qemu_line(line: str) -> str:
    """The first complaint of the real program, without its name."""
    program = needs.program("qemu-system-x86_64")
    done = subprocess.run(
        [program, *line.split()], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, (done.returncode, done.stderr)
    name = "qemu-system-x86_64: "
    complaints = [text for text in done.stderr.splitlines() if text.startswith(name)]
    return next(text for text in complaints if ": warning: " not in text).removeprefix(name)


@pytest.mark.parametrize("line", SAME_AS_QEMU)
def test_it_says_what_qemu_says(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    needs.kvm()
    ours, theirs = our_line(line, capfd), qemu_line(line)
    assert ours.startswith(theirs) or ours.endswith(f": {theirs}")


@pytest.mark.parametrize("line", OURS)
def test_it_refuses_by_name(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    needs.kvm()
    wanted = OURS[line]
    assert wanted in our_line(line if "-M" in line else f"{line} {BASE}", capfd)
