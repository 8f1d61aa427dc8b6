# SPDX-License-Identifier: GPL-2.0-only
"""What conftest.py promises about all tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HANGS = """
import threading
import pytest
import tests.conftest

tests.conftest.TEARDOWN_SECONDS = 0.2

@pytest.fixture
def hanging():
    yield
    threading.Event().wait()

def test_a(hanging):
    assert False
"""


def test_a_teardown_that_hangs_after_a_failure_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(HANGS)
    run = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*run, "-p", "tests.conftest", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Timeout (0:00:00.2" in done.stderr
    assert "in hanging" in done.stderr
