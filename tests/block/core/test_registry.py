# SPDX-License-Identifier: GPL-2.0-only
"""The table of drivers (block/core/registry.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from block.core import registry
from block.core.error import BlockError
from block.core.registry import Row


@pytest.fixture
def needy() -> Iterator[Row]:
    """A driver whose library nobody has."""
    row = Row("needy", "no_such_library_anywhere", "D", needs="pip install no-such-library")
    registry.add_row(row)
    yield row
    registry.remove_row(row)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"", "raw"),
        (b"hello", "raw"),
        (b"QFI\xfb\0\0\0\1", "qcow"),
        (b"QFI\xfb\0\0\0\2", "qcow2"),
        (b"QFI\xfb\0\0\0\3", "qcow2"),
        (b"QED\0", "qed"),
        (b"KDMV", "vmdk"),
        (b"# Disk DescriptorFile\nversion=1\nCID=1\n", "vmdk"),
        (b"# Any comment\r\n   \r\n # no comment", "raw"),
        (b"# Any comment\r\n   \r\n#\nversion=2\n", "vmdk"),
        (b"# Disk DescriptorFile\n", "raw"),
        (b"# Disk DescriptorFile\n\nversion=1\n", "raw"),
        (b"version=1", "raw"),
        (b"#" * 502 + b"\nversion=1", "raw"),  # as far as the probe reads
        (b"version=1\n", "vmdk"),
        (b"version=3\r\n", "vmdk"),
        (b"version=4\n", "raw"),
        (b"#!/bin/sh\n", "raw"),
        (bytes(64) + b"\x7f\x10\xda\xbe", "vdi"),
        (b"vhdxfile", "vhdx"),
        (b"LUKS\xba\xbe\0\1", "luks"),
    ],
)
def test_the_highest_score_names_the_format(head: bytes, name: str) -> None:
    assert registry.probe_all(head.ljust(512, b"\0")) == name


def test_every_driver_with_a_module_loads_and_bears_its_name() -> None:
    for name in registry.format_names():
        driver = registry.find_format(name)
        row = registry.find_row(name)
        assert driver.format_name == name
        assert row is not None
        assert bool(driver.protocol_name) == bool(row.protocol)
        assert registry.find_format(name) is driver


def test_an_unknown_driver_is_named() -> None:
    with pytest.raises(BlockError, match=r"^Unknown driver 'nosuch'$"):
        registry.find_format("nosuch")


def test_a_format_that_this_version_lacks_says_so() -> None:
    row = Row("later", magic=((0, b"LATER", 100),))
    with pytest.raises(BlockError, match=r"^Driver 'later' is not available in this version"):
        row.load()


def test_a_missing_library_says_what_to_install(needy: Row) -> None:
    message = (
        "Driver 'needy' needs the Python module 'no_such_library_anywhere': "
        "pip install no-such-library"
    )
    with pytest.raises(BlockError) as caught:
        registry.find_format("needy")
    assert str(caught.value) == message


def test_a_prefix_chooses_the_protocol() -> None:
    assert registry.find_protocol("file:a").format_name == "file"
    assert registry.find_protocol("null-co://").format_name == "null-co"
    assert registry.find_protocol("plain.img").format_name == "file"
    assert registry.find_protocol("./a:b").format_name == "file"
    assert registry.find_protocol("a:b", allow_prefix=False).format_name == "file"


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(BlockError, match=r"^Unknown protocol 'a'$"):
        registry.find_protocol("a:b")


def test_a_name_that_belongs_to_a_device_is_that_device() -> None:
    assert registry.find_protocol("/dev/null").format_name == "host_device"
    assert registry.find_protocol("host_device:x").format_name == "host_device"


def test_a_name_that_cannot_be_a_path_is_no_device(tmp_path: Path) -> None:
    assert not registry.is_host_device("a\0b")
    assert not registry.is_host_device(os.fspath(tmp_path))
