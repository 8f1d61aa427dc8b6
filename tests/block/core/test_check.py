# SPDX-License-Identifier: GPL-2.0-only
"""What the core does around a driver's check, and around a new name for a backing file."""

from __future__ import annotations

import errno

import pytest

from block.core import backing, check
from block.core.error import BlockError
from block.core.node import BlockDriverState
from tests.support.drivers import Disk, Ram, ram_node


class Checked(Ram):
    """Memory that finds two leaks, and then, if told so, cannot go on."""

    format_name = protocol_name = "checked"

    async def co_check(self, bs: BlockDriverState, result: check.BdrvCheckResult, fix: int) -> None:
        result.leaks += 2
        assert bs.in_flight, "a drain would not wait for this check"
        await bs.opaque.note("check", fix)

    def change_backing_file(
        self, bs: BlockDriverState, backing_file: str, backing_fmt: str
    ) -> None:
        bs.opaque.log.append(("backing", backing_file, backing_fmt))


def test_the_driver_is_told_what_it_may_repair() -> None:
    disk = Disk()
    bs = ram_node(disk, driver=Checked)
    assert check.check(bs, check.FIX_LEAKS).leaks == 2
    assert disk.asked("check") == [("check", check.FIX_LEAKS)]
    bs.unref()


def test_what_was_found_before_a_failure_is_kept() -> None:
    disk, result = Disk(), check.BdrvCheckResult()
    bs = ram_node(disk, driver=Checked)
    disk.errors["check"] = BlockError(errno.EIO, "gone")

    with pytest.raises(BlockError, match="gone"):
        check.run_sync(bs.aio_context, lambda: check.co_check(bs, result))

    assert (result.leaks, bs.in_flight) == (2, 0)
    bs.unref()


def test_a_format_without_a_check_says_so() -> None:
    bs = ram_node(Disk())
    with pytest.raises(BlockError, match="does not support checks") as caught:
        check.check(bs)
    assert caught.value.errno == errno.ENOTSUP
    bs.unref()


def test_the_node_knows_its_new_backing_file() -> None:
    disk = Disk()
    bs = ram_node(disk, driver=Checked)
    backing.change_backing_file(bs, "base.raw", "raw")
    assert disk.asked("backing") == [("backing", "base.raw", "raw")]
    assert (bs.backing_file, bs.auto_backing_file, bs.backing_format) == (
        "base.raw",
        "base.raw",
        "raw",
    )
    bs.unref()


@pytest.mark.parametrize(
    ("name", "fmt", "message"),
    [("", "raw", "cannot be used without"), ("base.raw", "", "specified without backing format")],
)
def test_half_of_a_backing_file_is_refused(name: str, fmt: str, message: str) -> None:
    disk = Disk()
    bs = ram_node(disk, driver=Checked)
    with pytest.raises(BlockError, match=message):
        backing.change_backing_file(bs, name, fmt, require=True)
    assert disk.asked("backing") == []
    bs.unref()


def test_a_format_without_backing_files_says_so() -> None:
    bs = ram_node(Disk())
    with pytest.raises(BlockError, match="does not support changing the backing file"):
        backing.change_backing_file(bs, "base.raw", "raw")
    assert bs.backing_file == ""
    bs.unref()
