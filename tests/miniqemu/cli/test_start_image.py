# SPDX-License-Identifier: GPL-2.0-only
"""The start image: the same modules, faster; and never older ones than the sources."""

from __future__ import annotations

import importlib
import marshal
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniqemu.cli import start_image


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tree with one package, that the image is made of."""
    package = tmp_path / "tinyhouse"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "__init__.py").write_text("LEVEL = 2\n")
    (package / "room.py").write_text("def fail() -> None:\n    raise KeyError('x')\n")
    monkeypatch.setattr(start_image, "ROOT", str(tmp_path))
    monkeypatch.setattr(start_image, "PACKAGES", ("tinyhouse",))
    finders = list(sys.meta_path)
    start_image.write(str(tmp_path / "image"))
    yield package
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.startswith("tinyhouse")]:
        del sys.modules[name]


def install(house: Path) -> bool:
    return start_image.install(str(house.parent / "image"))


def load(name: str) -> types.ModuleType:
    return importlib.import_module(f"tinyhouse.{name}")


def test_modules_come_from_the_image_and_look_like_any_other(house: Path) -> None:
    assert install(house)
    room, deep = load("room"), load("deep")
    assert room.__file__ == str(house / "room.py")
    assert room.__package__ == "tinyhouse"
    assert deep.__path__ == [str(house / "deep")]
    assert deep.LEVEL == 2
    assert isinstance(room.__loader__, start_image.ImageFinder)


def test_a_traceback_shows_the_source(house: Path) -> None:
    assert install(house)
    with pytest.raises(KeyError) as caught:
        load("room").fail()
    assert str(caught.traceback[-1].path) == str(house / "room.py")
    assert caught.traceback[-1].lineno == 1


def test_a_changed_source_turns_the_image_off(house: Path) -> None:
    (house / "room.py").write_text("CHANGED = True\n")
    assert not install(house)


def test_a_missing_source_turns_the_image_off(house: Path) -> None:
    (house / "room.py").unlink()
    assert not install(house)


def test_another_python_does_not_use_the_image(house: Path) -> None:
    image = house.parent / "image"
    image.write_bytes(marshal.dumps(("another", marshal.loads(image.read_bytes())[1])))
    assert not install(house)


@pytest.mark.parametrize("content", [b"", b"rubbish", marshal.dumps(5), marshal.dumps((1, 2, 3))])
def test_a_damaged_image_is_as_good_as_none(house: Path, content: bytes) -> None:
    (house.parent / "image").write_bytes(content)
    assert not install(house)


def test_no_image_is_no_error(tmp_path: Path) -> None:
    assert not start_image.install(str(tmp_path / "none"))


def test_all_our_modules_are_in_it() -> None:
    names = start_image.sources()
    assert names["miniqemu.cli"][0]
    assert not names["block.aio.context"][0]
