# SPDX-License-Identifier: GPL-2.0-only
"""Encryption of disks, in the ways that LUKS and qcow2 use it (QEMU: crypto/).

    block_cipher    the ciphers themselves: AES and CAST5, from the package `cryptography`
    nettle_library  Serpent and Twofish, from the C library libnettle
    ivgen           every sector begins differently: plain, plain64, essiv
    modes, xts      whole sectors: ecb, cbc, ctr, and xts, which is what everybody uses
    gcrypt_library  xts by libgcrypt, where that is: quicker
    cipher          the choice among them; names: how QEMU calls them all
    hashes          a password becomes a key, slowly
    afsplit         a key becomes so long that no disk can forget only a part of it
    block           what a driver holds: bytes of a disk in, bytes of a disk out
    request         reads and writes through a bounce buffer
    options         the options of encrypted images
    luks            the header that keeps the key in eight slots
    qcow            the password is the key; only for old qcow2 images

All but `request` knows nothing of nodes: whoever uses it hands in functions that read and write.
"""
