# SPDX-License-Identifier: GPL-2.0-only
"""miniqemu-io: requests to a disk image, typed by hand or by a script.

    main, texts             the program; what it prints when asked
    prompt, session         where lines come from; what a run remembers, and one line done
    commands                a row for each command
    read, write, asynchronous, image, opening, breaks, process  what they do
    buffers, numbers        memory of requests; numbers as people type and read them
"""
