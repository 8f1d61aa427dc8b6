# SPDX-License-Identifier: GPL-2.0-only
"""The pictures in docs/images are those that docs/tools draws."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from docs.tools import request
from docs.tools.draw import IMAGES, Box, Picture
from docs.tools.house import LAYER_IMPORTS, MACHINE_IMPORTS, lower, upper
from docs.tools.pictures import PICTURES

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
# How high letters are in each style of draw.py, and how wide one is on average, at least.
LETTERS = {"": (13, 0.5), "small": (11.5, 0.5), "title": (15, 0.55), "code": (12, 0.6)}
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


@each_picture
def test_words_stay_in_their_box_and_in_the_frame(draw: Callable[[], Picture]) -> None:
    picture = draw()
    root = ElementTree.fromstring(picture.svg())
    boxes = [
        [float(rect.attrib[k]) for k in ("x", "y", "width", "height")]
        for rect in root.iter(f"{SVG}rect")
    ]
    for text in root.iter(f"{SVG}text"):
        height, share = LETTERS.get(text.get("class", ""), LETTERS[""])
        width = height * share * len(text.text or "")
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[text.attrib["text-anchor"]]
        assert "`" not in (text.text or ""), "a line is code as a whole, or not at all"
        assert left >= 0, text.text
        assert left + width <= picture.width, text.text
        assert y + height / 3 <= picture.height, text.text
        if text.attrib["text-anchor"] == "middle":
            around = [b for b in boxes if abs(b[0] + b[2] / 2 - x) < 1 and b[1] < y < b[1] + b[3]]
            assert all(width <= box[2] for box in around), text.text


def test_a_blank_line_would_end_the_html_block_of_a_page() -> None:
    for draw in PICTURES:
        assert "\n\n" not in draw().svg()


IMPORTS = [("miniqemu", *arrow) for arrow in MACHINE_IMPORTS]
IMPORTS += [("block", *arrow) for arrow in LAYER_IMPORTS]


@pytest.mark.parametrize(("package", "user", "used"), IMPORTS)
def test_an_arrow_in_the_house_is_an_import_in_the_source(
    package: str, user: str, used: str
) -> None:
    modules = (ROOT / package / user).rglob("*.py")
    assert any(f"from {package}.{used}" in module.read_text() for module in modules)


@pytest.mark.parametrize(("package", "draw"), [("block", lower), ("miniqemu", upper)])
def test_the_house_has_every_room_in_its_picture_and_in_its_table(
    package: str, draw: Callable[[Picture], tuple[Box, dict[str, Box]]]
) -> None:
    rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    _, drawn = draw(Picture("house", 1, 1, "the rooms"))
    told = re.findall(rf"^\| `{package}/(\w+)` \|", (ROOT / "docs/house.md").read_text(), re.M)
    assert set(drawn) == rooms
    assert set(told) == rooms


def test_a_request_goes_through_functions_that_there_are() -> None:
    files = [*ROOT.glob("block/**/*.py"), *ROOT.glob("miniqemu/**/*.py"), *ROOT.glob("guest/*.c")]
    text = "\n".join(file.read_text() for file in files)
    named = [name for *_, names in request.STEPS for name in names.strip("`").split(", ")]
    for name in filter(re.compile(r"[\w.]+").fullmatch, named):
        *owner, function = name.split(".")
        assert all(re.search(rf"^class {each}\b", text, re.M) for each in owner), name
        assert re.search(rf"^[\w* ]*\b{function}\([^;]*\) (->|{{)", text, re.M), name
