# SPDX-License-Identifier: GPL-2.0-only
"""The other end of a serial line.

    base, create            the interface; from the words of -serial to a device
    fd                      what all on file descriptors share
    stdio, file, unix       the terminal or pipes, a file, a socket
    terminal                a terminal made raw, and put back
    mux                     the escape key
"""
