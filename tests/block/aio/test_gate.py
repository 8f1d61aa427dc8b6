# SPDX-License-Identifier: GPL-2.0-only
"""The gate at which a worker waits, as an eventfd and as a pipe."""

from __future__ import annotations

import threading

import pytest

from block.aio.gate import Gate, PipeGate
from tests.support import needs


@pytest.mark.parametrize("kind", [pytest.param(Gate, marks=needs.linux("eventfd")), PipeGate])
def test_an_open_gate_lets_the_worker_through_once(kind: type[Gate]) -> None:
    gate = kind()
    gate.open()
    gate.open()
    gate.wait()
    passed: list[int] = []
    worker = threading.Thread(target=lambda: passed.append(gate.wait() is None))
    worker.start()
    assert passed == []
    gate.open()
    worker.join()
    assert passed == [True]
    gate.close()
