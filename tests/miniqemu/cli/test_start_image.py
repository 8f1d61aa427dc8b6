# SPDX-License-Identifier: GPL-2.0-only
"""The start image: the same modules, faster; and never older ones than the sources."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import marshal
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniqemu.cli import start_image
from tests.support import boot, needs

ROOT = Path(__file__).parents[3]
COMMAND = ROOT / "bin" / "miniqemu"


def forget_the_house() -> None:
    for name in [name for name in sys.modules if name.startswith("tinyhouse")]:
        del sys.modules[name]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tree with one package, of which there is an image, and which only the image finds."""
    package = tmp_path / "tinyhouse"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "__init__.py").write_text("LEVEL = 2\n")
    (package / "room.py").write_text("def fail() -> None:\n    raise KeyError('x')\n")
    finders, path = list(sys.meta_path), list(sys.path)
    names = ["tinyhouse", "tinyhouse.deep", "tinyhouse.room"]
    sys.path.append(str(tmp_path))
    importlib.invalidate_caches()
    for name in names:
        importlib.import_module(name)
    (tmp_path / "lib").mkdir()
    start_image.write(str(tmp_path / "lib" / "miniqemu.start"), names)
    sys.path[:] = path
    forget_the_house()
    monkeypatch.delenv("PYTHONPATH", raising=False)
    yield package
    sys.meta_path[:] = finders
    forget_the_house()


def read_image(house: Path) -> start_image.Contents:
    image = (house.parent / "lib" / "miniqemu.start").read_bytes()
    contents: start_image.Contents = marshal.loads(image.removeprefix(sys.version.encode()))[1]
    return contents


def load(name: str) -> types.ModuleType:
    return importlib.import_module(f"tinyhouse.{name}")


def test_modules_come_from_the_image_and_look_like_any_other(house: Path) -> None:
    assert start_image.install(read_image(house))
    room, deep = load("room"), load("deep")
    assert room.__file__ == str(house / "room.py")
    assert room.__package__ == "tinyhouse"
    assert deep.__path__ == [str(house / "deep")]
    assert deep.LEVEL == 2
    assert isinstance(room.__loader__, start_image.ImageFinder)


def test_a_module_in_c_is_loaded_from_where_it_was(house: Path, tmp_path: Path) -> None:
    import _ctypes

    start_image.write(str(tmp_path / "lib" / "miniqemu.start"), ["_ctypes"])
    finder = start_image.ImageFinder(read_image(house)[2])
    spec = finder.find_spec("_ctypes")
    assert spec is not None
    assert importlib.util.module_from_spec(spec).__file__ == _ctypes.__file__
    assert isinstance(spec.loader, importlib.machinery.ExtensionFileLoader)


def test_a_traceback_shows_the_source(house: Path) -> None:
    assert start_image.install(read_image(house))
    with pytest.raises(KeyError) as caught:
        load("room").fail()
    assert str(caught.traceback[-1].path) == str(house / "room.py")
    assert caught.traceback[-1].lineno == 1


def test_docstrings_and_annotations_are_left_out_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "text.py"
    source.write_text(
        '"""Of the module."""\nfrom __future__ import annotations\n'
        "class Kept:\n    'of the class'\n    size: int = 3\n    only_said: NoSuchType\n"
        "def only(x: int) -> str:\n    'of the function'\n"
        "async def both(*a: int, k: int = 5):\n    'x'\n    assert k, 'kept'\n    return a, k\n"
    )
    exec(start_image.compiled(str(source)), names := {"__name__": "text"})
    assert names.get("__doc__") is None
    assert (names["Kept"].__doc__, names["Kept"].size) == (None, 3)
    assert not names["Kept"].__annotations__
    assert "annotations" not in names  # and with it __future__
    for name in ("only", "both"):
        assert not names[name].__annotations__
        assert names[name].__doc__ is None
    assert names["only"](1) is None
    with pytest.raises(StopIteration) as end:
        names["both"](1, 2).send(None)
    assert end.value.value == ((1, 2), 5)
    with pytest.raises(AssertionError, match="kept"):
        names["both"](k=0).send(None)


def test_a_changed_source_is_taken_itself(house: Path) -> None:
    (house / "room.py").write_text("CHANGED = True\n")
    assert start_image.install(read_image(house))
    assert load("room").CHANGED
    assert not isinstance(load("room").__loader__, start_image.ImageFinder)
    assert isinstance(load("deep").__loader__, start_image.ImageFinder)


def test_a_source_that_is_gone_is_gone(house: Path) -> None:
    (house / "room.py").unlink()
    assert start_image.install(read_image(house))
    with pytest.raises(ModuleNotFoundError):
        load("room")


def test_who_sets_a_path_for_modules_gets_those(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert not start_image.install(read_image(house))


def run_command(house: Path, *options: str) -> str:
    """Runs the installed command from beside the image; the names of what it has imported."""
    command = house.parent / "bin" / "miniqemu"
    command.parent.mkdir(exist_ok=True)
    command.write_text(COMMAND.read_text())
    line = [sys.executable, *options, "-v", str(command), "-version"]
    return subprocess.run(line, capture_output=True, text=True, check=True, cwd="/").stderr


def test_with_an_image_the_command_needs_no_site(house: Path) -> None:
    finders = list(sys.meta_path)
    write_our_image(house)
    sys.meta_path[:] = finders
    assert "import 'site'" not in run_command(house, "-S")


def write_our_image(house: Path) -> None:
    """The image of miniqemu itself, as `make run` has it."""
    command = house.parent / "bin" / "miniqemu"
    command.parent.mkdir()
    command.write_text("#!python\n")
    subprocess.run(
        [sys.executable, "-m", "miniqemu.cli.start_image", str(command)], check=True, cwd=ROOT
    )


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", sys.version.encode() + b"rubbish", None, "another Python"]
)
def test_without_a_good_image_the_command_starts_as_python_does(
    house: Path, content: bytes | str | None
) -> None:
    image = house.parent / "lib" / "miniqemu.start"
    if content is None:
        image.unlink()
    elif content == "another Python":
        image.write_bytes(b"2.7" + image.read_bytes().removeprefix(sys.version.encode()))
    else:
        assert isinstance(content, bytes)
        image.write_bytes(content)
    assert "import 'site'" in run_command(house, "-S")


def test_the_command_is_told_to_do_without_site_once(tmp_path: Path) -> None:
    command = tmp_path / "miniqemu"
    command.write_text("#!/usr/bin/python3\nprint('x')\n")
    command.chmod(0o755)
    for _ in range(2):
        start_image.without_site(str(command))
        assert command.read_text() == "#!/usr/bin/python3 -S\nprint('x')\n"
        assert os.access(command, os.X_OK)


# The library's modules that a start may import, besides what the interpreter always has.
LIBRARY = {
    *("os", "os.path", "posixpath", "genericpath", "stat", "_stat", "_collections_abc"),
    *("_bisect", "_collections", "_ctypes", "_functools", "_heapq", "_operator", "_struct"),
    *("__future__", "atexit", "errno", "fcntl", "gc", "itertools", "mmap", "select"),
}


def test_a_start_imports_these_modules_and_no_other(tmp_path: Path) -> None:
    """Who adds one here makes every start slower; most can be imported where they are used."""
    needs.kvm()
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    line = [
        *("miniqemu", "-nodefaults", "-serial", "stdio", "-kernel", str(boot.built_elf())),
        *("-object", "iothread,id=io0", "-drive", f"file={disk},format=raw,if=none,id=d0"),
        *("-device", "virtio-blk-device,drive=d0,iothread=io0", "-append", "poweroff"),
    ]
    code = (
        f"import sys; before = set(sys.modules); sys.path.insert(0, {str(ROOT)!r})\n"
        "import os; write = os.write\n"
        "def first_byte(fd, data):\n"
        "    if fd == 1:\n"
        "        write(1, ' '.join(set(sys.modules) - before).encode())\n"
        "        os._exit(0)\n"
        "    return write(fd, data)\n"
        "os.write = first_byte\n"
        f"from miniqemu.cli.miniqemu import main\nmain({line!r})"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    imported = set(done.stdout.split())
    ours = {name for name in imported if name.split(".")[0] in start_image.PACKAGES}
    assert imported - ours <= LIBRARY
    assert ours <= modules_of_the_image()


def modules_of_the_image() -> set[str]:
    code = (
        "import sys; from miniqemu.cli.start_image import ROOTS\n"
        "for name in ROOTS['miniqemu']: __import__(name)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())
