# SPDX-License-Identifier: GPL-2.0-only
"""As it was before b11a24dee6: a request that fails at once tells so at once.

In QEMU it was the qcow driver that did so, and other drivers had done it before. Here all requests
of devices end in one function.
"""

from __future__ import annotations

import errno

from block.core.aiocb import BlkAIOCB
from block.core.error import errno_of


async def _run(self: BlkAIOCB) -> None:
    try:
        request = self.work()
        if self.owner.limits is not None:
            await self.owner.limits.co_wait(self.kind, self.nbytes)
        await request
    except (OSError, MemoryError) as error:
        self.ret = -errno_of(error)
        self.callback()
        return
    except BaseException:
        self.ret = -errno.EIO
        self.schedule()
        raise
    self.schedule()


FORMS = {"block.core.aiocb:BlkAIOCB._run": _run}
