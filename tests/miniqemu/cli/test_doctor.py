# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu doctor`: it tries things, names what mends them, and its status is about booting."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest

from block.aio.world import the_world
from miniqemu import pykvm
from miniqemu.cli import doctor, miniqemu


def failing(number: int) -> Callable[..., object]:
    """A function that raises OSError with an errno."""

    def fail(*args: object) -> object:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pykvm, "Kvm", failing(errno.ENOENT))
    monkeypatch.setitem(sys.modules, "unicorn", None)


def test_every_finding_is_one_line_and_a_lack_has_one_command_below(
    capfd: pytest.CaptureFixture[str],
) -> None:
    status = miniqemu.main(["prog", "doctor"])
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert status == (0 if "A guest can boot here" in lines[-1] else 1)
    found = [line.split()[1] for line in lines if line.startswith(("  ok ", "  missing "))]
    names = {"kvm", "tcg", "aio=threads", "aio=native", "aio=io_uring", "libcurl", "qemu-img"}
    assert names <= set(found)
    assert len(set(found)) == len(found)
    for line, following in pairwise(lines):
        if line.startswith("  missing"):
            assert following.lstrip().startswith("$ ") or "tcg" in line
    assert "\033" not in out


def test_a_terminal_gets_colours() -> None:
    parts = {"Part": [doctor.Finding("a", True, "good"), doctor.Finding("b", False, "bad", "mend")]}
    text = doctor.report(parts, True)
    assert doctor.GREEN in text
    assert doctor.RED in text
    bare = text.replace(doctor.GREEN, "").replace(doctor.RED, "").replace(doctor.PLAIN, "")
    assert bare == doctor.report(parts, False)


@pytest.mark.usefixtures("no_accelerator")
def test_without_an_accelerator_the_status_is_1(capfd: pytest.CaptureFixture[str]) -> None:
    assert miniqemu.main(["prog", "doctor"]) == 1
    assert capfd.readouterr().out.endswith("No guest can boot here: neither kvm nor tcg works.\n")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOENT, "sudo modprobe kvm_"), (errno.EACCES, "sudo usermod -aG kvm")],
)
def test_what_is_wrong_with_kvm_decides_what_mends_it(
    number: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pykvm, "Kvm", failing(number))
    found = doctor.kvm()
    assert not found.ok
    assert found.detail == f"/dev/kvm: {os.strerror(number)}"
    assert found.remedy.startswith(remedy)


def test_a_kvm_that_opens_but_makes_no_machine_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Barren:
        create_vm = staticmethod(failing(errno.EBUSY))

        def close(self) -> None:
            pass

    monkeypatch.setattr(pykvm, "Kvm", Barren)
    assert not doctor.kvm().ok


def test_engines_that_the_kernel_refuses_are_named_with_their_switch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = the_world()
    monkeypatch.setattr(world, "new_linux_aio", failing(errno.EAGAIN), raising=False)
    monkeypatch.setattr(world, "new_io_uring", failing(errno.EPERM), raising=False)
    threads, native, io_uring = doctor.engines()
    assert threads.ok
    assert (native.ok, io_uring.ok) == (False, False)
    assert "fs.aio-max-nr" in native.remedy
    assert "kernel.io_uring_disabled=0" in io_uring.remedy


@pytest.mark.parametrize(
    ("has_avx512", "command"),
    [(True, "pip install liburing"), (False, "sudo apt-get install liburing2")],
)
def test_the_liburing_that_the_processor_can_run_is_the_one_to_install(
    monkeypatch: pytest.MonkeyPatch, has_avx512: bool, command: str
) -> None:
    monkeypatch.setattr(the_world(), "new_io_uring", failing(errno.ENOPKG), raising=False)
    monkeypatch.setattr(doctor, "has_avx512", lambda: has_avx512)
    assert command in doctor.engines()[2].remedy


def test_a_compiler_that_makes_no_x86_code_does_not_count() -> None:
    assert not doctor.compiles(["false"])
    assert not doctor.compiles(["/nonexistent"])


def test_a_program_is_found_where_servers_live(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    path = os.path.join(tmp_path, "tgtd")
    with open(path, "w") as file:
        file.write("#!/bin/sh\n")
    os.chmod(path, 0o755)
    monkeypatch.setattr(doctor, "SBIN", (os.fspath(tmp_path),))
    assert doctor.program("tgtd").detail.startswith(path)


def test_words_that_it_does_not_know_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert miniqemu.main(["prog", "doctor", "now"]) == 1
    assert capfd.readouterr().err == "prog: doctor: unexpected argument 'now'\n"
    assert miniqemu.main(["prog", "doctor", "--help"]) == 0
    assert capfd.readouterr().out.startswith("usage: prog doctor\n")


def test_a_start_of_the_machine_does_not_pay_for_it() -> None:
    program = (
        "import sys; from miniqemu.cli.miniqemu import main; main(['p', '--version']); "
        "sys.exit('miniqemu.cli.doctor' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 0
