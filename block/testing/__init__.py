# SPDX-License-Identifier: GPL-2.0-only
"""For tests of code on `block`: a World without chance. Nothing else imports it.

The World
    world, doors, scheduler    virtual clocks and fake threads, one of which runs at a time
    choices, state          where choices come from; what modules remember is put back

All orders of threads
    explore, search, order  a scenario in every order that matters
    lines, rewrite, accesses    steps between lines, and what each of them touches
    replaced                other forms of whole functions
    failures, report        how a run ends, and a table of it

In pytest
    pytest_plugin           seeds and recordings: options, a mark, a fixture
    recording, outside, examples    what is kept so that a test can fail again
"""
