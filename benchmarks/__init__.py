# SPDX-License-Identifier: GPL-2.0-only
"""Side by side with qemu-img, QEMU, asyncio and uvloop: `make bench`."""
