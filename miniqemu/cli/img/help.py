# SPDX-License-Identifier: GPL-2.0-only
"""What `miniqemu-img --help` and `--version` print."""

from __future__ import annotations

from block.core.registry import format_names
from miniqemu import QEMU_VERSION, VERSION

SYNTAX = (
    "amend [--object objectdef] [--image-opts] [-p] [-q] [-f fmt] [-t cache] [--force]"
    " -o options filename",
    "bench [-c count] [-d depth] [-f fmt] [--flush-interval=flush_interval] [-i aio] [-n]"
    " [--no-drain] [-o offset] [--pattern=pattern] [-q] [-s buffer_size] [-S step_size] [-t cache]"
    " [-w] [-U] filename",
    "bitmap (--merge SOURCE | --add | --remove | --clear | --enable | --disable)..."
    " [-b source_file [-F source_fmt]] [-g granularity] [--object objectdef]"
    " [--image-opts | -f fmt] filename bitmap",
    "check [--object objectdef] [--image-opts] [-q] [-f fmt] [--output=ofmt] [-r [leaks | all]]"
    " [-T src_cache] [-U] filename",
    "commit [--object objectdef] [--image-opts] [-q] [-f fmt] [-t cache] [-b base] [-r rate_limit]"
    " [-d] [-p] filename",
    "compare [--object objectdef] [--image-opts] [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s]"
    " [-U] filename1 filename2",
    "convert [--object objectdef] [--image-opts] [--target-image-opts] [--target-is-zero]"
    " [--bitmaps] [-U] [-C] [-c] [-p] [-q] [-n] [-f fmt] [-t cache] [-T src_cache] [-O output_fmt]"
    " [-B backing_file [-F backing_fmt]] [-o options] [-l snapshot_param] [-S sparse_size]"
    " [-r rate_limit] [-m num_coroutines] [-W] [--salvage] filename [filename2 [...]]"
    " output_filename",
    "create [--object objectdef] [-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u]"
    " [-o options] filename [size]",
    "dd [--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks] [skip=blocks]"
    " if=input of=output",
    "info [--object objectdef] [--image-opts] [-f fmt] [--output=ofmt] [--backing-chain] [-U]"
    " filename",
    "map [--object objectdef] [--image-opts] [-f fmt] [--start-offset=offset] [--max-length=len]"
    " [--output=ofmt] [-U] filename",
    "measure [--output=ofmt] [-O output_fmt] [-o options]"
    " [--size N | [--object objectdef] [--image-opts] [-f fmt] [-l snapshot_param] filename]",
    "snapshot [--object objectdef] [--image-opts] [-U] [-q]"
    " [-l | -a snapshot | -c snapshot | -d snapshot] filename",
    "rebase [--object objectdef] [--image-opts] [-U] [-q] [-f fmt] [-t cache] [-T src_cache] [-p]"
    " [-u] -b backing_file [-F backing_fmt] filename",
    "resize [--object objectdef] [--image-opts] [-f fmt] [--preallocation=prealloc] [-q]"
    " [--shrink] filename [+ | -]size",
)
PARAMETERS = """
Words that stand for something:
  filename     an image: a path, 'protocol:...' or 'json:{...}'; with '--image-opts' options
               such as 'driver=qcow2,file.filename=disk.qcow2'
  fmt          a format; without it the image is looked at
  cache        'writeback' (default), 'none', 'writethrough', 'directsync', 'unsafe' (default
               of convert); '-T' says it for images that are only read
  size         in bytes, or with one of the suffixes k, M, G, T, P and E
  options      of a format, name=value[,...]; '-o help' lists them

Options that several commands have:
  -p           show how far the work is; SIGUSR1 shows it once, without '-p', too
  -q           print nothing but errors
  -U           open an image that another program may write at the same time
  -u           create, rebase: do not open the backing file; it is taken to be as it was
  -S size      convert: runs of zeroes this long (4k) become holes; 0: none do
  -m number    convert: so many parts under way at once (8)
  -W           convert: write the parts in any order
  -n           convert: the target is there already
  --output     'human' (default) or 'json'
"""


def version_text(program: str) -> str:
    """Which QEMU's tool this is like, and who we are."""
    return f"{program} version {QEMU_VERSION} (miniqemu {VERSION})\n"


def help_text(program: str) -> str:
    """All commands, and what their words mean (help)."""
    commands = "".join(f"  {line}\n" for line in SYNTAX)
    return (
        f"{version_text(program)}"
        f"usage: {program} [standard options] command [command options]\n"
        "QEMU's tool for disk images, in Python\n\n"
        "    '-h', '--help'       display this help and exit\n"
        "    '-V', '--version'    output version information and exit\n\n"
        f"Command syntax:\n{commands}{PARAMETERS}\n"
        f"Supported formats: {' '.join(format_names())}\n"
    )
