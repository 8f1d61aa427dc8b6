# SPDX-License-Identifier: GPL-2.0-only
"""What `--help`, `--version` and the command `help NAME` print."""

from __future__ import annotations

from miniqemu import QEMU_VERSION, VERSION

OPTIONS = """\
  --object OBJECTDEF   make an object that images refer to, such as
                       throttle-group,id=g,x-iops-total=100
  --image-opts         the file is given by options, name=value[,...]
  -c, --cmd STRING     do a command; may be given several times
  -f, --format FMT     the file's format; without it the file is looked at
  -r, --read-only      open it for reading only
  -s, --snapshot       write to a snapshot that is thrown away
  -n, --nocache        past the host's cache, short for -t none
  -C, --copy-on-read   keep what was read from the backing file
  -m, --misalign       buffers that are not aligned as O_DIRECT wants them
  -k, --native-aio     Linux AIO, short for -i native
  -i, --aio=MODE       who does the I/O: threads, native or io_uring
  -t, --cache=MODE     none, writeback, writethrough, directsync or unsafe
  -d, --discard=MODE   what a discard does: ignore or unmap
  -T, --trace ...      not available in this version
  -U, --force-share    open it although others may write to it
  -h, --help           print this and exit
  -V, --version        print the version and exit
"""


def usage(program: str) -> str:
    """What --help prints."""
    return (
        f"Usage: {program} [OPTIONS]... [-c STRING]... [file]\n"
        "QEMU Disk exerciser\n\n"
        f"{OPTIONS}\n"
        f"See '{program} -c help' for information on available commands.\n"
    )


def version(program: str) -> str:
    """What --version prints."""
    return (
        f"{program} version {QEMU_VERSION} (miniqemu {VERSION})\n"
        "Free software under the GNU GPL, version 2; there is no warranty"
    )


STATISTICS = """\
 -C, -- print the figures as numbers with commas between them
 -q, -- print no figures"""
VERIFY = " -P, -- what was read must be nothing but this byte\n -v, -- show what was read"
FILL = " -P, -- write this byte; without it 0xcd"
INVALID = " -i, -- count a request as invalid, and do not make it"

READ = f"""
 reads a range of bytes

 Example:
 'read -v 512 1k' - reads a kilobyte at 512 and shows it

 -b, -- from the VM state instead of the disk
 -l, -- with -P: as many bytes are compared
 -p, -- for old scripts; means nothing
 -s, -- with -P: where comparing begins
{VERIFY}
{STATISTICS}
"""
READV = f"""
 reads a range of bytes into several buffers

 Example:
 'readv -v 512 1k 1k' - reads two kilobytes at 512 and shows them

{VERIFY}
{STATISTICS}
"""
WRITE = f"""
 writes a range of bytes

 Example:
 'write -P 1 512 1k' - writes a kilobyte of ones at 512

 -b, -- to the VM state instead of the disk
 -c, -- compressed
 -f, -- durable when it is done (Force Unit Access)
 -n, -- with -z: fail where writing zeroes is no quicker than writing data
 -p, -- for old scripts; means nothing
{FILL}
 -s, -- write the content of a file, again and again
 -u, -- with -z: the room may be given back
 -z, -- write zeroes, in the driver's own way
{STATISTICS}
"""
WRITEV = f"""
 writes a range of bytes from several buffers

 Example:
 'writev 512 1k 1k' - writes two kilobytes at 512

 -f, -- durable when it is done (Force Unit Access)
{FILL}
{STATISTICS}
"""
AIO_READ = f"""
 sends a read off, and does not wait for it

 Example:
 'aio_read -v 512 1k' - shows a kilobyte when it has been read

 How it ends is printed when it ends. The command itself has succeeded when the
 request is on its way; 'aio_flush' waits for all of them.
{INVALID}
{VERIFY}
{STATISTICS}
"""
AIO_WRITE = f"""
 sends a write off, and does not wait for it

 Example:
 'aio_write 512 1k' - writes a kilobyte at 512

 How it ends is printed when it ends. The command itself has succeeded when the
 request is on its way; 'aio_flush' waits for all of them.
 -f, -- durable when it is done (Force Unit Access)
{INVALID}
{FILL}
 -u, -- with -z: the room may be given back
 -z, -- write zeroes, in the driver's own way
{STATISTICS}
"""
DISCARD = f"""
 tells the image that nobody needs a range any more

 Example:
 'discard 512 1k' - discards a kilobyte at 512

{STATISTICS}
"""
OPEN = """
 opens a file; all other commands are about it

 Example:
 'open -n -o driver=raw /tmp/data' - past the host's cache, as a raw image

 -r, -- for reading only
 -s, -- write to a snapshot that is thrown away
 -C, -- keep what was read from the backing file
 -n, -- past the host's cache, short for -t none
 -U, -- although others may write to it
 -k, -- Linux AIO, short for -i native
 -i, -- who does the I/O: threads, native or io_uring
 -t, -- none, writeback, writethrough, directsync or unsafe
 -d, -- what a discard does: ignore or unmap
 -o, -- options of the driver, name=value[,...]
"""
REOPEN = """
 changes how the file is open

 Example:
 'reopen -r' - from now on it can be read only

 -r, -- for reading only
 -w, -- for writing, too
 -c, -- another cache mode
 -o, -- other options of the driver, name=value[,...]
"""
SIGRAISE = """
 sends the program a signal by its number

 Example:
 'sigraise 15' - SIGTERM
"""
HELP = {
    "aio_read": AIO_READ, "aio_write": AIO_WRITE, "discard": DISCARD, "open": OPEN, "read": READ,
    "readv": READV, "reopen": REOPEN, "sigraise": SIGRAISE, "write": WRITE, "writev": WRITEV,
}  # fmt: skip
"""What `help NAME` adds to the line of usage."""
