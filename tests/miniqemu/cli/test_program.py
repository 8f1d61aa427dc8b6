# SPDX-License-Identifier: GPL-2.0-only
"""The program as a person runs it: what it prints, how it ends, what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from block.core import report
from miniqemu.accel import kvm
from miniqemu.cli.miniqemu import main
from miniqemu.cli.output import program_name
from tests.support import boot, needs
from tests.support.terminal import TerminalSession

ROOT = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-m", "miniqemu"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
DEAR = {
    "argparse", "asyncio", "construct", "dataclasses", "importlib.metadata", "inspect", "json",
    "logging", "pathlib", "socket", "ssl", "subprocess", "typing", "urllib", "uuid",
}  # fmt: skip


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path


def disk(image: Path, more: str = "") -> list[str]:
    drive = f"file={image},format=raw,if=none,id=d"
    return ["-drive", drive, "-device", f"virtio-blk-device,drive=d{more}"]


def run(*arguments: str, **popen: object) -> subprocess.CompletedProcess[str]:
    needs.kvm()
    boot.built_elf()
    return subprocess.run(  # type: ignore[call-overload,no-any-return]  # a test's keywords
        [*PROGRAM, *arguments],
        **{
            "env": ENVIRONMENT, "cwd": ROOT, "stdin": subprocess.DEVNULL, "text": True,
            "capture_output": True, "timeout": 60, **popen,
        },
    )  # fmt: skip


# Texts


def test_whoever_calls_it_finds_the_process_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    before = report.program, report.on_mismatch
    assert main(["prog", "--version"]) == 0
    assert main(["prog", "-no-such-option"]) == 1
    assert (report.program, report.on_mismatch) == before


@pytest.mark.parametrize("word", ["-h", "-help", "--help"])
def test_help_lists_the_options_in_qemus_groups(
    word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["prog", word]) == 0
    out = capfd.readouterr().out
    assert "usage: prog [options]" in out
    assert "prog create [options] FILE" in out
    assert "prog doctor " in out
    for text in ("Standard options:", "Block device options:", "-nographic", "ctrl-a x"):
        assert text in out


def test_version_names_the_program(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["prog", "--version"]) == 0
    assert capfd.readouterr().out.startswith("miniqemu emulator version ")


@pytest.mark.parametrize("model", ["virtio-blk-device", "isa-debug-exit"])
def test_a_devices_properties_have_qemus_names_types_and_defaults(
    model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["prog", "-device", f"{model},help"]) == 0
    ours = capfd.readouterr().out.splitlines()
    qemu = [needs.program("qemu-system-x86_64"), "-device", f"{model},help"]
    theirs = subprocess.run(qemu, capture_output=True, text=True).stdout
    for line in ours[1:]:
        head, _, rest = line.partition(" - ")
        assert head.split("=")[0] + "=<" in theirs
        if "(default: " in rest and "force-legacy" not in head:
            default = rest.split("(default: ")[1].split(")")[0]
            name = head.split("=")[0].strip()
            (line_there,) = [text for text in theirs.splitlines() if text.startswith(f"  {name}=")]
            assert f"(default: {default})" in line_there or f'(default: "{default}")' in line_there


def test_the_log_items_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["prog", "-d", "help"]) == 0
    assert "guest_errors" in capfd.readouterr().out


def test_messages_begin_with_the_name_it_was_called_by() -> None:
    assert program_name("/usr/bin/qemu-like") == "qemu-like"
    assert program_name("/x/miniqemu/__main__.py") == "miniqemu"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["-nodefaults", "-m", "x"]])
def test_a_start_imports_nothing_dear(arguments: list[str]) -> None:
    code = (
        "import sys; from miniqemu.cli.miniqemu import main\n"
        f"main(['prog', *{arguments!r}])\n"
        "print('MODULES', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    modules = set(done.stdout.rpartition("MODULES ")[2].split())
    assert not modules & DEAR


def test_a_whole_boot_imports_nothing_dear(image: Path) -> None:
    needs.kvm()
    boot.built_elf()
    line = ["prog", "-nographic", *disk(image), "-append", "poweroff"]
    code = (
        "import sys; from miniqemu.cli.miniqemu import main\n"
        f"assert main({line!r}) == 0\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.stderr
    assert not set(done.stderr.split()) & DEAR


# What cannot be used


def no_kvm(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    real = kvm.KvmAccel
    monkeypatch.setattr(kvm, "KvmAccel", lambda vcpus, model: real(vcpus, model, path))


def complaint(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["prog", *arguments]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    return line


def test_a_missing_dev_kvm_names_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    no_kvm(monkeypatch, "/dev/no-kvm")
    line = complaint(capfd, "-nodefaults", "-accel", "kvm")
    assert line.startswith("prog: -accel kvm: /dev/no-kvm: No such file or directory: ")
    assert "modprobe kvm_intel" in line


def test_a_forbidden_dev_kvm_names_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(kvm, "Kvm", refuse)
    line = complaint(capfd, "-nodefaults", "-accel", "kvm")
    assert line.startswith("prog: -accel kvm: /dev/kvm: Permission denied: ")
    assert "usermod -aG kvm" in line


@pytest.mark.parametrize("words", [[], ["-M", "accel=kvm:tcg"], ["-accel", "kvm", "-accel", "tcg"]])
def test_without_dev_kvm_the_guest_runs_on_tcg_which_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    guest_elf: Path,
    words: list[str],
) -> None:
    needs.module("unicorn", "tcg")
    no_kvm(monkeypatch, "/dev/no-kvm")
    guest = ["-serial", "stdio", "-kernel", str(guest_elf), "-append", "poweroff 7"]
    assert main(["prog", *words, "-nodefaults", *guest]) == 7
    heard = capfd.readouterr()
    assert heard.out.startswith("miniqemu guest")
    (line,) = heard.err.splitlines()
    assert line.startswith("prog: falling back to tcg: -accel kvm: /dev/no-kvm: No such file")


def test_with_neither_accelerator_one_line_tells_both_remedies(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from miniqemu.accel import libunicorn

    no_kvm(monkeypatch, "/dev/no-kvm")
    monkeypatch.setattr(libunicorn, "_library", None)
    monkeypatch.setattr(libunicorn, "NAMES", ("no-such-library",))
    line = complaint(capfd, "-nodefaults")
    assert "modprobe kvm_intel" in line
    assert "; -accel tcg: the package unicorn is missing: " in line


def test_tcg_is_not_touched_where_kvm_works(tmp_path: Path, guest_elf: Path) -> None:
    needs.kvm()
    code = (
        "import sys; from miniqemu.cli.miniqemu import main\n"
        f"main(['m', '-nodefaults', '-kernel', {str(guest_elf)!r}, '-append', 'poweroff'])\n"
        "names = 'accel.tcg', 'accel.libunicorn', 'hw.lapic', 'hw.ioapic', 'hw.pit'\n"
        "print([name for name in names if f'miniqemu.{name}' in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_image_of_another_format_is_refused(
    image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image.write_bytes(b"QFI\xfb" + bytes(508))
    line = complaint(capfd, "-nodefaults", "-drive", f"file={image},id=d")
    assert line.startswith(f"prog: -drive file={image},id=d: ")
    assert "qcow2" in line


def test_a_disk_in_use_by_another_process_is_refused(
    image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    needs.kvm()
    holder = subprocess.Popen(
        [needs.program("qemu-io"), "-f", "raw", str(image)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(b"length\n")
    holder.stdin.flush()
    holder.stdout.read(9)
    line = complaint(capfd, "-nodefaults", *disk(image))
    qemu = [needs.program("qemu-system-x86_64"), "-M", "microvm", "-nodefaults", *disk(image)]
    real = subprocess.run(qemu, capture_output=True, text=True, timeout=60).stderr
    assert line.removeprefix("prog: ").partition(". Is")[0] in real
    assert "Failed to get" in line
    assert f"Is another process using the image [{image}]?" in line
    holder.communicate(b"quit\n")


def test_the_lock_is_given_back_for_others(image: Path) -> None:
    assert run("-nographic", *disk(image), "-append", "poweroff").returncode == 0
    qemu_io = [needs.program("qemu-io"), "-f", "raw", "-c", "write 0 512", str(image)]
    assert subprocess.run(qemu_io, capture_output=True).returncode == 0


# Booting


def test_the_guest_writes_a_real_image(image: Path) -> None:
    done = run("-nographic", *disk(image), "-append", "write 3 A;flush;poweroff")
    assert done.returncode == 0, done.stdout + done.stderr
    assert image.read_bytes()[3 * 512 : 4 * 512] == b"A\n" * 256


def test_blockdev_iothread_and_json_make_the_same_disk(image: Path) -> None:
    node = f'{{"driver":"raw","node-name":"n","file":{{"driver":"file","filename":"{image}"}}}}'
    done = run(
        "-nographic", "-object", '{"qom-type":"iothread","id":"io"}', "-blockdev", node,
        "-device", '{"driver":"virtio-blk-device","drive":"n","iothread":"io","serial":"S1"}',
        "-append", "id;write 1 B;poweroff",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "S1" in done.stdout
    assert image.read_bytes()[512:1024] == b"B\n" * 256


def test_a_verdict_is_the_exit_status() -> None:
    assert run("-nographic", "-append", "poweroff 5").returncode == 5
    exit_device = ("-device", "isa-debug-exit,iobase=0xf4,iosize=4")
    assert run("-nographic", *exit_device, "-append", "poweroff 5").returncode == 11


def test_the_line_may_go_to_a_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run("-serial", f"file:{log}", "-append", "poweroff")
    assert done.stdout == ""
    assert log.read_text().startswith("miniqemu guest")


def test_the_line_may_be_a_socket(tmp_path: Path) -> None:
    needs.kvm()
    boot.built_elf()
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        process = subprocess.Popen([*PROGRAM, "-serial", f"unix:{path}"], env=ENVIRONMENT, cwd=ROOT)
        line, _ = listener.accept()
        with line, line.makefile("rwb", buffering=0) as talk:
            assert talk.readline().startswith(b"miniqemu guest")
            talk.write(b"poweroff 3\r")
            while talk.readline():
                pass
        assert process.wait(timeout=30) == 3


def test_nobody_at_the_lines_end_changes_nothing() -> None:
    assert run("-serial", "null", "-append", "poweroff 4").returncode == 4
    source, sink = os.pipe()
    os.close(source)
    done = run("-nographic", "-append", "poweroff 4", capture_output=False, stdout=sink)
    os.close(sink)
    assert done.returncode == 4


def test_the_pid_file_is_there_while_it_runs(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with at_shell("-pidfile", str(pidfile)) as session:
        assert int(pidfile.read_text()) == session.process.pid
        session.type("poweroff\r")
        assert session.wait() == 0
    assert not pidfile.exists()


def test_the_log_may_go_to_a_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run("-nographic", "-d", "exits", "-D", str(log), "-append", "poweroff")
    assert "cpu 0" in log.read_text()
    assert "cpu 0" not in done.stderr


# At the terminal


def at_shell(*arguments: str) -> TerminalSession:
    needs.kvm()
    boot.built_elf()
    session = TerminalSession([*PROGRAM, "-nographic", *arguments], env=ENVIRONMENT, cwd=ROOT)
    session.expect("> ")
    return session


def test_a_person_types_and_the_guest_answers() -> None:
    with at_shell() as session:
        session.type("help\r")
        assert "poweroff" in session.expect("> ")


def test_ctrl_a_x_ends_it_and_restores_the_terminal() -> None:
    with at_shell() as session:
        assert session.settings() != session.before
        session.type("\x01x")
        assert session.wait() == 0
        assert session.text.endswith("miniqemu: Terminated\r\n\r")
        assert session.settings() == session.before


def test_ctrl_c_is_a_key_for_the_guest() -> None:
    with at_shell() as session:
        session.type("\x03help\r")
        session.expect("poweroff")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_status_0_as_in_qemu(number: signal.Signals) -> None:
    with at_shell() as session:
        session.process.send_signal(number)
        assert session.wait() == 0
        assert f"miniqemu: terminating on signal {int(number)}" in session.text
        assert session.settings() == session.before


def test_a_paused_machine_prints_nothing_and_can_be_ended() -> None:
    needs.kvm()
    session = TerminalSession([*PROGRAM, "-nographic", "-S"], env=ENVIRONMENT, cwd=ROOT)
    with session:
        while session.settings() == session.before:
            assert session.process.poll() is None
        session.type("\x01x")
        assert session.wait() == 0
        assert "guest" not in session.text


def test_a_second_stop_and_continue_leaves_the_terminal_raw() -> None:
    with at_shell() as session:
        raw = session.settings()
        session.process.send_signal(signal.SIGSTOP)
        os.waitpid(session.process.pid, os.WUNTRACED)
        session.restore()
        session.process.send_signal(signal.SIGCONT)
        while session.settings()[:-1] != raw[:-1]:
            assert session.process.poll() is None
        session.type("help\r")
        session.expect("poweroff")
