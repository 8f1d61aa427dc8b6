# SPDX-License-Identifier: GPL-2.0-only
"""The dirty bit, and refcounts that may wait for it (qcow2_mark_dirty, qcow2_mark_clean).

With lazy_refcounts a write that allocates does not wait for its refcount: the L2 entry alone is
written. So long the header says "my refcounts are wrong"; who finds that counts anew.

    opened      first allocation       works              closed
      | clean     | bit set, flushed     | bit is set       | refcounts written, flushed | bit gone
    refcounts:      right                  only in memory     right again

R1  The bit is on the disk, flushed, before the first entry whose refcount is not.
R2  Refcounts are on the disk, flushed, before the bit goes.
R3  Only who set the bit, or has counted anew, takes it away. What was opened only to be checked, or
    could not be repaired, keeps it. (QEMU clears it all the same.)
R4  Where the bit cannot be set, refcounts are written first, as without lazy_refcounts.
R5  Clusters of metadata have their refcounts written before they are used, always.
R6  Where it cannot be taken away, it may be gone from the disk all the same. So nobody relies on
    it any more: the next one to need it sets it again.
So it is known here which tables go to the file, and when: `write_caches`, `flush_caches`.
Who may call it: coroutines that hold the image's lock; `co_mark_clean` takes it.
"""

from __future__ import annotations

from block.formats.qcow2.layout import INCOMPAT_DIRTY, INCOMPATIBLE_AT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.formats.qcow2.state import Qcow2State


async def write_incompatible(s: Qcow2State, bits: int) -> None:
    """Writes the incompatible features alone into the header, and makes them safe."""
    assert s.version >= 3, "version 2 has no such field"
    field = bits.to_bytes(8, "big")
    await s.file.co_pwritev(INCOMPATIBLE_AT, len(field), [memoryview(field)])
    await s.file.co_flush()
    s.incompatible_features = bits


def is_dirty(s: Qcow2State) -> bool:
    """Whether the header says that refcounts on the disk may be wrong."""
    return bool(s.incompatible_features & INCOMPAT_DIRTY)


async def may_postpone(s: Qcow2State) -> bool:
    """Whether an entry may be written before its refcount; sets the bit for that (R1, R4)."""
    if s.lazy_refcounts and not is_dirty(s):
        try:
            await write_incompatible(s, s.incompatible_features | INCOMPAT_DIRTY)
        except OSError:
            return False
        s.owns_dirty_bit = True
    return is_dirty(s)


async def write_caches(s: Qcow2State) -> None:
    """Hands all tables to the file (qcow2_write_caches). Not refcounts that may wait."""
    if not s.broken:
        await s.l2_cache.write()
        if not is_dirty(s):
            await s.refcount_cache.write()


async def flush_caches(s: Qcow2State) -> None:
    """Makes all tables durable, refcounts that may wait, too (qcow2_flush_caches)."""
    await s.l2_cache.flush()
    await s.refcount_cache.flush()


async def mark_clean(s: Qcow2State) -> None:
    """Makes the refcounts right on the disk, then takes the bit away (R2, R3)."""
    if not is_dirty(s) or s.broken:
        return
    await flush_caches(s)
    if s.owns_dirty_bit:
        try:
            await write_incompatible(s, s.incompatible_features & ~INCOMPAT_DIRTY)
        except OSError:
            s.incompatible_features &= ~INCOMPAT_DIRTY  # R6
            raise


async def co_mark_clean(s: Qcow2State) -> None:
    """As mark_clean, for who does not hold the lock."""
    async with s.lock:
        await mark_clean(s)
