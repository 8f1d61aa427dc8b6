# SPDX-License-Identifier: GPL-2.0-only
"""LUKS version 1 (crypto/block-luks.c): a random master key encrypts the disk; each of eight slots
keeps it, encrypted with a password of its own. So a password can change, and the disk need not.

    layout, header    what stands on the disk, and reading it without believing it
    params            which algorithms
    keyslot           how a password becomes the master key, and back
    volume            an open volume; how one is opened and made
    amend             passwords that come and go
"""
