# SPDX-License-Identifier: GPL-2.0-only
"""blkdebug: a filter that makes requests fail, and stops them, on purpose (block/blkdebug.c).

driver.py      the hooks; where a failure comes from
rules.py       the rules, and the machine that events drive: states, errors that are armed
suspend.py     break points, and who stands at them
config.py      rules as they are written: a file with sections, or options
limits.py      the limits that a user can put on requests, and which go together
"""
