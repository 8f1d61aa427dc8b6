# SPDX-License-Identifier: GPL-2.0-only
"""A tiny virtual machine and the tools for its disks."""

VERSION = "0.1.0"
QEMU_VERSION = "7.2.0"
"""Whose options and output the tools have; scripts look for it after 'version '."""
