# SPDX-License-Identifier: GPL-2.0-only
"""The trees in which a driver is moved, made of any driver's node ("it").

R1  A tree is a function from a folder and a way to make "its" options to the options of the root.
    So a driver that is registered later is in every tree without a change here.
R2  A tree that stands on what its bottom holds needs a driver that keeps data; where it cannot be
    made, `lacks` says why, and the table shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from block.core import registry
from block.core.open import blockdev_add
from tests.conformance.samples import Sample
from tests.support.drivers import backend_on

Options = dict[str, object]
OVER = {"size": 1 << 18, "cluster_size": 4096}
CHAIN = 5
LIMIT = 5000  # requests a second: less than the users want, so some always wait


class Site:
    """Where a tree is built: makes a new folder for each image, and "it" as often as asked.

    afterwards  what is to be called when the tree is closed
    """

    def __init__(self, folder: Path, sample: Sample) -> None:
        self.folder = folder
        self.sample = sample
        self.afterwards: list[Callable[[], None]] = []
        self._count = 0

    def close(self) -> None:
        """Takes back what the tree needed, once its nodes are closed."""
        for undo in self.afterwards:
            undo()
        self.sample.close()

    def new_folder(self) -> Path:
        self._count += 1
        made = self.folder / str(self._count)
        made.mkdir()
        return made

    def it(self) -> Options:
        """Options of a node of the driver that is tested; each call makes another one."""
        return self.sample.options(self.new_folder())

    def qcow2_file(self) -> str:
        """The name of a new, empty qcow2 image."""
        filename = str(self.new_folder() / "overlay.qcow2")
        registry.find_format("qcow2").create(filename, dict(OVER))
        return filename

    def raw_file(self, length: int) -> Options:
        """Options of a raw image, all zeroes."""
        filename = self.new_folder() / "raw.img"
        with filename.open("wb") as file:
            file.truncate(length)
        return {"driver": "file", "filename": str(filename)}


class Tree:
    """A tree: its name, how it is made, and which drivers it is made of."""

    def __init__(
        self,
        name: str,
        build: Callable[[Site], Options],
        needs: tuple[str, ...] = (),
        on_data: bool = True,
        read_only: bool = False,
    ) -> None:
        self.name = name
        self.build = build
        self.needs = needs
        self.on_data = on_data
        self.read_only = read_only

    def __repr__(self) -> str:
        return f"<Tree {self.name}>"

    def lacks(self, sample: Sample) -> str:
        """Says why this tree cannot be made of a driver, "" if it can (R2)."""
        for name in self.needs:
            row = registry.find_row(name)
            if row is None or not row.module:
                return f"there is no driver '{name}'"
        if self.on_data and not sample.keeps_data:
            return f"{sample.driver} keeps no data"
        if self.read_only and not sample.read_only:
            return f"{sample.driver} cannot be read-only"
        return ""


def alone(site: Site) -> Options:
    """The node by itself."""
    return site.it()


def below_qcow2(site: Site) -> Options:
    """A qcow2 image that lies in it: its tables and its data are what the node holds."""
    it = site.it()
    image = Path(site.qcow2_file()).read_bytes()
    blk = backend_on(blockdev_add({**it, "node-name": "filled"}))
    try:
        blk.pwrite(0, image)
        blk.flush()
    finally:
        blk.unref()
    return {"driver": "qcow2", "file": it}


def quorum_of_three(site: Site) -> Options:
    """Three of them, which must agree."""
    return {
        "driver": "quorum",
        "vote-threshold": 2,
        "children": [site.it(), site.it(), site.it()],
    }


def verified(site: Site) -> Options:
    """It, and a raw file that gets the same requests and must give the same answers."""
    it = site.it()
    blk = backend_on(blockdev_add({**it, "node-name": "measured"}))
    length = blk.length
    blk.unref()
    return {"driver": "blkverify", "raw": site.raw_file(length), "test": it}


def throttled_chain(site: Site) -> Options:
    """A limit, an image, and a backing chain of five with it at the bottom."""
    from block.objects.throttle_group import throttle_group_create
    from block.objects.throttle_options import config_of

    options = site.it()
    for _ in range(CHAIN):
        file = {"driver": "file", "filename": site.qcow2_file()}
        options = {"driver": "qcow2", "file": file, "backing": options}
    group = throttle_group_create("conformance", config_of({"iops-total": LIMIT}))
    site.afterwards.append(group.unref)
    return {"driver": "throttle", "throttle-group": "conformance", "file": options}


TREES = [
    Tree("alone", alone, on_data=False),
    Tree("qcow2 over it", below_qcow2, ("qcow2",)),
    Tree("quorum of three", quorum_of_three, ("quorum",)),
    Tree("blkverify of raw and it", verified, ("blkverify",)),
    Tree("throttle, qcow2, chain of 5", throttled_chain, ("throttle", "qcow2"), read_only=True),
]
