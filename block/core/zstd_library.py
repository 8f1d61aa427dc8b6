# SPDX-License-Identifier: GPL-2.0-only
"""The library for zstd, without the price of its package.

`import zstandard` takes `platform` and `typing` along, and needs one word of each: 7 ms, and 11 ms
in a worker whose neighbours wait for the interpreter. A whole `convert` of a packed image of
128 MiB takes 130. What packs and unpacks is the package's compiled part, which imports nothing.

R1  The compiled part is known to Python under its own name. Who imports the package later gets the
    same one: there are never two, with an exception of their own each.
R2  Where the package has been imported already, or is not as we know it, it is imported as ever.
R3  Of several threads that ask first one loads; so there is a lock.
Who may call it: any thread.
"""

from __future__ import annotations

import errno
import os
import sys
from _thread import allocate_lock

from block.core.error import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec
    from typing import Any
else:
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import PathFinder

PACKAGE, COMPILED = "zstandard", "zstandard.backend_c"
POLICY = "PYTHON_ZSTANDARD_IMPORT_POLICY"  # the package's own variable: who sets it wants another

_lock = allocate_lock()  # R3


def zstd_library() -> Any:
    """What has zstandard's functions and classes. Raises BlockError: it is not installed."""
    module = sys.modules.get(COMPILED)
    if module is None or PACKAGE in sys.modules:
        with _lock:
            module = _load()
    return module


def _load() -> Any:
    """The compiled part, or the package; with the lock held."""
    if PACKAGE not in sys.modules and POLICY not in os.environ:
        try:
            return sys.modules.get(COMPILED) or _load_compiled()
        except (ImportError, AttributeError):
            pass  # R2
    try:
        import zstandard
    except ImportError as error:
        message = "Compression type zstd needs a library: pip install zstandard"
        raise BlockError(errno.ENOTSUP, message) from error
    return zstandard


def _load_compiled() -> Any:
    """Finds and loads it. Raises ImportError or AttributeError where there is no such thing."""
    package: Any = PathFinder.find_spec(PACKAGE)
    spec: Any = PathFinder.find_spec(COMPILED, package.submodule_search_locations)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[COMPILED] = module  # R1
    return module
