# SPDX-License-Identifier: GPL-2.0-only
"""Other forms of functions, in place and out again."""

from __future__ import annotations

import pytest

from block.aio import iothread
from block.aio.context import AioContext
from block.aio.lock import RFifoLock
from block.core import drain
from block.testing.replaced import replaced


def other(self: object) -> str:
    return "another form"


def test_a_method_is_replaced_and_put_back() -> None:
    before = AioContext.fileno
    with replaced({"block.aio.context:AioContext.fileno": other}):
        assert AioContext.fileno is other
    assert AioContext.fileno is before


def test_a_property_stays_one() -> None:
    lock = RFifoLock()
    with replaced({"block.aio.lock:RFifoLock.contended": other}):
        assert lock.contended == "another form"  # type: ignore[comparison-overlap]  # another form, at run time
    assert lock.contended is False


def test_whoever_has_imported_a_function_by_name_gets_the_other_form_too() -> None:
    before = drain.poll_while
    with replaced({"block.core.wait:poll_while": other}):
        assert drain.poll_while is other
    assert drain.poll_while is before


def test_what_does_not_exist_cannot_be_replaced() -> None:
    before = iothread.current_context
    forms = {"block.aio.iothread:current_context": other, "block.aio.lock:RFifoLock.gone": other}
    with (
        pytest.raises(LookupError, match=r"RFifoLock.gone: there is no such function"),
        replaced(forms),
    ):
        pass
    assert iothread.current_context is before
