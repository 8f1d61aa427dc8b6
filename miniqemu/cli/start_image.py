# SPDX-License-Identifier: GPL-2.0-only
"""One file with the compiled code of all our modules, for a quick start.

Python looks for each module in several places and opens a .pyc for each: with 120 modules that
is 12 ms, a quarter of a start (QEMU has its first byte on the serial line after 40 ms). With
the image it is one read. `make run` writes it; the installed command asks for it.

R1  The image is used only by the Python that wrote it, and only if every source file is as old
    and as long as it was then. Else everything is as if there were none.
R2  A module from the image is like any other: its name, file, package and traceback are the same.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

NAME = "miniqemu.start"
PACKAGES = ("block", "miniqemu")
SPEC = type(sys.__spec__)  # importlib.machinery.ModuleSpec, without importing that
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def image_path() -> str:
    """Where the image of this installation is."""
    return os.path.join(sys.prefix, NAME)


def identity(path: str) -> tuple[int, int]:
    """What changes when a source file does."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


def sources() -> dict[str, tuple[bool, str]]:
    """Every module of ours: whether it is a package, and its file."""
    found = {}
    for package in PACKAGES:
        for folder, folders, files in os.walk(os.path.join(ROOT, package)):
            folders[:] = [name for name in folders if name != "__pycache__"]
            module = os.path.relpath(folder, ROOT).replace(os.sep, ".")
            for name in files:
                path = os.path.join(folder, name)
                if name == "__init__.py":
                    found[module] = (True, path)
                elif name.endswith(".py"):
                    found[f"{module}.{name.removesuffix('.py')}"] = (False, path)
    return found


def write(path: str) -> None:
    """Compiles everything into a new image."""
    modules = {}
    for name, (is_package, source) in sources().items():
        before = identity(source)
        with open(source, "rb") as file:
            code = compile(file.read(), source, "exec", dont_inherit=True)
        modules[name] = (is_package, source, before, marshal.dumps(code))
    with open(f"{path}.new", "wb") as image:
        image.write(marshal.dumps((sys.version, modules)))
    os.replace(f"{path}.new", path)


class ImageFinder:
    """Finds and loads our modules in the image (a finder and loader of importlib's)."""

    def __init__(self, modules: dict[str, tuple[bool, str, tuple[int, int], bytes]]) -> None:
        self.modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The place of a module, None for what is not ours."""
        if name not in self.modules:
            return None
        is_package, source, _, _ = self.modules[name]
        spec = SPEC(name, self, origin=source, is_package=is_package)  # type: ignore[arg-type]  # a loader by its methods
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = [os.path.dirname(source)]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """A plain module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module's code."""
        exec(marshal.loads(self.modules[module.__name__][3]), module.__dict__)


def install(path: str) -> bool:
    """Lets the imports that follow take from the image, if there is one that holds (R1)."""
    try:
        with open(path, "rb") as image:
            version, modules = marshal.loads(image.read())
        if version != sys.version:
            return False
        for _, source, then, _ in modules.values():
            if identity(source) != then:
                return False
    except (OSError, ValueError, EOFError, TypeError):
        return False
    sys.meta_path.insert(0, ImageFinder(modules))
    return True


if __name__ == "__main__":
    write(image_path())
