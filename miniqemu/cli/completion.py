# SPDX-License-Identifier: GPL-2.0-only
"""What the TAB key offers in bash and zsh: scripts for the three programs, made from their tables.

    python -m miniqemu.cli.completion [FOLDER]      make completions

R1  No option is typed twice: a command of miniqemu-img hands its options to `Words`, and here
    somebody else stands there and writes them down. The others have tables.
R2  Where an option takes one of a few words, those are offered, from the table that checks them.
    Else the shell offers files.

The scripts lie in completions/, a test makes them anew and compares, and installing the package
puts them where the shells look. Never imported by the programs.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from block.core.cache import AIO_MODES, CACHE_MODES, DISCARD_MODES
from block.core.flags import PREALLOC_MODES
from block.core.registry import format_names
from miniqemu.machine.debug import CATEGORIES

from . import options as machine
from .devices import MODELS
from .img import main as img
from .io import commands as io_commands
from .io import main as io

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, NoReturn

FOLDER = Path(__file__).parents[2] / "completions"
NOTE = "# Made by `make completions` from the program's own tables."

FORMATS = tuple(format_names())
FEW: dict[str, dict[str, tuple[str, ...]]] = {
    "": {
        "f": FORMATS, "F": FORMATS, "O": FORMATS, "t": tuple(CACHE_MODES),
        "T": tuple(CACHE_MODES), "output": ("human", "json"), "preallocation": PREALLOC_MODES,
    },
    "bench": {"i": tuple(AIO_MODES)},
    "check": {"r": ("leaks", "all")},
    "miniqemu": {
        "d": tuple(CATEGORIES), "device": tuple(MODELS), "M": ("microvm",),
        "machine": ("microvm",), "serial": ("stdio", "mon:stdio", "null", "none"),
    },
    "miniqemu-img": {"T": ()},
    "miniqemu-io": {
        "i": tuple(AIO_MODES), "d": tuple(DISCARD_MODES), "T": (),
        "c": tuple(command.name for command in io_commands.COMMANDS),
    },
}  # fmt: skip
"""By command, '' for all: option -> the words that it takes."""


class Option:
    """One option: what it is typed as, whether a value follows, and which."""

    def __init__(self, name: str, has_value: bool, values: Iterable[str] = ()) -> None:
        self.name = name
        self.has_value = has_value
        self.values = tuple(values)


class Seen(Exception):
    """The options that a command has: short ones as getopt has them, and the long ones."""


def _see(argv: list[str], short: str, long: Mapping[str, tuple[str, bool]]) -> NoReturn:
    """Stands in the place of Words (R1)."""
    raise Seen(short, long)


def options_of(command: str) -> list[Option]:
    """Those of a command of miniqemu-img."""
    module: Any = importlib.import_module(f"miniqemu.cli.img.{command}")
    words = module.Words
    module.Words = _see
    try:
        module.run("miniqemu-img", [command, "", ""])
    except Seen as seen:
        return table(command, *seen.args)
    finally:
        module.Words = words
    raise AssertionError(f"{command} reads no options")


def table(who: str, short: str, long: Mapping[str, tuple[str, bool]]) -> list[Option]:
    """Options as getopt has them."""
    few = {**FEW[""], **FEW.get(who, {})}
    letters = [letter for letter in short if letter != ":"]
    found = [Option(f"-{letter}", f"{letter}:" in short, few.get(letter, ())) for letter in letters]
    found += [
        Option(f"--{name}", has_value, few.get(known, ()))
        for name, (known, has_value) in long.items()
    ]
    return sorted(found, key=lambda option: option.name)


def machine_options() -> list[Option]:
    """Those of miniqemu. An argument such as 'kvm|tcg', or 'none', says its words itself; other
    single words stand for something, 'logfile' for one."""
    found = []
    for rows in machine.GROUPS.values():
        for row in rows:
            words = tuple(row.argument.split("|"))
            is_choice = words == ("none",) or (len(words) > 1 and all(map(str.isalnum, words)))
            for name in row.names:
                few = FEW["miniqemu"].get(name, words if is_choice else ())
                found.append(Option(f"-{name}", bool(row.argument), few))
    return sorted(found, key=lambda option: option.name)


# -- bash


def bash(program: str, top: list[Option], commands: Mapping[str, list[Option]]) -> str:
    """The script for bash; without commands the program takes files."""
    function = "_" + program.replace("-", "_")
    lines = [
        NOTE, "", f"{function}() {{", "    local cur=$2 prev=$3 command= word",
        "    # bash takes --output=json for three words.",
        "    if [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi",
        "    if [[ $cur == = ]]; then cur=; fi",
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        "        if [[ $word != -* ]]; then command=$word; break; fi",
        "    done", "    COMPREPLY=()", "    case $command in",
    ]  # fmt: skip
    for command, options in commands.items():
        lines += [f"    {command})", *_bash_case(options), "        return ;;"]
    lines += ["    esac", *_bash_case(top)]
    if commands:
        words = " ".join(commands)
        test = "if [[ ! $command && $cur != -* ]]; then"
        lines += [f"    {test}", f'        COMPREPLY=($(compgen -W "{words}" -- "$cur"))', "    fi"]
    lines += ["}", f"complete -o default -F {function} {program}"]
    return "\n".join(lines) + "\n"


def _bash_case(options: list[Option]) -> list[str]:
    """Lines that offer a value to the option before, or options."""
    by_values: dict[tuple[str, ...], list[str]] = {}
    for option in options:
        if option.has_value:
            by_values.setdefault(option.values, []).append(option.name)
    lines = ["        case $prev in"]
    for values, names in sorted(by_values.items(), reverse=True):
        words = " ".join(values)
        offer = f'COMPREPLY=($(compgen -W "{words}" -- "$cur")); ' if values else ""
        lines.append(f"        {'|'.join(names)}) {offer}return ;;")
    words = " ".join(option.name for option in options)
    offer = f'COMPREPLY=($(compgen -W "{words}" -- "$cur"))'
    return [*lines, "        esac", f"        if [[ $cur == -* ]]; then {offer}; fi"]


# -- zsh


def zsh(program: str, top: list[Option], commands: Mapping[str, list[Option]]) -> str:
    """The script for zsh."""
    lines = [f"#compdef {program}", NOTE, "", "local state line", "typeset -A opt_args"]
    if not commands:
        lines += _zsh_arguments("", top, "'*:file:_files'")
        return "\n".join(lines) + "\n"
    words = " ".join(commands)
    lines += _zsh_arguments("", top, f"'1:command:({words})' '*::argument:->rest'", "-C")
    lines += ["[[ $state == rest ]] || return", "case $words[1] in"]
    for command, options in commands.items():
        lines += [f"{command})", *_zsh_arguments("    ", options, "'*:file:_files'"), "    ;;"]
    return "\n".join([*lines, "esac"]) + "\n"


def _zsh_arguments(indent: str, options: list[Option], rest: str, flags: str = "") -> list[str]:
    specs = []
    for option in options:
        equals = "=" if option.has_value and option.name.startswith("--") else ""
        words = " ".join(option.values).replace(":", r"\:")
        action = f"({words})" if words else "_files"
        value = f":value:{action}" if option.has_value else ""
        specs.append(f"{indent}    '*{option.name}{equals}{value}' \\")
    return [f"{indent}_arguments {flags} \\".replace("  ", " "), *specs, f"{indent}    {rest}"]


# -- all of them


def scripts() -> dict[str, str]:
    """name of a file -> its text."""
    of_img = {name: options_of(name) for name in img.COMMANDS}
    programs: tuple[tuple[str, list[Option], dict[str, list[Option]]], ...] = (
        ("miniqemu", machine_options(), {"create": of_img["create"], "doctor": []}),
        ("miniqemu-img", table("miniqemu-img", "hVT:", img.LONG), of_img),
        ("miniqemu-io", table("miniqemu-io", io.SHORT, io.LONG), {}),
    )
    made = {}
    for program, top, commands in programs:
        made[f"bash/{program}"] = bash(program, top, commands)
        made[f"zsh/_{program}"] = zsh(program, top, commands)
    return made


def main(argv: list[str]) -> int:
    """Writes the scripts below a folder; the exit status."""
    folder = Path(argv[1]) if len(argv) > 1 else FOLDER
    for name, text in scripts().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
