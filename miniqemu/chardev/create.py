# SPDX-License-Identifier: GPL-2.0-only
"""From the text behind '-serial' to a character device (QEMU: qemu_chr_parse_compat).

Each kind's module is imported when it is asked for: a socket costs a start nothing that has none.
"""

from __future__ import annotations

from block.core.error import BlockError
from block.core.keyval import parse_opts
from block.core.options import parse_bool

from .base import Chardev, ChardevError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from block.aio.context import AioContext

# What else QEMU has behind -serial: words, and beginnings of words.
QEMU_WORDS = ("vc", "pty", "msmouse", "wctablet", "braille", "testdev", "con")
QEMU_PREFIXES = (
    "vc:", "con:", "pipe:", "tcp:", "telnet:", "tn3270:", "websocket:", "udp:", "/dev/", "chardev:",
)  # fmt: skip
UNIX_OPTIONS = ("path", "server", "wait")
UNIX_QEMU_OPTIONS = (
    "abstract", "delay", "logappend", "logfile", "mux", "nodelay", "reconnect", "telnet", "tight",
    "tls-authz", "tls-creds", "tn3270", "websocket",
)  # fmt: skip


def new_chardev(
    spec: str, ctx: AioContext, on_quit: Callable[[], None], program: str, escape: int
) -> Chardev:
    """The character device that `spec` describes. Raises ChardevError.

    'mon:' in front puts the escape key there, whose x calls `on_quit`; Ctrl-C then goes to
    the guest instead of ending the program.
    """
    kind = spec.removeprefix("mon:")
    base = _new_base(kind, ctx, signals=kind == spec)
    if kind == spec:
        return base
    from .mux import MuxChardev

    return MuxChardev(ctx, base, on_quit, program=program, escape=escape)


def _new_base(kind: str, ctx: AioContext, signals: bool) -> Chardev:
    if kind == "null":
        return Chardev()
    if kind == "stdio":
        from .stdio import StdioChardev

        return StdioChardev(ctx, signals)
    if kind.startswith("file:"):
        from .file import FileChardev

        return FileChardev(ctx, kind.removeprefix("file:"))
    if kind.startswith("unix:"):
        return _new_unix(kind.removeprefix("unix:"), ctx)
    if kind in QEMU_WORDS or kind.startswith(QEMU_PREFIXES):
        raise ChardevError(f"'{kind}' is not supported by miniqemu (stdio, file:, unix:, null are)")
    raise ChardevError(f"'{kind}' is not a valid char driver")


def _new_unix(text: str, ctx: AioContext) -> Chardev:
    from .unix import UnixChardev, UnixServer

    try:
        options = parse_opts(text, "path")
        for name in options:
            _check_unix_option(name)
        server = parse_bool("server", options.get("server", "off"))
        wait = parse_bool("wait", options.get("wait", "on"))
    except BlockError as error:
        raise ChardevError(str(error)) from None
    path = str(options.get("path", ""))
    if not path:
        raise ChardevError("unix: needs the path of a socket")
    if not server and "wait" in options:
        raise ChardevError("'wait' option is incompatible with socket in client connect mode")
    return UnixServer(ctx, path, wait) if server else UnixChardev(ctx, path)


def _check_unix_option(name: str) -> None:
    if name in UNIX_QEMU_OPTIONS:
        raise ChardevError(f"Parameter '{name}' is not supported by miniqemu")
    if name not in UNIX_OPTIONS:
        raise ChardevError(f"Invalid parameter '{name}'")
