# SPDX-License-Identifier: GPL-2.0-only
"""miniqemu-io: requests to a disk image, typed by hand or by a script."""
