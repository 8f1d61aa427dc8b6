# SPDX-License-Identifier: GPL-2.0-only
"""The commands of miniqemu-io, one run of the program after the other."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from unittest.mock import Mock

import pytest

from block.core import report
from miniqemu.cli.io import main as io
from miniqemu.cli.io.commands import COMMANDS, find
from miniqemu.cli.io.texts import HELP

KIB = 1024
FIGURES = re.compile(r"[\d:.]+( sec)? \(.* ops/sec\)")


class Run:
    """Runs the program on one raw disk of 1 MiB."""

    def __init__(self, disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.disk = disk
        self.capfd = capfd

    def line(self, *words: str) -> tuple[int, str, str]:
        status = io.main(["prog", *words])
        out, err = self.capfd.readouterr()
        return status, FIGURES.sub("T", out), err

    def commands(self, *commands: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        chain = [word for command in commands for word in ("-c", command)]
        return self.line("-f", "raw", *options, *chain, str(self.disk))


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(KIB * KIB))
    return Run(disk, capfd)


def test_what_is_written_is_read_and_shown(run: Run) -> None:
    assert run.commands("write -P 65 512 18", "read -v -P 65 512 18") == (
        0,
        "wrote 18/18 bytes at offset 512\n18 bytes, 1 ops; T\n"
        f"00000200:  {'41 ' * 16} {'A' * 16}\n00000210:  41 41  AA\n"
        "read 18/18 bytes at offset 512\n18 bytes, 1 ops; T\n",
        "",
    )
    assert run.disk.read_bytes()[510:532] == bytes(2) + b"A" * 18 + bytes(2)


def test_a_pattern_that_is_not_there_fails_the_run(run: Run) -> None:
    status, out, _ = run.commands("read -q -P 1 -s 512 -l 1k 4k 2k", "write -q 0 1")
    assert (status, out) == (1, "Pattern verification failed at offset 4608, 1024 bytes\n")


def test_only_a_part_is_compared(run: Run) -> None:
    run.commands("write -P 7 1k 1k")
    assert run.commands("read -q -P 7 -s 1k -l 1k 0 4k")[0] == 0
    assert run.commands("read -q -P 7 -s 1k -l 1025 0 4k")[0] == 1


def test_several_buffers_are_one_request(run: Run) -> None:
    status, out, _ = run.commands("writev -P 3 100 1 2 3", "readv -P 3 100 2 4")
    assert status == 0
    assert "wrote 6/6 bytes at offset 100\n6 bytes, 1 ops; T\n" in out
    assert run.disk.read_bytes()[99:107] == b"\0" + b"\3" * 6 + b"\0"


def test_a_file_fills_what_is_written_again_and_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pattern").write_bytes(b"abc")
    assert run.commands(f"write -q -s {tmp_path}/pattern 0 8")[0] == 0
    assert run.disk.read_bytes()[:9] == b"abcabcab\0"


def test_zeroes_and_discards(run: Run) -> None:
    assert run.commands("write -q 0 64k", "write -q -z -u 0 4k", "discard -q 8k 4k")[0] == 0
    content = run.disk.read_bytes()
    assert content[: 4 * KIB] == bytes(4 * KIB)
    assert content[4 * KIB : 8 * KIB] == b"\xcd" * (4 * KIB)


@pytest.mark.parametrize("command", ["aio_write -P 9 512 512", "aio_write -z 512 1k"])
def test_an_asynchronous_request_is_reported_when_it_ends(run: Run, command: str) -> None:
    status, out, _ = run.commands(command, "length", "aio_flush", "aio_read -q 0 512")
    assert status == 0
    assert out.startswith("1 MiB\n")  # said before the request could end
    assert "wrote" in out.split("1 MiB\n")[1]


@pytest.mark.parametrize("wait", ["aio_flush", "sleep 1"])
def test_who_waits_lets_requests_end(run: Run, wait: str) -> None:
    # A disk without a file: its requests need one pass of the loop, and no time.
    words = ["--image-opts", "-c", "aio_read 0 1", "-c", wait, "-c", "length", "driver=null-co"]
    assert run.line(*words) == (
        0,
        "read 1/1 bytes at offset 0\n1 bytes, 1 ops; T\n1 GiB\n",
        "",
    )


def test_a_break_point_stops_a_request_until_it_is_resumed(run: Run) -> None:
    chain = ["break write_aio A", "aio_write -q 0 1", "wait_break A", "length", "resume A"]
    words = [word for command in chain for word in ("-c", command)]
    assert run.line("-f", "raw", *words, f"blkdebug::{run.disk}") == (
        0,
        "blkdebug: Suspended request 'A'\n1 MiB\nblkdebug: Resuming request 'A'\n",
        "",
    )


def test_nobody_waits_for_a_break_point_where_there_can_be_none(run: Run) -> None:
    status, out, err = run.commands("wait_break A", "resume A", "break write_aio A")
    assert status == 1
    assert out == (
        "Could not resume request: Operation not supported\n"
        "Could not set breakpoint: Operation not supported\n"
    )
    assert err.endswith("knows break points: there is no blkdebug\n")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("read 0", "bad argument count 1 to read, expected at least 2 arguments"),
        ("r", "bad argument count 0 to r, expected at least 2 arguments"),
        ("length 1", "bad argument count 1 to length, expected 0 arguments"),
        ("alloc 1 2 3", "bad argument count 3 to alloc, expected between 1 and 2 arguments"),
        ("read -x 0 1", "read: invalid option -- 'x'"),
        ("read 0 -P", "read: option requires an argument -- 'P'"),
    ],
)
def test_words_that_are_missing_or_too_many_are_counted(
    run: Run, command: str, expected: str
) -> None:
    status, _, err = run.commands(command)
    assert (status, err) == (1, f"{expected}\n")


def test_an_asynchronous_failure_fails_nobody(run: Run) -> None:
    assert run.commands("aio_read 2M 1", "aio_flush", "aio_write 2M 1", "aio_flush") == (
        0,
        "readv failed: Input/output error\naio_write failed: Input/output error\n",
        "",
    )


def test_asynchronous_reads_are_verified_and_shown(run: Run) -> None:
    status, out, _ = run.commands("aio_read -q -P 1 0 4", "aio_flush", "aio_read -v 0 4", "sleep 0")
    assert status == 0
    assert out.startswith("Pattern verification failed at offset 0, 4 bytes\n00000000:  00 00")


def test_invalid_requests_are_counted_only(run: Run) -> None:
    assert run.commands("aio_read -i 0 1", "aio_write -i 0 1")[1] == (
        "injecting invalid read request\ninjecting invalid write request\n"
    )


def test_length_map_and_alloc(run: Run) -> None:
    assert run.commands("truncate 1536", "length", "alloc 0 4k", "map") == (
        0,
        "1.500 KiB\n1536/1536 bytes allocated at offset 0 bytes\n"
        "1.500 KiB (0x600) bytes     allocated at offset 0 bytes (0x0)\n",
        "",
    )
    assert run.disk.stat().st_size == 1536


def test_a_snapshot_is_thrown_away(run: Run) -> None:
    assert run.commands("write -q 0 1", "read -q -P 0xcd 0 1", options=("-s",)) == (0, "", "")
    assert run.disk.read_bytes() == bytes(KIB * KIB)


def test_a_file_can_be_closed_and_opened(run: Run) -> None:
    opened = f"open -o driver=raw {run.disk}"
    assert run.commands("close", "length", opened, "length", opened) == (
        1,
        "1 MiB\n",
        "no file open, try 'help open'\nprog: file open already, try 'help close'\n",
    )


def test_reopened_for_reading_only_it_is_not_written(run: Run) -> None:
    assert run.commands("reopen -r", "write -q 0 1", "reopen -w", "write -q 1 1") == (
        1,
        "",
        "prog: Block node is read-only\n",
    )
    assert run.disk.read_bytes()[:3] == b"\0\xcd\0"


def test_every_option_is_taken(run: Run) -> None:
    options = ("-m", "-C", "-t", "writethrough", "-d", "unmap", "-i", "threads")
    assert run.commands("write -q -f 1 2", options=("-m", "-t", "none", "-d", "ignore"))[0] == 0
    assert run.commands("read -q -P 0xcd 1 2", options=options)[0] == 0
    assert run.commands("read -q -P 0xcd 1 2", options=("-r", "-U"))[0] == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-t", "x"], "prog: Invalid cache option: x\n"),
        (["-d", "x"], "prog: Invalid discard option: x\n"),
        (["-i", "x"], "prog: Invalid aio option: x\n"),
        (["-f", "raw", "--image-opts", "a"], "prog: --image-opts and -f are mutually exclusive\n"),
        (["-T", "x"], "prog: option '--trace' is not available in this version of miniqemu\n"),
        (
            ["--object", "tls-creds-psk,id=a"],
            "prog: object 'tls-creds-psk' is not available in this version of miniqemu\n",
        ),
        (
            ["--object", "secret,id=a,data=x", "--object", "throttle-group,id=a"],
            "prog: attempt to add duplicate property 'a' to object (type 'container')\n",
        ),
        (["--object", "x"], "prog: Parameter 'qom-type' does not accept value 'x'\n"),
        (["--object", "throttle-group"], "prog: Parameter 'id' is missing\n"),
        (["-f", "raw", "/no"], "prog: can't open device /no: Could not open '/no': "
         "No such file or directory\n"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_told_and_nothing_is_done(
    run: Run, words: list[str], complaint: str
) -> None:
    assert run.line(*words, "-c", "abort") == (1, "", complaint)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-Q"], "prog: invalid option -- 'Q'\n"),
        (["--foo"], "prog: unrecognized option '--foo'\n"),
        (["--cmd"], "prog: option '--cmd' requires an argument\n"),
        (["--help=3"], "prog: option '--help' doesn't allow an argument\n"),
        (["--n"], "prog: option '--n' is ambiguous; possibilities: '--nocache' '--native-aio'\n"),
        (["a", "b"], ""),
    ],
)
def test_who_asks_for_what_is_not_there_sees_the_usage(
    run: Run, words: list[str], complaint: str
) -> None:
    status, out, err = run.line(*words)
    assert (status, err) == (1, complaint)
    assert out.startswith("Usage: prog [OPTIONS]... [-c STRING]... [file]\n")


def test_a_group_of_limits_serves_the_image(run: Run) -> None:
    name = f"driver=throttle,throttle-group=g,file.driver=raw,file.file.filename={run.disk}"
    group = ("--object", "throttle-group,id=g,x-iops-total=1000000")
    assert run.line(*group, "--image-opts", "-c", "length", name) == (0, "1 MiB\n", "")


def test_lines_from_a_pipe_are_done_up_to_quit(run: Run) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"length\nbad\n\nquit\nlength\n")
    os.close(writer)
    before = os.dup(0)
    os.dup2(reader, 0)
    try:
        done = run.line("-f", "raw", str(run.disk))
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(reader)
    assert done == (1, "prog> 1 MiB\nprog> prog> prog> ", 'command "bad" not found\n')


def test_quit_ends_the_chain(run: Run) -> None:
    assert run.commands("length", "q now", "length") == (0, "1 MiB\n", "")


def test_every_command_is_found_by_its_names_and_explained(run: Run) -> None:
    assert [row.name for row in COMMANDS] == sorted(row.name for row in COMMANDS)
    assert find("") is None
    for row in COMMANDS:
        assert find(row.name) is row
        assert not row.altname or find(row.altname) is row
    assert {row.name for row in COMMANDS if row.short} - {"truncate"} <= HELP.keys()
    assert run.line("-c", "help r")[1].startswith("r [-abCqv] [-P pattern")
    assert run.line("-c", "help nothing") == (1, "command nothing not found\n", "")


def test_what_this_process_lacks_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "open_file", Mock(side_effect=OSError(errno.EMFILE, "")))
    assert run.commands("length") == (1, "", "prog: Too many open files\n")


def test_the_process_is_left_as_it_was(run: Run) -> None:
    before = report.program, report.on_line
    run.line("--version")
    assert (report.program, report.on_line) == before
