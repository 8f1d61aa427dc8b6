# SPDX-License-Identifier: GPL-2.0-only
"""One file with the compiled code of what every start needs.

Python looks for each module in several places, and opens a .pyc for each: with 120 modules that
is a fifth of a start. With the image it is one read. It also says where packages are, so that
the installed command does without Python's `site`, which searches for that, and where the
library's C modules are, for which Python looks in each place, too. Each command has an image of
its own. `make run` writes them; after an installation by hand this does, with a command's path if
it is elsewhere:

    python -m miniqemu.cli.start_image [COMMAND]

R1  The image is used only by the Python that wrote it; and a module from it only if its source
    is as old and as long as it was then. Else everything is as if there were none.
R2  A module from the image is like any other: its name, file, package and traceback are the same.
    What nobody asks for when a program runs is left out: docstrings and annotations, and with
    these the import of `__future__`.
R3  Who sets PYTHONPATH wants modules from there: no image then.

    sys.version | marshal: (this module, (sys.prefix, sys.path, rows by the module's name))

Discussion: marshal writes a string once, however many modules have it, if it is told of them all
at once. So the modules are one list, read as a whole: 4 ms; each by itself takes 6.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ExtensionFileLoader, ModuleSpec
    from types import CodeType, ModuleType

    # Of each module: is it a package, its source, that one's identity, its code (None: in C).
    Row = tuple[bool, str, tuple[int, int], CodeType | None]
    Contents = tuple[str, list[str], dict[str, Row]]
else:
    from _frozen_importlib_external import ExtensionFileLoader  # as importlib.machinery has it

PACKAGES = ("block", "miniqemu")
# What each command imports inside of functions, in every start or in most; the rest is imported by
# these. A module that is not asked for costs next to nothing: 30 us.
QCOW2 = (
    *("block.formats.qcow2.driver", "block.formats.qcow2.create", "block.formats.qcow2.refgrow"),
    *("block.formats.qcow2.header_update", "block.aio.context", "block.aio.thread_pool"),
)
ROOTS = {
    "miniqemu": (
        "miniqemu.cli.miniqemu", "miniqemu.cli.build", "miniqemu.cli.disks",
        "miniqemu.cli.iothreads", "miniqemu.accel.kvm", "miniqemu.machine.microvm",
        "miniqemu.chardev.create", "miniqemu.chardev.mux", "miniqemu.chardev.terminal",
        "miniqemu.hw.virtio_blk", "miniqemu.hw.virtio_mmio", "miniqemu.hw.virtio_main_thread",
        "block.aio.iothread", "block.core.open", "block.core.backend", "block.formats.raw",
        "block.protocols.file.driver",
    ),
    "miniqemu-img": (
        "miniqemu.cli.img.main", "miniqemu.cli.img.help", "miniqemu.cli.img.info",
        "miniqemu.cli.img.convert", "miniqemu.cli.img.create",
        "block.core.backend", "block.formats.raw", "block.protocols.file.driver",
        "block.protocols.file.truncate", "block.qapi.qjson", "ctypes", *QCOW2,
    ),
    "miniqemu-io": (
        "miniqemu.cli.io.main", "miniqemu.cli.io.texts", "miniqemu.cli.io.prompt",
        "miniqemu.cli.io.process", "miniqemu.cli.io.read", "miniqemu.cli.io.write",
        "miniqemu.cli.io.image", "block.core.backend", "block.formats.raw",
        "block.protocols.file.driver", "ctypes", *QCOW2,
    ),
}  # fmt: skip
SPEC = type(sys.__spec__)  # importlib.machinery.ModuleSpec, without importing that


def identity(path: str) -> tuple[int, int]:
    """What changes when a source file does."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


class ImageFinder:
    """Finds and loads what is in the image (a finder and loader of importlib's)."""

    def __init__(self, modules: dict[str, Row]) -> None:
        self.modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The place of a module; None for what is not in the image, or has changed (R1)."""
        row = self.modules.get(name)
        if row is None:
            return None
        is_package, source, then, code = row
        try:
            if identity(source) != then:
                return None
        except OSError:
            return None
        if code is None:
            spec = SPEC(name, ExtensionFileLoader(name, source), origin=source)
            spec.has_location = True
            return spec
        spec = SPEC(name, self, origin=source, is_package=is_package)  # type: ignore[arg-type]  # a loader by its methods
        if is_package:
            spec.submodule_search_locations = [os.path.dirname(source)]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """A plain module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module's code."""
        _, module.__file__, _, code = self.modules[module.__name__]
        assert code is not None
        exec(code, module.__dict__)


def install(contents: Contents) -> bool:
    """Lets the imports that follow take from the image. The installed command calls it."""
    if os.environ.get("PYTHONPATH"):  # R3
        return False
    prefix, path, modules = contents
    if "site" not in sys.modules:
        sys.prefix = sys.exec_prefix = prefix
        sys.path[:] = path
    sys.meta_path.insert(0, ImageFinder(modules))
    return True


def write(path: str, names: list[str]) -> None:
    """Compiles modules that have been imported into a new image."""
    rows: dict[str, Row] = {}
    for name in names:
        spec = sys.modules[name].__spec__
        assert spec is not None
        assert spec.origin is not None
        is_package = spec.submodule_search_locations is not None
        code = None if is_extension(name) else compiled(spec.origin)
        rows[name] = (is_package, spec.origin, identity(spec.origin), code)
    search = sys.path[not sys.flags.safe_path :]  # without the folder that we were called in
    contents: Contents = (sys.prefix, search, rows)
    image = sys.version.encode() + marshal.dumps((compiled(__file__), contents))
    replace(path, image, 0o644)


def is_extension(name: str) -> bool:
    """Whether a module that has been imported is written in C, and a file."""
    return isinstance(getattr(sys.modules[name], "__loader__", None), ExtensionFileLoader)


def replace(path: str, content: bytes, mode: int) -> None:
    """A new file in the place of the old one: whoever starts meanwhile sees one or the other."""
    new = f"{path}.{os.getpid()}"
    with open(new, "wb") as file:
        file.write(content)
    os.chmod(new, mode)
    os.replace(new, path)


def compiled(source: str) -> CodeType:
    """The code of a source file, without what nobody asks for (R2)."""
    import ast

    def is_needless(statement: ast.stmt) -> bool:
        """A docstring, or how annotations are to be read."""
        if isinstance(statement, ast.Expr):
            return isinstance(statement.value, ast.Constant)
        return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"

    class Without(ast.NodeTransformer):
        """Takes it out, wherever it is: each node of the tree comes by here."""

        def generic_visit(self, node: ast.AST) -> ast.AST:
            if isinstance(body := getattr(node, "body", None), list):
                body[:] = [it for it in body if not is_needless(it)] or [ast.Pass()]
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                node.returns = None
            elif isinstance(node, ast.arg):
                node.annotation = None
            elif isinstance(node, ast.AnnAssign):
                plain = ast.Assign([node.target], node.value) if node.value else ast.Pass()
                node = ast.copy_location(plain, node)
            return super().generic_visit(node)

    with open(source, "rb") as file:
        tree = Without().visit(ast.parse(file.read()))
    code: CodeType = compile(ast.fix_missing_locations(tree), source, "exec", dont_inherit=True)
    return code


def without_site(command: str) -> None:
    """Puts -S in the command's first line: with the image it needs no `site`."""
    with open(command, "rb") as file:
        first, rest = file.readline(), file.read()
    if first.startswith(b"#!") and b" " not in first:
        replace(command, first.rstrip() + b" -S\n" + rest, os.stat(command).st_mode & 0o777)


def main(arguments: list[str]) -> int:
    """Makes a command's start quick; without a command, of all that are installed."""
    if arguments:
        write_for(os.path.realpath(arguments[0]))
        return 0
    # A process for each: an image holds what has been imported.
    commands = [path for name in ROOTS if os.path.exists(path := f"{sys.prefix}/bin/{name}")]
    line = [sys.executable, "-m", "miniqemu.cli.start_image"]
    return max([os.spawnv(os.P_WAIT, line[0], [*line, path]) for path in commands], default=0)


def write_for(command: str) -> None:
    """Writes the image of one command."""
    program = os.path.basename(command)
    for name in ROOTS[program]:
        __import__(name)
    names = [
        name for name in sys.modules if name.partition(".")[0] in PACKAGES or is_extension(name)
    ]
    without_site(command)
    write(f"{os.path.dirname(os.path.dirname(command))}/lib/{program}.start", names)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        sys.exit(f"miniqemu: no start image: {error}")
