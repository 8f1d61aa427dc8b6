# SPDX-License-Identifier: GPL-2.0-only
"""`python -m docs.tools` draws all pictures of the documentation anew."""

from __future__ import annotations

from docs.tools.pictures import PICTURES

for draw in PICTURES:
    print(draw().save())
