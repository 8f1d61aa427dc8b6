# SPDX-License-Identifier: GPL-2.0-only
"""What mkdocs calls while it builds the pages."""
