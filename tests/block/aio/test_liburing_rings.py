# SPDX-License-Identifier: GPL-2.0-only
"""Which liburing is taken: the package where the processor runs it, else the shared library."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator

import pytest

from block.aio import liburing_rings as rings
from tests.support import needs

pytestmark = needs.linux()


@pytest.fixture
def eventfd() -> Iterator[int]:
    needs.feature("eventfd")
    fd = os.eventfd(0)
    yield fd
    os.close(fd)


def test_a_processor_without_avx512_gets_the_library(
    monkeypatch: pytest.MonkeyPatch, eventfd: int
) -> None:
    needs.library(rings.LIBRARY, "liburing2")
    monkeypatch.setattr(rings, "has_avx512", lambda: False)
    monkeypatch.setitem(sys.modules, "liburing", None)  # to import it would end this process
    made = rings.new_rings(8, eventfd)
    assert isinstance(made, rings.LibraryRings)
    made.close()


def test_without_the_package_the_library_serves(
    monkeypatch: pytest.MonkeyPatch, eventfd: int
) -> None:
    needs.library(rings.LIBRARY, "liburing2")
    monkeypatch.setattr(rings, "has_avx512", lambda: True)
    monkeypatch.setitem(sys.modules, "liburing", None)
    made = rings.new_rings(8, eventfd)
    assert isinstance(made, rings.LibraryRings)
    made.close()


@pytest.mark.parametrize(("has_avx512", "says"), [(True, "pip install"), (False, "AVX-512")])
def test_without_both_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, eventfd: int, has_avx512: bool, says: str
) -> None:
    monkeypatch.setattr(rings, "has_avx512", lambda: has_avx512)
    monkeypatch.setitem(sys.modules, "liburing", None)
    monkeypatch.setattr(rings, "LIBRARY", "libnone.so.0")
    with pytest.raises(OSError, match=says) as caught:
        rings.new_rings(8, eventfd)
    assert caught.value.errno == errno.ENOPKG


def test_what_the_library_refuses_is_an_error_and_leaves_no_ring(eventfd: int) -> None:
    needs.library(rings.LIBRARY, "liburing2")
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Invalid argument"):
        rings.LibraryRings(0, eventfd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        rings.LibraryRings(8, 1 << 20)
    assert set(os.listdir("/proc/self/fd")) == before
