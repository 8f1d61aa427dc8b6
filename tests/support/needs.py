# SPDX-License-Identifier: GPL-2.0-only
"""What a test needs from the machine, and what happens where it is missing.

On a student's laptop a test that lacks a program or a device is skipped, and the
reason says how to get it. In CI (the environment has CI=true) nothing may be
skipped: there the same lack fails the test.

A test of something that only Linux has bears the mark of `linux(...)`. It needs the features
named there, and `pytest --portable` (tests/support/portable.py) leaves it out.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGES = {
    "bash": "bash",
    "cc": "gcc",
    "mandoc": "mandoc",
    "objdump": "binutils",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "stdbuf": "coreutils",
    "unshare": "util-linux",
    "zsh": "zsh",
}


def _has_ofd_locks() -> bool:
    from block.protocols.file.locks import has_ofd_locks

    return has_ofd_locks()


# feature -> does this system have it, and since which Linux is it there
FEATURES: dict[str, tuple[Callable[[], bool], str]] = {
    "eventfd": (lambda: hasattr(os, "eventfd"), "Linux 2.6.27"),
    "epoll": (lambda: hasattr(select, "epoll"), "Linux 2.6"),
    "RWF_NOWAIT": (lambda: hasattr(os, "RWF_NOWAIT"), "Linux 4.14"),
    "OFD locks": (_has_ofd_locks, "Linux 3.15"),
    "sched_setaffinity": (lambda: hasattr(os, "sched_setaffinity"), "Linux 2.6"),
}


def linux(*features: str) -> pytest.MarkDecorator:
    """Marks a test of something that only Linux has, and says which features it needs."""
    assert set(features) <= FEATURES.keys()
    return pytest.mark.linux(*features)


def feature(name: str) -> None:
    """Skips (fails in CI) where the system has no such feature."""
    probe, since = FEATURES[name]
    if not probe():
        lacking(name, f"it takes {since} or newer")


def direct_io(folder: Path) -> None:
    """Skips (fails in CI) where files in a folder cannot be opened with O_DIRECT."""
    path = folder / "direct"
    path.write_bytes(b"")
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except (OSError, AttributeError) as error:
        lacking(f"O_DIRECT ({error})", "let --basetemp be on ext4, xfs or btrfs")
    finally:
        path.unlink()


def lacking(what: str, remedy: str) -> None:
    """Skips the running test, or fails it in CI."""
    message = f"{what} is missing: {remedy}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def program(name: str) -> str:
    """Returns the path of a program, or skips (fails in CI) and names its package."""
    path = shutil.which(name)
    if path is None:
        lacking(name, f"apt-get install {PACKAGES.get(name, name)}")
        raise AssertionError("lacking() always raises")
    return path


def module(name: str, extra: str) -> None:
    """Skips (fails in CI) where a Python package is missing; `extra` of ours brings it."""
    if importlib.util.find_spec(name) is None:
        lacking(name, f"pip install -e '.[{extra}]', if there is a wheel for this Python")


def library(name: str, package: str) -> None:
    """Skips (fails in CI) where a shared library is missing; a package of Debian's brings it."""
    try:
        ctypes.CDLL(name)
    except OSError:
        lacking(name, f"apt-get install {package}")


def kvm() -> None:
    """Skips (fails in CI) where /dev/kvm cannot be opened."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        lacking(f"/dev/kvm ({error.strerror})", "modprobe kvm_intel or kvm_amd, or join group kvm")


def mounts() -> None:
    """Skips (fails in CI) where this user may not mount a tmpfs in a namespace of its own."""
    program("unshare")
    tried = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    if subprocess.run(tried, capture_output=True, check=False).returncode:
        lacking("mount in a user namespace", "sysctl kernel.unprivileged_userns_clone=1")


def c_compiler() -> list[str]:
    """Returns the command of a C compiler: the system's, or the ziglang wheel's."""
    path = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if path is not None:
        return [path]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    lacking("a C compiler", "apt-get install gcc libc6-dev, or pip install ziglang")
    raise AssertionError("lacking() always raises")


def engine(aio: str) -> None:
    """Skips (fails in CI) where the kernel or the package for aio=native or io_uring is missing."""
    from block.aio.world import the_world

    if aio == "threads":
        return
    world = the_world()
    make = world.new_linux_aio if aio == "native" else world.new_io_uring
    notifier = world.new_notifier()
    try:
        queue = make(8, notifier.write_fd)
    except OSError as error:
        remedy = "a Linux kernel with CONFIG_AIO" if aio == "native" else "pip install liburing"
        lacking(f"aio={aio} ({error.strerror})", remedy)
    else:
        queue.close()
    finally:
        notifier.close()
