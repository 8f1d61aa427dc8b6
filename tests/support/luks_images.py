# SPDX-License-Identifier: GPL-2.0-only
"""Encrypted images for tests: secrets that are there for a while, volumes that are made quickly."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import block
from block.core.backend import BlockBackend
from block.objects.secret import secret_create
from tests.support.qemu_tools import qemu

PASSWORD = "correct horse battery staple"
QUICK = {"iter-time": "10"}
NO_CLOCK = "Unable to get accurate CPU usage"  # qemu-img, where that clock goes in large steps


@contextmanager
def secret(name: str = "s", data: str = PASSWORD) -> Iterator[str]:
    """A secret that is there for the length of a test."""
    made = secret_create(name, data)
    try:
        yield name
    finally:
        made.unref()


def make_volume(path: Path, size: int, key_secret: str = "s", **options: str) -> None:
    """A LUKS volume; `options` with _ for -."""
    named: dict[str, Any] = {name.replace("_", "-"): text for name, text in options.items()}
    block.create(os.fspath(path), "luks", size, **{"key-secret": key_secret, **QUICK, **named})


def make_qcow2(path: Path, size: int, fmt: str = "luks", **options: Any) -> None:
    """An encrypted qcow2 image."""
    named: dict[str, Any] = {"encrypt.format": fmt, "encrypt.key-secret": "s"}
    if fmt == "luks":
        named["encrypt.iter-time"] = 0
    block.create(os.fspath(path), "qcow2", size, **named, **options)


def opened_qcow2(path: Path, key_secret: str = "s", **how: Any) -> BlockBackend:
    """Opens an encrypted qcow2 image."""
    options = {"encrypt.key-secret": key_secret, **how.pop("options", {})}
    return block.open(os.fspath(path), format="qcow2", options=options, **how)


def opened(path: Path, key_secret: str | None = "s", **how: Any) -> BlockBackend:
    """Opens a LUKS volume."""
    options = {} if key_secret is None else {"key-secret": key_secret}
    return block.open(os.fspath(path), format="luks", options=options, **how)


def qemu_with_secret(
    program: str, *words: str | Path, data: str = PASSWORD
) -> subprocess.CompletedProcess[str]:
    """Runs a tool of QEMU's that knows the secret `s`. What it could not measure it tries again."""
    first, *rest = words
    object_ = ("--object", f"secret,id=s,data={data}")
    line = (first, *object_, *rest) if program == "qemu-img" else (*object_, *words)
    done = qemu(program, *line)
    for _ in range(20):
        if NO_CLOCK not in done.stderr:
            break
        done = qemu(program, *line)
    return done


def described(path: Path, fmt: str = "luks") -> str:
    """A volume, or an encrypted qcow2 image, for --image-opts."""
    key = "key-secret" if fmt == "luks" else "encrypt.key-secret"
    pairs = {"driver": fmt, key: "s", "file.filename": os.fspath(path)}
    return ",".join(f"{name}={text}" for name, text in pairs.items())
