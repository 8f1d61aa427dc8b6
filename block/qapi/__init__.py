# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU's management interface says, and how it is written down."""
