# SPDX-License-Identifier: GPL-2.0-only
"""How a node of a registered driver is opened (tests/samples/README.md).

R1  Every row of the registry with a module has a sample: its own, or, with create_opts, an image
    that is made here. One that has neither is an error that names it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

from block.core import registry
from block.core.driver import BlockDriver

SAMPLES = Path(__file__).parent.parent / "samples"
LENGTH = 1 << 20


class NoSample(Exception):
    """A registered driver that nobody knows how to open (R1)."""


class Sample:
    """One driver, and what opens a node of it.

    driver      its name, and which variant of it this is: "file aio=native"
    options     nested options of -blockdev, without a node name; takes an empty folder
    keeps_data  False: it forgets what is written
    close       after the last node is closed
    read_only   False: it cannot be opened read-only, so it is no backing file
    require     called by tests with a folder: skips them where the machine lacks something
    """

    def __init__(
        self,
        driver: str,
        options: Callable[[Path], dict[str, object]],
        keeps_data: bool = True,
        close: Callable[[], None] = lambda: None,
        read_only: bool = True,
        require: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        self.driver = driver
        self.options = options
        self.keeps_data = keeps_data
        self.close = close
        self.read_only = read_only
        self.require = require

    def __repr__(self) -> str:
        return f"<Sample {self.driver}>"


def registered_rows() -> list[registry.Row]:
    """The drivers that this version has."""
    return [row for row in registry.TABLE if row.module]


def samples_of(row: registry.Row) -> list[Sample]:
    """Finds or makes the samples of a driver, the plain one first. Raises NoSample."""
    path = SAMPLES / f"{row.name.replace('-', '_')}.py"
    if path.exists():
        return _from_module(row.name, path)
    if row.load().create_opts:
        return [Sample(row.name, lambda folder: created(row.load(), folder))]
    raise NoSample(
        f"driver '{row.name}' is registered, but has no create_opts "
        f"and no tests/samples/{path.name}"
    )


def _from_module(driver: str, path: Path) -> list[Sample]:
    spec = importlib.util.spec_from_file_location(f"tests.samples.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    require = getattr(module, "require", lambda variant, folder: None)
    return [
        Sample(
            f"{driver} {variant}".strip(),
            options,
            getattr(module, "KEEPS_DATA", True),
            getattr(module, "close", lambda: None),
            getattr(module, "READ_ONLY", True),
            partial(require, variant),
        )
        for variant, options in {"": module.options, **getattr(module, "VARIANTS", {})}.items()
    ]


def created(driver: BlockDriver, folder: Path) -> dict[str, object]:
    """Makes an image of a mebibyte in `folder`, and returns the options that open it."""
    filename = str(folder / f"image.{driver.format_name}")
    driver.create(filename, {"size": LENGTH})
    if driver.protocol_name is not None:
        return {"driver": driver.format_name, "filename": filename}
    below = {"driver": "file", "filename": filename}
    return {"driver": driver.format_name, "file": below}
