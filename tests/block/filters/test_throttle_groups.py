# SPDX-License-Identifier: GPL-2.0-only
"""The driver `throttle`: nodes change their group, groups come and go, and what shows through."""

from __future__ import annotations

from pathlib import Path

import pytest

import block
from block.aio.context import AioContext
from block.core import flags as f
from block.core.error import BlockError
from block.core.open import bdrv_open
from block.core.reopen import reopen
from block.objects import throttle_group
from block.objects.throttle_options import config_of
from tests.support.drivers import Disk, backend_on, ram_node
from tests.support.throttled import (
    PERM,
    Load,
    group,
    main,
    member_of,
    rets,
    run,
    submit_both,
    throttled,
    world,
)

__all__ = ["main", "world"]


# -- reopen


def test_a_node_changes_its_group(main: AioContext) -> None:
    with group("a", iops_total=1) as a, group("b", iops_total=20) as b, throttled("a") as disk:
        assert disk.bs is not None
        outcomes = submit_both(disk, 6)
        reopen(disk.bs, {"throttle-group": "b"})
        assert rets(outcomes) == {0}
        assert (a.members, b.members) == ([], [member_of(disk)])
        assert disk.bs.options["throttle-group"] == "b"
        load = Load(disk, 60)
        run(main, load)
        assert 1200 <= load.done <= 1203


def test_a_reopen_to_no_group_changes_nothing() -> None:
    with group("a", iops_total=1) as a, throttled("a") as disk:
        assert disk.bs is not None
        with pytest.raises(BlockError, match="Throttle group 'b' does not exist"):
            reopen(disk.bs, {"throttle-group": "b"})
        assert a.members == [member_of(disk)]
        assert member_of(disk).io_limits_disabled == 0


# -- groups come and go


def test_a_group_lives_as_long_as_somebody_holds_it() -> None:
    with group() as slow:
        disk = throttled()
        assert slow.refcnt == 2
    assert throttle_group.throttle_group_exists("slow")
    disk.close()
    assert not throttle_group.throttle_group_exists("slow")


def test_a_name_is_taken_once() -> None:
    with group(), pytest.raises(BlockError, match="A group with this name already exists"):
        throttle_group.throttle_group_create("slow", throttle_group.ThrottleConfig())


def test_limits_that_contradict_each_other_make_no_group() -> None:
    with pytest.raises(BlockError, match="cannot be used at the same time"):
        throttle_group.throttle_group_create("g", config_of({"iops-total": 1, "iops-read": 1}))
    assert throttle_group.groups == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Please specify a throttle group"),
        ({"throttle-group": "none"}, "Throttle group 'none' does not exist"),
        ({"throttle-group": ""}, "Throttle group '' does not exist"),
    ],
)
def test_a_node_needs_a_group_that_there_is(options: dict[str, object], message: str) -> None:
    whole = {"driver": "throttle", "file": {"driver": "null-co"}, **options}
    with pytest.raises(BlockError) as refused:
        block.open(options=whole)
    assert str(refused.value) == message


def test_a_node_needs_a_file() -> None:
    with group(), pytest.raises(BlockError, match='must be specified for "file"'):
        block.open(options={"driver": "throttle", "throttle-group": "slow"})


# -- the filter is otherwise invisible


def test_length_limits_and_flags_are_those_of_the_disk_below(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(bytes(1 << 20))
    options = {"driver": "throttle", "throttle-group": "slow"}
    with (
        group(),
        block.open(options={**options, "file": {"driver": "file", "filename": str(image)}}) as disk,
    ):
        assert disk.bs is not None
        assert disk.bs.file is not None
        below = disk.bs.file.bs
        assert disk.length == 1 << 20
        assert disk.bs.bl.fast_read == below.bl.fast_read < f.REQUEST_MAX_BYTES
        assert below.supported_zero_flags
        assert disk.bs.supported_zero_flags & below.supported_zero_flags
        assert disk.bs.block_status(0, 4096)[3] is below


def test_what_the_disk_below_makes_durable_needs_no_flush() -> None:
    with group(), throttled() as disk:
        assert disk.bs is not None
        assert disk.bs.supported_write_flags & f.REQ_FUA


def test_a_disk_that_grows_below_grows_above() -> None:
    below = ram_node(Disk(1 << 20), name="below")
    with group():
        over = {"driver": "throttle", "throttle-group": "slow", "file": "below"}
        disk = backend_on(bdrv_open(options=over), PERM)
        other = backend_on(below)
        other.truncate(2 << 20)
        assert disk.length == 2 << 20
        other.close()
        disk.close()
