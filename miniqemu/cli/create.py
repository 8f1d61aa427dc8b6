# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu create`: what `miniqemu-img create` does, for those who have only the one command.

miniqemu create [-q] [-u] [-f FMT] [-b BACKING -F FMT] [-o OPTIONS] [--object OBJECT] FILE [SIZE]
miniqemu create --help
"""

from __future__ import annotations

from .getopt import MissingArgument, UnknownOption, Words
from .img.common import HELP
from .img.create import SHORT
from .img.main import run_command
from .output import write

USAGE = """\
usage: {0} create [-q] [-u] [-f fmt] [-b backing_file [-F backing_fmt]] [-o options]
       [--object objectdef] filename [size]
Makes a disk image, as `qemu-img create` does

  '-h', '--help'     display this help and exit
  '-f' fmt           the image's format: raw (default), qcow2, qed, vmdk or luks
  '-b' backing_file  the image whose data shows where the new one has none
  '-F' backing_fmt   the format of the backing file
  '-o' options       options of the format, name=value[,...]; '-o help' lists them
  '--object' object  a secret that the options name: secret,id=s0,file=password.txt
  '-u'               do not open the backing file: it need not be there
  '-q'               print nothing but errors
  size               in bytes, or with one of the suffixes k, M, G, T, P and E; without it
                     the image is as big as its backing file
"""


def main(program: str, words: list[str]) -> int:
    """Runs the command; the exit status."""
    if wants_help(words):
        return write(1, USAGE.format(program))
    return run_command(program, ["create", *words])


def wants_help(words: list[str]) -> bool:
    """Whether the options ask how they are used, as far as they can be read."""
    try:
        return any(option == "h" for option, _ in Words(["create", *words], SHORT, HELP))
    except (UnknownOption, MissingArgument):
        return False
