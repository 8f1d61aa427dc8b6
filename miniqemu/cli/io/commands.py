# SPDX-License-Identifier: GPL-2.0-only
"""The commands of miniqemu-io: one row each (cmdinfo_t of qemu-io-cmds.c).

R1  A row says all that can be said without doing it: names, how many words, what it needs. The
    function is `do_NAME` in the row's module, which is imported when the command is given.
R2  The rows are sorted by name: `help` prints them so.

Texts of `help NAME` are in texts.py. Plain data; any thread.
"""

from __future__ import annotations

from block.core import flags as f

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = -1
WRITES = f.BLK_PERM_WRITE
RESIZES = f.BLK_PERM_WRITE | f.BLK_PERM_RESIZE


class Command:
    """One command; `least` and `most` count the words behind its name, MANY: no limit.

    `short` are its options as getopt has them, `perm` is what it needs of the image, and
    `without_file` says that it does without one.
    """

    __slots__ = (
        "altname", "args", "least", "module", "most", "name", "oneline", "perm", "short",
        "without_file",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        module: str,
        oneline: str,
        args: str | None = None,
        least: int = 0,
        most: int = 0,
        *,
        altname: str = "",
        short: str = "",
        perm: int = 0,
        without_file: bool = False,
    ) -> None:
        assert not (perm and without_file), "no permission without a file"
        self.name = name
        self.module = module
        self.oneline = oneline
        self.args = args
        self.least = least
        self.most = most
        self.altname = altname
        self.short = short
        self.perm = perm
        self.without_file = without_file

    def usage(self, name: str) -> str:
        """The line that tells how it is used, under one of its names (help_oneline)."""
        words = "" if self.args is None else f"{self.args} "
        return f"{name} {words}-- {self.oneline}"


COMMANDS = (
    Command("abort", "process", "simulate a program crash using abort(3)", without_file=True),
    Command("aio_flush", "asynchronous", "completes all outstanding aio requests"),
    Command(
        "aio_read", "asynchronous", "asynchronously reads a number of bytes",
        "[-Ciqv] [-P pattern] off len [len..]", 2, MANY, short="CP:iqv",
    ),
    Command(
        "aio_write", "asynchronous", "asynchronously writes a number of bytes",
        "[-Cfiquz] [-P pattern] off len [len..]", 2, MANY, short="CfiqP:uz", perm=WRITES,
    ),
    Command(
        "alloc", "image", "checks if offset is allocated in the file",
        "offset [count]", 1, 2, altname="a",
    ),
    Command(
        "break", "breaks", "sets a breakpoint on event and tags the stopped request as tag",
        "event tag", 2, 2,
    ),
    Command("close", "opening", "close the current open file", altname="c"),
    Command(
        "discard", "write", "discards a number of bytes at a specified offset",
        "[-Cq] off len", 2, MANY, altname="d", short="Cq", perm=WRITES,
    ),
    Command("flush", "image", "flush all in-core file state to disk", altname="f"),
    Command(
        "help", "process", "help for one or all commands",
        "[command]", 0, 1, altname="?", without_file=True,
    ),
    Command("info", "image", "prints information about the current file", altname="i"),
    Command("length", "image", "gets the length of the current file", altname="l"),
    Command("map", "image", "prints the allocated areas of a file", ""),
    Command(
        "open", "opening", "open the file specified by path",
        "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]", 1, MANY,
        altname="o", short="snCro:ki:t:d:U", without_file=True,
    ),
    Command("quit", "process", "exit the program", None, 0, MANY, altname="q", without_file=True),
    Command(
        "read", "read", "reads a number of bytes at a specified offset",
        "[-abCqv] [-P pattern [-s off] [-l len]] off len", 2, MANY,
        altname="r", short="bCl:pP:qs:v",
    ),
    Command(
        "readv", "read", "reads a number of bytes at a specified offset",
        "[-Cqv] [-P pattern] off len [len..]", 2, MANY, short="CP:qv",
    ),
    Command("remove_break", "breaks", "remove a breakpoint by tag", "tag", 1, 1),
    Command(
        "reopen", "opening", "reopens an image with new options",
        "[(-r|-w)] [-c cache] [-o options]", 0, MANY, short="c:o:rw",
    ),
    Command("resume", "breaks", "resumes the request tagged as tag", "tag", 1, 1),
    Command("sigraise", "process", "raises a signal", "signal", 1, 1, without_file=True),
    Command(
        "sleep", "process", "waits for the given value in milliseconds", None, 1, 1,
        without_file=True,
    ),
    Command(
        "truncate", "image", "truncates the current file at the given offset",
        "[-m prealloc_mode] off", 1, 3, altname="t", short="m:", perm=RESIZES,
    ),
    Command("wait_break", "breaks", "waits for the suspension of a request", "tag", 1, 1),
    Command(
        "write", "write", "writes a number of bytes at a specified offset",
        "[-bcCfnquz] [-P pattern | -s source_file] off len", 2, MANY,
        altname="w", short="bcCfnpP:qs:uz", perm=WRITES,
    ),
    Command(
        "writev", "write", "writes a number of bytes at a specified offset",
        "[-Cfq] [-P pattern] off len [len..]", 2, MANY, short="CfqP:", perm=WRITES,
    ),
)  # fmt: skip


def find(name: str) -> Command | None:
    """The command with a name or a short name (find_command)."""
    return next((row for row in COMMANDS if name in (row.name, row.altname) and name), None)


def starting_with(text: str) -> Iterator[str]:
    """The names that begin so (qemuio_complete_command)."""
    return (row.name for row in COMMANDS if row.name.startswith(text))
