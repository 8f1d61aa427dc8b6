# SPDX-License-Identifier: GPL-2.0-only
"""The pictures in docs/images are those that docs/tools draws."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from docs.tools import request
from docs.tools.draw import IMAGES, Picture
from docs.tools.house import MACHINE_IMPORTS
from docs.tools.pictures import PICTURES

SVG = "{http://www.w3.org/2000/svg}"
each_picture = pytest.mark.parametrize("draw", PICTURES, ids=lambda draw: draw.__module__)


@each_picture
def test_the_committed_picture_is_what_its_script_draws(draw: Callable[[], Picture]) -> None:
    picture = draw()
    committed = (IMAGES / f"{picture.name}.svg").read_text()
    assert committed == picture.svg(), "run: python -m docs.tools"


@each_picture
def test_a_picture_has_a_title_and_nothing_outside_its_frame(draw: Callable[[], Picture]) -> None:
    picture = draw()
    root = ElementTree.fromstring(picture.svg())
    title = root.find(f"{SVG}title")
    assert title is not None
    assert title.text
    for rect in root.iter(f"{SVG}rect"):
        x, y, width, height = (float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + width <= picture.width
        assert y + height <= picture.height


def test_a_blank_line_would_end_the_html_block_of_a_page() -> None:
    for draw in PICTURES:
        assert "\n\n" not in draw().svg()


@pytest.mark.parametrize(("user", "used"), MACHINE_IMPORTS)
def test_an_arrow_in_the_house_is_an_import_in_the_source(user: str, used: str) -> None:
    modules = (Path(__file__).parent.parent.parent / "miniqemu" / user).glob("*.py")
    assert any(f"from miniqemu.{used}" in module.read_text() for module in modules)


def test_a_request_goes_through_functions_that_there_are() -> None:
    root = Path(__file__).parents[2]
    files = [*root.glob("block/**/*.py"), *root.glob("miniqemu/**/*.py"), *root.glob("guest/*.c")]
    text = "\n".join(file.read_text() for file in files)
    named = [name for *_, names in request.STEPS for name in names.strip("`").split(", ")]
    for name in filter(re.compile(r"[\w.]+").fullmatch, named):
        *owner, function = name.split(".")
        assert all(re.search(rf"^class {each}\b", text, re.M) for each in owner), name
        assert re.search(rf"^[\w* ]*\b{function}\([^;]*\) (->|{{)", text, re.M), name
