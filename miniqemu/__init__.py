# SPDX-License-Identifier: GPL-2.0-only
"""A tiny virtual machine and the tools for its disks."""

VERSION = "0.1.0"
