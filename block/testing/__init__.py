# SPDX-License-Identifier: GPL-2.0-only
"""For tests of code on `block`: a World without chance. Nothing else imports it."""
