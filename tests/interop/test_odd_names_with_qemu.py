# SPDX-License-Identifier: GPL-2.0-only
"""Files with odd names: each command of our tools and of QEMU's takes them, and says the same.

A name with a colon begins with ./ or file:, as both take what stands before one for a protocol.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from miniqemu.cli.img import main as img
from miniqemu.cli.io import main as io
from tests.support import needs

pytestmark = pytest.mark.full

NAMES = {
    "a colon": "./a:b",
    "a protocol": "file:a:b",
    "spaces": " two  words ",
    "a newline": "new\nline",
    "no UTF-8": os.fsdecode(b"\xff\xfe,\xc3"),
    "commas": "a,b,,c=d",
    "quotes": 'it\'s "so" \\ {}%s',
    "a suffix": "json.qcow2",
}
# One line after the other, on the same image; N is its name.
LINES = """
img create -f qcow2 N 1M
img create -f qcow2 -b N -F qcow2 Ntop
io -c 'write -P 1 0 64k' -c length -c info N
io -c 'open Ntop' -c 'write -P 2 64k 1k' -c map -c close -c 'open N nope'
img info --backing-chain Ntop
img info --output=json --backing-chain Ntop
img map --output=json Ntop
img map Ntop
img check N
img measure -O qcow2 N
img snapshot -c N N
img snapshot -d nope N
img bitmap --add N N
img bitmap --clear N nope
img info --output=json Ntop
img amend -o lazy_refcounts=on N
img amend -o size=1 N
img resize N +1M
img resize N 1k
img convert -O raw Ntop Nraw
img convert -B N -F foo -O qcow2 Ntop Nnew
img convert -B Nnope -F raw -O qcow2 Ntop Nnew
img compare Ntop Nraw
img compare N Nraw
img compare N Nnope
img dd if=N of=Ndd bs=64k count=1
img dd if=Nnope of=Ndd
img bench -c 1 -d 1 -q Nnope
img commit Ntop
img rebase -u -b Nraw -F raw Ntop
img rebase -b Nnope -F raw Ntop
img create -f qcow2 -b Nnope -F raw Nnew
img convert -f qed -O raw Nraw Nnew
img check Nnope
img create -f vmdk N.vmdk 1M
img info N.vmdk/nope
io -c length Nnope
"""
# Figures, dates and what a header is called that only we name.
MOVES = re.compile(
    rb"[\d:.]+( sec)? \(.* ops/sec\)|cid: \d+|#block\d+| \(header.magic\)"
    rb"|\d+-\d\d-\d\d .*|\"date-.*"
)


def theirs(folder: Path, program: str, words: list[str]) -> tuple[int, bytes, bytes]:
    command = [needs.program(f"qemu-{program}"), *words]
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )
    return done.returncode, MOVES.sub(b"", done.stdout), MOVES.sub(b"", done.stderr)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_command_takes_it_and_says_the_same(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], name: str
) -> None:
    sys.stderr.reconfigure(errors="surrogateescape")  # type: ignore[attr-defined]  # capfd's
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    done = 0
    for line in LINES.strip().splitlines():
        program, *words = shlex.split(line)
        quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        named = [
            word.replace("open N", f"open {quoted}" + " ")
            if word.startswith("open ")
            else re.sub(r"^((?:backing_file|if|of)=)?N", lambda at: (at[1] or "") + name, word)
            for word in words
        ]
        answer = theirs(folders[1], program, named)
        with contextlib.chdir(folders[0]):
            status = (img if program == "img" else io).main([f"qemu-{program}", *named])
        out, err = capfdbinary.readouterr()
        assert (status, MOVES.sub(b"", out), MOVES.sub(b"", err)) == answer, line
        done += status == 0
    assert done > 15
    assert sorted(map(os.fsencode, os.listdir(folders[0]))) == sorted(
        map(os.fsencode, os.listdir(folders[1]))
    )
