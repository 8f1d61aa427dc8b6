# SPDX-License-Identifier: GPL-2.0-only
"""What TAB offers: the scripts are up to date, and bash and zsh offer what they should."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from miniqemu.cli import completion
from tests.support import needs

ROOT = Path(__file__).parents[2]


def test_the_scripts_are_made_from_the_tables_as_they_are() -> None:
    for name, text in completion.scripts().items():
        found = (completion.FOLDER / name).read_text()
        assert found == text, f"{name} is old: run `make completions`"


ASK = """
source "$1"; shift
function=_${1//-/_}
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
$function "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
echo "${COMPREPLY[*]}"
"""


def bash_offers(*words: str) -> list[str]:
    """What bash would show behind these words, of which the last is being typed."""
    script = completion.FOLDER / "bash" / words[0]
    command = [needs.program("bash"), "--norc", "-c", ASK, "ask", os.fspath(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["miniqemu-img", "con"], ["convert"]),
        (["miniqemu-img", "-V", "me"], ["measure"]),
        (["miniqemu-img", "info", "--out"], ["--output"]),
        (["miniqemu-img", "info", "--output", "="], ["human", "json"]),
        (["miniqemu-img", "info", "--output", "=", "j"], ["json"]),
        (["miniqemu-img", "convert", "-O", "qc"], ["qcow2"]),
        (["miniqemu-img", "check", "-r", ""], ["leaks", "all"]),
        (["miniqemu-img", "convert", "-r", ""], []),
        (["miniqemu-img", "info", "disk"], []),
        (["miniqemu-io", "-c", "writ"], ["write", "writev"]),
        (["miniqemu-io", "--read"], ["--read-only"]),
        (["miniqemu", "-nogr"], ["-nographic"]),
        (["miniqemu", "-accel", ""], ["kvm", "tcg"]),
        (["miniqemu", "-kernel", ""], []),
        (["miniqemu", "-device", "isa"], ["isa-debug-exit"]),
        (["miniqemu", "-d", "ex"], ["exits"]),
        (["miniqemu", "-serial", "n"], ["null", "none"]),
        (["miniqemu", "doc"], ["doctor"]),
        (["miniqemu", "create", "-f", "qe"], ["qed"]),
    ],
)
def test_bash_offers(words: list[str], offered: list[str]) -> None:
    assert bash_offers(*words) == offered


def test_every_command_of_img_has_its_options() -> None:
    for command in completion.img.COMMANDS:
        assert "-h" in bash_offers("miniqemu-img", command, "-"), command


@pytest.mark.full
@pytest.mark.parametrize("program", ["miniqemu", "miniqemu-img", "miniqemu-io"])
def test_zsh_understands_the_scripts(program: str) -> None:
    script = completion.FOLDER / "zsh" / f"_{program}"
    subprocess.run([needs.program("zsh"), "-n", script], timeout=60, check=True)


@pytest.mark.full
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("miniqemu-img conv", "miniqemu-img convert "),
        ("miniqemu-img info --output=j", "miniqemu-img info --output=json "),
        ("miniqemu-img convert -O qc", "miniqemu-img convert -O qcow2 "),
        ("miniqemu-io --read", "miniqemu-io --read-only "),
        ("miniqemu -nogr", "miniqemu -nographic "),
        ("miniqemu -device vir", "miniqemu -device virtio-blk-device "),
        ("miniqemu -serial mo", "miniqemu -serial mon:stdio "),
        ("miniqemu doc", "miniqemu doctor "),
        ("miniqemu create -f qc", "miniqemu create -f qcow2 "),
    ],
)
def test_zsh_completes(typed: str, becomes: str) -> None:
    assert zsh_completes(typed) == becomes


CAPTURE = r"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PROMPT= fpath=($1 \$fpath); autoload -U compinit; compinit -u -D; stty -echo"
zpty -w z 'shown() { print -r -- "<$BUFFER>"; zle kill-whole-line }; zle -N shown'
zpty -w z 'bindkey "^X" shown; setopt no_always_last_prompt; print rea""dy'
zpty -r z said '*ready*'
zpty -w -n z "$2"$'\t\x18'
zpty -r z said '*<*>*'
print -r -- "$said"
zpty -d z
"""


def zsh_completes(typed: str) -> str:
    """What stands on the line after TAB."""
    command = [needs.program("zsh"), "-f", "-c", CAPTURE, "capture", completion.FOLDER / "zsh"]
    done = subprocess.run([*command, typed], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.rpartition("<")[2].partition(">")[0]
