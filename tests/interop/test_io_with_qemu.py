# SPDX-License-Identifier: GPL-2.0-only
"""One script, two programs: qemu-io and miniqemu-io say the same, and leave the same image.

Times and rates are blanked. Standard output and standard error are compared each by itself, since
both programs print one of them late.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from miniqemu.cli.io import main as io
from tests.support import needs
from tests.support.qemu_tools import qemu, qemu_done

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
FIGURES = re.compile(r"[\d:.]+( sec)? \(.* ops/sec\)")
NUMBERS = re.compile(r",\d+:\d\d:\d\d\.\d\d,[\d.]+,[\d.]+")

SCRIPTS = {
    "reads": "read 0 512 | r -P 1 0 512 | read -P 0 -s 512 0 512 | read -v 512 20 | read -C 0 512 |"
    " readv 0 1 2 3 | readv -v -P 1 0 3 | read -q 0 1M | read -p 0 0 | read 2M 1 | readv 2M 1",
    "writes": "write 0 64k | w -P 1 64k 512 | writev -P 2 1000 1 2 3 | write -f 70000 10 |"
    " write -z 4k 4k | write -z -u 128k 64k | write -C 256k 512 | write -q -s pattern 300k 1000 |"
    " writev -f 512k 1k | write 2M 1 | writev 2M 1 | write -z 2M 1 | flush | f",
    "allocation": "discard -q 512k 64k | map | write -q -z 256k 64k | map |"
    " write -q 64k 64k | write -q 512k 1 | map | alloc 0 1M | alloc 64k | a 2M |"
    " alloc 0 5M | discard 64k 64k | map | length | truncate 2M | length | map",
    "asynchronous": "aio_write -P 1 0 64k | aio_flush | aio_read -P 1 -v 0 20 | aio_flush |"
    " aio_write -P 2 64k 1k 2k | aio_flush | aio_read -C 0 512 | aio_flush |"
    " aio_read -P 9 0 4 | aio_flush | aio_read -q 0 1 | aio_flush | aio_read 9M 1 | aio_flush |"
    " aio_write 9M 1 | aio_flush | aio_read -i 0 1 | aio_write -i 0 1 | length",
    "about the image": "info | length | l | i | map | reopen -r | write 0 512 | reopen -w |"
    " write 0 512 | reopen -c none | read 0 1 | reopen -c writethrough | write 0 1 |"
    " reopen -o file.cache.no-flush=on,file.detect-zeroes=on | write 0 512",
    "mistakes": "write 0 3G | write -z 0 3G | truncate 5 6 7 |"
    " read | read 0 | read 0 1 2 | read -x 0 1 | read -P | read -P 300 0 1 |"
    " read -P 0x 0 1 | read -s 1 0 1 | read -P 0 -s 513 0 512 | read 1z 2 | read 9E 3 | read 0 3G |"
    " read -b 1 1 | read -b 0 1 | write -b -z 0 1 | write -f -c 0 1 | write -n 0 1 | write -u 0 1 |"
    " write -z -P 1 0 1 | write -s nosuch 0 1 | write -s /dev/null 0 1 | write -c 0 1 |"
    " readv 0 3G | readv 0 1G 1G | writev 0 | writev x 1 | writev 0 x | aio_write -z 0 1k 2k |"
    " aio_write -u 0 1 | aio_write -z -P 1 0 1 | aio_write -q | aio_read x 1 | aio_read 0 y |"
    " discard 0 | discard 0 4G | discard x 1 | discard -Z 0 1 | discard 9M 1",
    "more mistakes": "alloc x | alloc 0 y | alloc | alloc 1 2 3 | map x | truncate | truncate 2x |"
    " truncate -m foo 1 | truncate -k 1 | reopen -r -w | reopen -w -w | reopen -c foo |"
    " reopen -c none -o cache.direct=on | reopen -r -o read-only=on | reopen -o foo=1 | reopen x |"
    " reopen -o file.foo=1 | reopen -o file.locking=off | reopen -o force-share=on |"
    " break a | break a b | remove_break a | resume a | sigraise 100 | sigraise x | sleep x |"
    " sleep | help foo | help a b | open | open a | open -x | nosuch | close 1 | quit 1 | read 0 1",
    "help": "help | ? | help map | help length | help wait_break | help a",
    "one file after the other": "close | close | read 0 1 | open -o driver=raw,offset=512 pattern |"
    " length | read -v 0 4 | reopen -o offset=1k | length | read -v 0 4 | reopen -o size=512 |"
    " reopen -o file.locking=off | reopen -o file.driver=file | reopen -o foo.bar=1 | length |"
    " c | open -t bad pattern | open -d bad pattern | open -i bad pattern |"
    " open -r -o driver=raw pattern | length | write 0 1 | close | open -o driver=nope pattern |"
    " open nosuch",
}

LINES = """
-f nope disk | -t bad | -d bad | -i bad | -f raw --image-opts x | nosuch | -f raw | -c sleep | -c abc
--image-opts -c length driver=raw,file.filename=disk | --image-opts -c length foo
--image-opts -c length a=1,id=3 | --object nope | --object throttle-group | --object {"qom-type":"x"}
-U --image-opts -c length driver=raw,file.filename=disk,force-share=off | -U -r -f raw -c length disk
-s -r -f raw -c length -c info -c map disk | -s -r -f raw -c read~0~512 -c write~0~512 disk
--image-opts -s -c length driver=raw,file.filename=disk,read-only=on
-r -f raw -c length disk | -n -f raw -c length disk | -m -n -f raw -c length disk
-C -f raw -c length disk | -t none -d unmap -i threads -f raw -c length disk
--image-opts -c open -c length driver=raw,file.filename=disk
"""  # noqa: E501  # several commands a line

USAGE = "-Q | --foo | --cmd | --help=3 | --n -c | a b | --force-share=on | -c"

# What is said of options that cannot change, of children's, and of wrong values.
REOPENS = """
foo=1 | lazy-refcounts=foo | lazy-refcounts=on | node-name=x | driver=raw | driver=qcow2 | file=x
file.filename=x | file.foo=x | backing=x | backing.foo=x | cache.direct=foo | read-only=foo
detect-zeroes=foo | discard=foo | discard=unmap | force-share=on | force-share=off
l2-cache-size=foo | overlap-check=foo | cache-size=1,l2-cache-size=2 | encrypt.format=aes
cache.writeback=off | cache=none | snapshot=on | lazy-refcounts | nolazy-refcounts | id=x
a=1,b=2 | x | help | node-name= | driver= | size=3 | file.locking=off | file.driver=file
file.driver=raw | file.node-name=x | data-file=x | foo=1,l2-cache-size=foo
cache-clean-interval=5 | file.cache.direct=off
"""

BREAKS = (
    "write -q 0 64k | break write_aio A | aio_write -q 0 64k | wait_break A | read -q 0 1 |"
    " break read_aio B | aio_read -q 0 512 | wait_break B | resume B | resume A | aio_flush |"
    " resume A | break nothing A | break pwritev C | remove_break C | remove_break C |"
    " write -q 0 1k | read -P 0xcd 0 64k"
)


def blank(text: str) -> str:
    return NUMBERS.sub(",T", FIGURES.sub("T", text))


def split(script: str) -> list[str]:
    return [part.strip() for part in script.replace("\n", " | ").split("|") if part.strip()]


class Tools:
    """Runs a line with both tools, each in a folder of its own with the same files."""

    def __init__(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.theirs = path / "theirs"
        self.ours = path / "ours"
        self.monkeypatch = monkeypatch
        self.capfd = capfd
        for folder in (self.theirs, self.ours):
            folder.mkdir()
            (folder / "pattern").write_bytes(bytes(range(256)) * 4)

    def image(self, fmt: str, *options: str, size: str = "1M") -> None:
        for folder in (self.theirs, self.ours):
            qemu_done("qemu-img", "create", "-q", "-f", fmt, *options, "disk", size, cwd=folder)

    def both(self, *words: str) -> tuple[tuple[int, str, str], tuple[int, str, str]]:
        """(status, output, complaints) of ours, and of theirs."""
        done = qemu("qemu-io", *words, cwd=self.theirs)
        self.monkeypatch.chdir(self.ours)
        status = io.main(["qemu-io", *words])
        out, err = self.capfd.readouterr()
        ours = status, blank(out), err
        return ours, (done.returncode, blank(done.stdout), done.stderr)

    def same_image(self, fmt: str) -> bool:
        disks = self.theirs / "disk", self.ours / "disk"
        return qemu("qemu-img", "compare", "-f", fmt, "-F", fmt, *disks).returncode == 0


@pytest.fixture
def tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Tools:
    return Tools(tmp_path, monkeypatch, capfd)


def chain(script: str) -> list[str]:
    return [word for command in split(script) for word in ("-c", command)]


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_does_and_says_the_same(tools: Tools, fmt: str, name: str) -> None:
    tools.image(fmt)
    ours, theirs = tools.both("-f", fmt, *chain(SCRIPTS[name]), "disk")
    assert ours == theirs
    assert tools.same_image(fmt)


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_requests_stand_at_break_points_and_go_on(tools: Tools, fmt: str) -> None:
    tools.image(fmt)
    ours, theirs = tools.both("-f", fmt, *chain(BREAKS), "blkdebug::disk")
    assert "blkdebug: Suspended request 'A'\n" in theirs[1]
    assert ours == theirs
    assert tools.same_image(fmt)


def test_a_reopen_says_what_cannot_change(tools: Tools) -> None:
    """One line after the other on the same image, which nothing but the allowed ones changes."""
    tools.image("qcow2")
    for folder in (tools.theirs, tools.ours):
        words = ("create", "-q", "-f", "qcow2", "-b", "disk", "-F", "qcow2", "top")
        qemu_done("qemu-img", *words, cwd=folder)
    script = " | ".join(f"reopen -o {options}" for options in split(REOPENS))
    ours, theirs = tools.both("-f", "qcow2", *chain(script), "top")
    assert ours[2].splitlines() == theirs[2].splitlines()
    assert ours == theirs


@pytest.mark.parametrize(
    ("options", "script"),
    [
        ("driver=raw,file.filename=disk",
         "offset=512 | size=1k | offset=2M | size=2M | filename=x | file.aio=native | size=x"),
        ("driver=preallocate,file.driver=file,file.filename=disk",
         "prealloc-size=64k | prealloc-align=7 | prealloc-align=4k | prealloc-size=x | foo=1"),
        ("driver=null-co,size=1M", "size=1M | size=2 | foo=1 | read-zeroes=on"),
        ("driver=blkdebug,image.driver=file,image.filename=disk", "image=x | foo=1 | config=x"),
    ],
    ids=["raw", "preallocate", "null-co", "blkdebug"],
)  # fmt: skip
def test_other_drivers_say_it_in_the_same_words(tools: Tools, options: str, script: str) -> None:
    tools.image("raw")
    lines = [f"reopen -o {change} | length" for change in split(script)]
    ours, theirs = tools.both("--image-opts", *chain(" | ".join(lines)), options)
    assert ours == theirs


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_zeroes_without_a_buffer_are_as_many_as_one_likes(tools: Tools, fmt: str) -> None:
    tools.image(fmt, size="8G")
    script = (
        "write -P 1 5G 1M | write -zn 0 3G | write -znu 1G 5G | write -zn 512 3G |"
        " aio_write -z 0 6G | aio_flush | write -zn 0 9G | write -zn 6G 3G | write -zn 0 7E |"
        " write -z 0 3G | write -n 0 3G | write -zn 0 9E | discard 0 3G | read -P 0 5G 1M"
    )
    ours, theirs = tools.both("-f", fmt, *chain(script), "disk")
    assert ours == theirs
    assert tools.same_image(fmt)


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_snapshot_takes_all_writes(tools: Tools, fmt: str) -> None:
    tools.image(fmt)
    script = "write -P 1 0 64k | read -P 1 0 1k | map | info | length | alloc 0 1M | write 9M 1"
    ours, theirs = tools.both("-s", "-f", fmt, *chain(script), "disk")
    assert ours == theirs
    script = f"open -s -o driver={fmt} disk | write 0 1k | close | open -o driver={fmt} disk | map"
    ours, theirs = tools.both(*chain(f"{script} | read -P 0 0 64k"))
    assert ours == theirs
    assert ours[0] == 0, "nothing of it is left"


def test_clusters_are_written_compressed(tools: Tools) -> None:
    tools.image("vmdk", "-o", "subformat=streamOptimized")
    script = "write -c -P 7 0 64k | write -c -P 8 64k 64k | write -c 1 1 | map"
    ours, theirs = tools.both("-f", "vmdk", *chain(script), "disk")
    assert ours == theirs
    assert tools.same_image("vmdk")


def test_a_script_on_standard_input_runs_through_a_link_of_qemu_s_name(
    tools: Tools, tmp_path: Path
) -> None:
    tools.image("raw")
    needs.program("qemu-io")
    link = tmp_path / "qemu-io"
    link.symlink_to(ROOT / "bin/miniqemu-io")
    script = tmp_path / "script"
    script.write_text("write -P 1 512 1k\n\nread -q -P 2 0 1\nnosuch\nreopen -r -w\nlength")
    answers = []
    for command, folder in (
        (["qemu-io"], tools.theirs),
        ([sys.executable, str(link)], tools.ours),
    ):
        with script.open() as lines:
            done = subprocess.run(
                [*command, "-f", "raw", "disk"],
                stdin=lines, capture_output=True, text=True, timeout=60, check=False, cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        answers.append((done.returncode, blank(done.stdout), done.stderr))
    assert answers[0] == answers[1]
    assert answers[0][0] == 1
    assert tools.same_image("raw")


@pytest.mark.parametrize("line", split(LINES))
def test_a_command_line_is_answered_in_the_same_words(tools: Tools, line: str) -> None:
    tools.image("raw")
    ours, theirs = tools.both(*(word.replace("~", " ") for word in line.split(" ")))
    assert ours == theirs


@pytest.mark.parametrize("line", split(USAGE))
def test_a_command_line_that_is_none_shows_the_usage(tools: Tools, line: str) -> None:
    ours, theirs = tools.both(*line.split(" "))
    assert ours[0] == theirs[0] == 1
    assert ours[2] == theirs[2]
    assert ours[1].split("\n")[:2] == theirs[1].split("\n")[:2]
