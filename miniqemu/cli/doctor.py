# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu doctor`: what this machine has, what it lacks, and the one command that mends it.

R1  It tries things instead of looking whether they are there: /dev/kvm may exist and make no
    machine, a library may be installed and not load.
R2  For each thing that is missing there is one command (Debian's names; elsewhere they differ).
R3  The exit status is 0 when the main job can run: a guest boots, by kvm or by tcg. All else is
    for some drivers, for the tests and for comparison.
R4  One line for each finding, the command below it. The same in a pipe, but for the colours.

Nothing of this is imported when the machine starts.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from ctypes import CDLL
from ctypes.util import find_library

from block.aio.liburing_rings import has_avx512
from block.aio.world import the_world

from .output import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

USAGE = "usage: {} doctor\n\nTells what this machine has for miniqemu, and how to get the rest.\n"
GREEN, RED, PLAIN = "\033[32m", "\033[31m", "\033[0m"
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
AIO_REMEDY = {errno.EAGAIN: "sudo sysctl -w fs.aio-max-nr=1048576"}
URING_REMEDY = {errno.EPERM: "sudo sysctl -w kernel.io_uring_disabled=0"}

# library -> (who needs it, Debian's package)
LIBRARIES = {
    "curl": ("http, https and ftp images", "libcurl4"),
    "iscsi": ("iscsi images", "libiscsi7"),
    "nfs": ("nfs images", "libnfs13"),
    "rbd": ("rbd images (Ceph)", "librbd1"),
    "gfapi": ("gluster images", "libgfapi0"),
    "ssh": ("ssh images", "libssh-4"),
}
# program -> (what for, Debian's package)
PROGRAMS = {
    "qemu-system-x86_64": ("the same guest on QEMU, to compare", "qemu-system-x86"),
    "qemu-img": ("images made, checked and compared by QEMU", "qemu-utils"),
    "qemu-io": ("requests by QEMU, to compare", "qemu-utils"),
    "qemu-nbd": ("an NBD server to test against", "qemu-utils"),
    "nbdkit": ("an NBD server to test against", "nbdkit"),
    "sshd": ("an ssh server to test against", "openssh-server"),
    "tgtd": ("an iscsi server to test against", "tgt"),
    "ganesha.nfsd": ("an nfs server to test against", "nfs-ganesha"),
    "glusterd": ("a gluster server to test against", "glusterfs-server"),
}


class Finding:
    """One line of the report; without a `remedy` there is nothing to be done."""

    def __init__(self, name: str, ok: bool, detail: str, remedy: str = "") -> None:
        self.name = name
        self.ok = ok
        self.detail = detail
        self.remedy = remedy


def main(program: str, words: list[str]) -> int:
    """Runs the command; the exit status (R3)."""
    if words:
        if words[0] in ("-h", "--help", "-help"):
            return write(1, USAGE.format(program))
        write(2, f"{program}: doctor: unexpected argument '{words[0]}'\n")
        return 1
    parts = examine()
    accelerators = [each.name for each in parts["Accelerators"] if each.ok]
    write(1, report(parts, os.isatty(1)) + "\n" + verdict(accelerators))
    return 0 if accelerators else 1


def examine() -> dict[str, list[Finding]]:
    """All findings, by part of the report."""
    return {
        "Accelerators": [kvm(), tcg()],
        "The guest": [compiler()],
        "Engines of the file driver": [*engines()],
        "Client libraries": [library(name) for name in LIBRARIES],
        "Programs": [program(name) for name in PROGRAMS],
    }


def verdict(accelerators: list[str]) -> str:
    """The last line."""
    if accelerators:
        return f"A guest can boot here, by {' or '.join(accelerators)}.\n"
    return "No guest can boot here: neither kvm nor tcg works.\n"


def report(parts: dict[str, list[Finding]], colours: bool) -> str:
    """The findings as text (R4)."""
    lines = []
    for title, findings in parts.items():
        lines.append(title)
        for each in findings:
            word = f"{'ok' if each.ok else 'missing':8}"
            if colours:
                word = f"{GREEN if each.ok else RED}{word}{PLAIN}"
            lines.append(f"  {word} {each.name:20} {each.detail}")
            if each.remedy:
                lines.append(f"{'':11} {'':20} $ {each.remedy}")
    return "\n".join(lines) + "\n"


# -- accelerators


def kvm() -> Finding:
    """Opens /dev/kvm and makes a virtual machine, as a start does."""
    from miniqemu.pykvm import Kvm

    try:
        device = Kvm()
        try:
            device.create_vm().close()
        finally:
            device.close()
    except OSError as error:
        detail = f"/dev/kvm: {error.strerror or error}"
        return Finding("kvm", False, detail, kvm_remedy(error.errno or 0))
    return Finding("kvm", True, "/dev/kvm opens, and makes a virtual machine")


def kvm_remedy(number: int) -> str:
    """What mends an errno of /dev/kvm."""
    if number in (errno.EACCES, errno.EPERM):
        return 'sudo usermod -aG kvm "$USER"  # and log in again'
    try:
        with open("/proc/cpuinfo") as file:
            module = "kvm_amd" if "AuthenticAMD" in file.read() else "kvm_intel"
    except OSError:
        return ""
    return f"sudo modprobe {module}  # in a virtual machine, its host must allow nesting"


def tcg() -> Finding:
    """Loads the library of the accelerator for machines without KVM."""
    from miniqemu.accel import libunicorn
    from miniqemu.accel.base import AccelError

    try:
        __import__("unicorn")
    except ImportError as error:
        return Finding("tcg", False, f"unicorn: {error}", pip("unicorn"))
    try:
        libunicorn.load()
    except AccelError as error:
        return Finding("tcg", False, str(error), pip("unicorn"))
    return Finding("tcg", True, "unicorn is there: guests run without KVM")


def pip(package: str) -> str:
    """How this Python gets a package."""
    return f"{sys.executable} -m pip install {package}"


# -- the guest


def compiler() -> Finding:
    """Compiles an empty C file for x86-64, with cc or with zig."""
    ways = [[path] for name in ("cc", "gcc", "clang") if (path := shutil.which(name))]
    ways.append([sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-freestanding-none"])
    for words in ways:
        if compiles(words):
            name = "zig" if "ziglang" in words else words[0]
            return Finding("C compiler", True, f"{name} compiles for x86-64")
    return Finding("C compiler", False, "needed to build the guest", "sudo apt-get install gcc")


def compiles(words: list[str]) -> bool:
    """Whether a compiler takes x86-64's own instructions."""
    line = [*words, "-x", "c", "-ffreestanding", "-c", "-", "-o", os.devnull]
    code = b'void stop(void) { __asm__("hlt" ::: "rax"); }\n'
    try:
        return not subprocess.run(line, input=code, capture_output=True, timeout=60).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


# -- engines


def engines() -> list[Finding]:
    """aio=threads works everywhere; the other two are made, and given back."""
    world = the_world()
    threads = Finding("aio=threads", True, "works everywhere")
    native = engine("aio=native", "Linux AIO", world.new_linux_aio, AIO_REMEDY)
    remedies = {**URING_REMEDY, errno.ENOPKG: liburing_remedy()}
    io_uring = engine("aio=io_uring", "io_uring", world.new_io_uring, remedies)
    return [threads, native, io_uring]


def liburing_remedy() -> str:
    """The package runs on processors with AVX-512 only, the library everywhere."""
    return pip("liburing") if has_avx512() else "sudo apt-get install liburing2"


def engine(
    name: str, what: str, make: Callable[[int, int], object], remedies: dict[int, str]
) -> Finding:
    """Makes a queue in the kernel, and gives it back."""
    notifier = the_world().new_notifier()
    try:
        queue = make(8, notifier.write_fd)
        queue.close()  # type: ignore[attr-defined]  # both have it
    except OSError as error:
        remedy = remedies.get(error.errno or 0, "")
        return Finding(name, False, f"{what}: {error.strerror}", remedy)
    finally:
        notifier.close()
    return Finding(name, True, f"{what} works")


# -- libraries and programs


def library(name: str) -> Finding:
    """Loads a client library."""
    what, package = LIBRARIES[name]
    file = find_library(name)
    try:
        if file is None:
            raise OSError
        CDLL(file)
    except OSError:
        return Finding(f"lib{name}", False, f"{what}", f"sudo apt-get install {package}")
    return Finding(f"lib{name}", True, f"{file}: {what}")


def program(name: str) -> Finding:
    """Looks for a program; servers live where an ordinary PATH does not look."""
    what, package = PROGRAMS[name]
    path = shutil.which(name) or shutil.which(name, path=os.pathsep.join(SBIN))
    if path is None:
        return Finding(name, False, f"{what}", f"sudo apt-get install {package}")
    return Finding(name, True, f"{path}: {what}")
