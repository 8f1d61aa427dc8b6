# SPDX-License-Identifier: GPL-2.0-only
"""The event loop, and what makes it run. Knows nothing of disks.

A context
    context                 the loop (AioContext): what there is to do, and one pass of doing it
    home, lock              who may touch it, and the lock that decides
    wakeup, notifier        sleeping, and being woken
    poller, polling, poll_window    waiting for descriptors; looking for a while before that
    bh, timer, fd_handler, defer_call    what can be registered
    audit, errors           who registered what; touching what is gone

Coroutines
    coroutine               on `async def`, run by us
    co_lock, co_sleep, co_parallel    locks and queues, sleeping, several things at once

Threads
    world, thread           everything from outside, in one object; the real one's threads
    iothread                a thread that runs one context
    thread_pool, gate       workers for calls that block; where one waits
    switch_interval         how soon a thread gets the interpreter
    embed                   a context inside an asyncio loop

The kernel's queues
    kernel_queue, kernel_memory    what both share; where a request's memory is
    linux_aio               Linux AIO
    io_uring, liburing_rings    io_uring, and its rings

    demo                    a timeline, for the modules' demos: python -m block.aio.bh
"""
