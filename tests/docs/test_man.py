# SPDX-License-Identifier: GPL-2.0-only
"""The manual pages: what they are made of, and that mandoc has nothing against them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from docs.tools import man
from tests.support import needs


def test_what_roff_would_take_for_its_own_is_disarmed() -> None:
    assert man.plain("a \\n -r") == "a \\en \\-r"
    assert [man.line(text) for text in (".so x", "'tis", "so", "")] == [
        "\\&.so x",
        "\\&'tis",
        "so",
        "\\&",
    ]


def test_a_page_becomes_roff() -> None:
    page = """# Title

A *first* **line**
with `--code` and [a link](x.md).

[[source:block/x.py:f]]

## Part one

<figure class="mq">
x
</figure>

Press ++ctrl+a++.

* one
* two

1. first

```console
$ .hidden
```

| command | does |
|---|---|
| `a` | b, c |

!!! note "Mind"
    that
"""
    assert (
        man.body(page)
        == r""".PP
A \fIfirst\fR \fBline\fR with \fB\-\-code\fR and a link.
.SH PART ONE
Press \fBctrl\-a\fR.
.IP \(bu 2
one
.IP \(bu 2
two
.IP 1. 4
first
.PP
.EX
$ .hidden
.EE
.TP
\fBa\fR
b, c
.PP
\fBMind.\fR that
"""
    )


@pytest.mark.parametrize("page", man.PAGES, ids=lambda page: page.program)
def test_a_manual_has_its_parts_and_no_markup_of_the_site(page: man.Page) -> None:
    text = man.manual(page)
    for part in ("NAME", "DESCRIPTION", "OPTIONS", "SEE ALSO"):
        assert f".SH {part}\n" in text
    assert man.plain("--help") in text
    for left in ("[[", "++", "<figure", "!!!", "](", "```"):
        assert left not in text


def test_a_sentence_that_announced_code_ends_where_that_was() -> None:
    page = "It does so:\n\n[[source:block/x.py:f]]\n\nOr so.\n\n[[source:block/x.py:g]]\n"
    assert man.cleaned(page) == "It does so.\n\nOr so.\n"


@pytest.mark.parametrize("page", man.PAGES, ids=lambda page: page.program)
def test_the_options_fit_a_terminal(page: man.Page) -> None:
    options = man.manual(page).partition(".SH OPTIONS\n")[2].partition("\n.SH ")[0]
    seen = [line.removeprefix("\\&").replace("\\-", "-") for line in options.splitlines()]
    assert [line for line in seen if len(line) > 80 - 7] == [], "man indents by seven"


@pytest.mark.full
def test_mandoc_finds_nothing_wrong(tmp_path: Path) -> None:
    man.main(["man", str(tmp_path)])
    pages = sorted(tmp_path.iterdir())
    assert len(pages) == len(man.PAGES)
    command = [needs.program("mandoc"), "-T", "lint", "-W", "warning", *map(str, pages)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)
