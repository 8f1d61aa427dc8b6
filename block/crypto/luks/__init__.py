# SPDX-License-Identifier: GPL-2.0-only
"""LUKS version 1 (crypto/block-luks.c): a random master key encrypts the disk; each of eight slots
keeps it, encrypted with a password of its own. So a password can change, and the disk need not."""
