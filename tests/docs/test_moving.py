# SPDX-License-Identifier: GPL-2.0-only
"""The page about moving: its picture shows the real orders, its table the registered drivers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from block.aio.iothread import IOThread
from block.core import edge
from block.core import flags as f
from docs.hooks import moving as hook
from docs.tools.moving import ATTACH, DETACH
from tests.conformance import hooks
from tests.conformance.cells import samples
from tests.conformance.samples import Sample
from tests.support.drivers import (
    Clusters,
    Disk,
    Log,
    Overlay,
    Pass,
    make_node,
    put_below,
    ram_node,
)

ROOT = Path(__file__).parent.parent.parent


def test_the_orders_in_the_picture_are_those_of_a_move() -> None:
    """The same tree: a filter over a format with a file and a backing file."""
    top = put_below(make_node(Overlay(), Clusters(1 << 20)), ram_node(Disk()), "file")
    base = put_below(make_node(Pass(), Log()), ram_node(Disk()), "file")
    edge.set_backing_hd(top, base)
    base.unref()
    throttle = put_below(make_node(Pass(), Log()), top, "file", f.BDRV_CHILD_FILTERED)
    assert top.file is not None
    assert base.file is not None
    nodes = {"throttle": throttle, "qcow2": top, "top.qcow2": top.file.bs,
             "raw": base, "base.raw": base.file.bs}  # fmt: skip
    left: list[str] = []
    came: list[str] = []
    for name, bs in nodes.items():
        bs.add_aio_context_notifier(
            lambda ctx, name=name: came.append(name),  # type: ignore[misc]  # a lambda's default
            lambda name=name: left.append(name),  # type: ignore[misc]  # a lambda's default
        )
    with IOThread("elsewhere") as elsewhere:
        throttle.set_aio_context(elsewhere.ctx)
        orders = tuple(left), tuple(came)
        throttle.unref()
    assert orders == (DETACH, ATTACH)


def test_the_findings_on_the_page_name_lines_with_a_mistake() -> None:
    page = (ROOT / "docs/moving.md").read_text()
    named = re.findall(r"\((tests/conformance/broken\.py):(\d+)\)", page)
    assert len(named) == 3
    for path, number in named:
        assert "# MISTAKE" in (ROOT / path).read_text().splitlines()[int(number) - 1]


def test_the_table_has_a_line_for_each_sample() -> None:
    lines = hook.on_page_markdown("[[moving:table]]").splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == list(samples())


@pytest.mark.parametrize(
    ("driver", "had", "idle", "children"),
    [
        ("raw", [], set(), []),
        ("quorum", ["detach_aio_context", "attach_aio_context"], set(), ["children.0"]),
        ("file aio=io_uring", ["detach_aio_context", "attach_aio_context"], {"notifier"}, []),
        ("throttle", list(hooks.HOOKS), {"timer"}, []),
    ],
)
def test_what_a_driver_moves_is_found_out(
    driver: str, had: list[str], idle: set[str], children: list[str], tmp_path: Path
) -> None:
    sample = samples()[driver]
    sample.require(tmp_path)
    moves = hooks.moves_of(sample)
    assert moves.hooks == had
    assert idle <= moves.idle
    assert moves.children[:1] == children


def test_a_driver_that_this_machine_lacks_is_no_reason_to_have_no_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lacking = Sample("lacking", lambda folder: {"driver": "gone"})
    monkeypatch.setattr(hooks, "samples", lambda: {"lacking": lacking})
    assert "not on the machine that built this page" in hook.on_page_markdown("[[moving:table]]")


def test_the_page_is_built_without_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None; sys.path.insert(0, '.');"
        "from docs.hooks.moving import replacement; print(replacement('table'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "| `raw` |" in done.stdout


def test_the_trees_are_listed_with_their_descriptions() -> None:
    text = hook.on_page_markdown("[[moving:trees]]")
    assert "* **alone**: The node by itself." in text
    assert hook.on_page_markdown("[[moving:moves]] times") == "1,000 times"
