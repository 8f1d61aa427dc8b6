# SPDX-License-Identifier: GPL-2.0-only
"""What the block layer says on standard error (block/core/report.py)."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest

from block.core import report


def test_a_warning_begins_with_the_program_and_its_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report.warn_report("old", "-drive")
    monkeypatch.setattr(report, "program", "prog")
    report.warn_report("old")
    assert capsys.readouterr().err == "-drive: warning: old\nprog: warning: old\n"


class FullDisk(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_warning_that_nobody_hears_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", FullDisk())
    report.warn_report("old")
    with pytest.raises(OSError, match="No space left"):
        sys.stderr.write("old")
