# SPDX-License-Identifier: GPL-2.0-only
"""The machine: memory, processors, the board, and the loop around them.

The board
    microvm                 what is on it, and where
    memory, irq             who answers at an address; lines from a device to a pin
    elf, pvh                a kernel, read and started

Running
    machine, runstate       the whole; what it is doing, and who is told
    main_loop, biglock      the main context; the lock for what belongs to no loop
    vcpu_thread             a thread that runs processors

Telling
    debug, dump             -d; registers and code as text
"""
