# SPDX-License-Identifier: GPL-2.0-only
"""Encrypted disks in LUKS format (block/crypto.c): a header with keys, and behind it the disk."""
