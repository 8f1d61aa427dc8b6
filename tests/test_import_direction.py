# SPDX-License-Identifier: GPL-2.0-only
"""The arrows of the design: who may import whom. Read from the sources, nothing is run.

    miniqemu -> block.{formats,protocols,filters} -> block.core -> block.aio

Imports for types only (under TYPE_CHECKING) may go up: they make no module depend on another.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The longest prefix that fits a module is its room; a higher number may import a lower one.
LEVELS = {
    "block.aio": 0,
    "block.core": 1,
    "block.crypto": 1,
    "block.wire": 1,
    "block.objects": 1,
    "block.qapi": 1,
    "block.lean": -1,
    "block.trace": 0,
    "block.formats": 2,
    "block.protocols": 2,
    "block.filters": 2,
    "block.testing": 2,
    "block.jobs": 3,
    "block.ops": 3,
    "block.export": 3,
    "block": 3,
    "miniqemu": 4,
}
DRIVER_ROOMS = ("block.formats", "block.protocols", "block.filters")
# What costs a program's start dearly, and may be imported only inside of functions.
DEAR = ("asyncio", "construct", "dataclasses", "logging", "argparse", "ssl", "subprocess")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(
    body: list[ast.stmt], package: str = "", top_level_only: bool = False
) -> Iterator[tuple[str, int]]:
    """Yields (module, line) of all imports that happen when code of a package runs."""
    for node in body:
        if is_for_types(node):
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno
        elif top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for field in ("body", "orelse", "finalbody", "handlers"):
            inner = getattr(node, field, [])
            if isinstance(inner, list):
                yield from imports(inner, package, top_level_only)


def room(module: str) -> str:
    fits = [name for name in LEVELS if module == name or module.startswith(name + ".")]
    return max(fits, key=len, default="")


def driver(module: str) -> str:
    """Returns the driver that a module belongs to: the name after the room."""
    return ".".join(module.split(".")[:3])


@pytest.mark.parametrize("path", sources("block") + sources("miniqemu"), ids=module_name)
def test_imports_go_down_only(path: Path) -> None:
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for imported, line in imports(ast.parse(path.read_text()).body, package):
        if not room(imported):
            continue
        where = f"{path.relative_to(ROOT)}:{line} imports {imported}"
        assert LEVELS[room(imported)] <= LEVELS[room(module)], where
        if room(module) in DRIVER_ROOMS and room(imported) in DRIVER_ROOMS:
            assert driver(imported) == driver(module), f"{where}: drivers never import each other"


@pytest.mark.parametrize("path", sources("block"), ids=module_name)
def test_the_block_layer_imports_nothing_dear_at_its_start(path: Path) -> None:
    if module_name(path) in ("block.aio.embed", "block.for_asyncio"):
        return
    # A format's layout comes with its driver, when that has won (DESIGN.md, rule 7).
    rooms = ("block.formats", "block.crypto")
    is_layout = room(module_name(path)) in rooms and path.stem == "layout"
    for imported, line in imports(ast.parse(path.read_text()).body, top_level_only=True):
        name = imported.split(".")[0]
        if is_layout and name == "construct":
            continue
        assert name not in DEAR, f"{path.relative_to(ROOT)}:{line} imports {name} at the start"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import os", ["os"]),
        ("from block.core import io", ["block.core.io"]),
        ("from . import a", ["x.y.a"]),
        ("from .b import a", ["x.y.b.a"]),
        ("from ..b import a", ["x.b.a"]),
        ("if TYPE_CHECKING:\n    import typing", []),
        ("def f():\n    import ssl", ["ssl"]),
        ("try:\n    import a\nexcept ImportError:\n    import b", ["a", "b"]),
    ],
)
def test_imports_are_found_wherever_they_stand(text: str, found: list[str]) -> None:
    assert [module for module, _ in imports(ast.parse(text).body, "x.y")] == found
