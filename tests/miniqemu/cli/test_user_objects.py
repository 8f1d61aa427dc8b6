# SPDX-License-Identifier: GPL-2.0-only
"""--object of the tools: a cry for help is answered, and nothing is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from miniqemu.cli.config import CliError
from miniqemu.cli.img import main as img
from miniqemu.cli.io import main as io
from miniqemu.cli.user_objects import Asked, create, drop
from tests.support.qemu_tools import qemu_done

if TYPE_CHECKING:
    from miniqemu.cli.user_objects import Made

LIST = "List of user creatable objects:\n  secret\n  throttle-group\n"


@pytest.mark.parametrize("text", ["help", "?", "qom-type=iothread,help", "foo,help", "help,id=x"])
def test_the_types_are_listed(text: str) -> None:
    with pytest.raises(Asked) as answer:
        create(text, {})
    assert str(answer.value) == LIST


@pytest.mark.parametrize("text", ["secret,help", "secret,id=s,?", "qom-type=secret,help,data=x"])
def test_a_type_s_properties_are_listed(text: str) -> None:
    with pytest.raises(Asked, match="secret options:\n  data=<string>\n  file=<string>"):
        create(text, {})


def test_a_mistake_goes_before_help() -> None:
    with pytest.raises(CliError, match="Expected '=' after parameter 'foo'"):
        create("secret,foo,help", {})


def test_a_value_is_no_cry_for_help() -> None:
    made: Made = {}
    create("secret,id=a,data=help", made)
    create("secret,id=b,data=x,,help", made)
    create('{"qom-type": "secret", "id": "c", "data": "?"}', made)
    assert sorted(made) == ["a", "b", "c"]
    drop(made)


@pytest.mark.parametrize(
    ("main", "words"), [(img.main, ["qemu-img", "info"]), (io.main, ["qemu-io", "-c", "quit"])]
)  # fmt: skip
def test_both_tools_print_it_and_do_nothing_else(
    main: object, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert callable(main)
    assert main([*words, "--object", "help", "nosuch"]) == 0
    assert capfd.readouterr() == (LIST, "")


@pytest.mark.full
@pytest.mark.parametrize("kind", ["secret", "throttle-group"])
def test_the_properties_are_qemu_s(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["info", "--object", f"{kind},help"]
    assert img.main(["qemu-img", *words]) == 0
    assert capfd.readouterr().out == qemu_done("qemu-img", *words)
