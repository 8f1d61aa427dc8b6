# SPDX-License-Identifier: GPL-2.0-only
"""`miniqemu-img`: QEMU's tool for disk images, a module for each of its commands."""
