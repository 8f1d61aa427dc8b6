# SPDX-License-Identifier: GPL-2.0-only
"""What a driver is: the hooks that the core calls (QEMU's BlockDriver, block_int.h).

    this                opening and closing, the image as a whole, permissions, the event loop
    request_hooks.py    what is called for requests

R1  A driver is one stateless object; the state of a node is in `bs.opaque`.
R2  Hooks are optional. `drv.hooks` names those that a class has written itself, and the
    core asks it where the absence of a hook means something of its own.
R3  Hooks named co_* are coroutines (or plain functions that return an awaitable, which
    saves a level): they raise BlockError and make no synchronous call on a node.
R4  The core has checked bounds, permissions, alignment (bs.bl.request_alignment) and
    max_transfer before it calls a request hook.
R5  Whatever a driver registers, it registers with `bs.aio_context`, read at that moment,
    with owner=bs; what stays registered without a request in flight is removed in
    detach_aio_context and put back in attach_aio_context (DESIGN.md, rules 1 and 2).
Who may call it: block.core, in the thread that holds the node's context.
"""

from __future__ import annotations

import errno

from block.core import flags as f
from block.core.error import BlockError
from block.core.request_hooks import RequestHooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import ClassVar

    from block.aio.context import AioContext
    from block.core.check import BdrvCheckResult
    from block.core.edge import BdrvChild
    from block.core.node import BlockDriverState
    from block.core.options import Option
    from block.core.snapshot import SnapshotInfo


class BlockDriverInfo:
    """What get_info tells of an image (QEMU's BlockDriverInfo).

    needs_compressed_writes: the image takes only clusters that it can compress.
    """

    __slots__ = (
        "cluster_size",
        "is_dirty",
        "needs_compressed_writes",
        "subcluster_size",
        "vm_state_offset",
    )

    def __init__(self, cluster_size: int = 0) -> None:
        self.cluster_size = cluster_size
        self.subcluster_size = 0
        self.vm_state_offset = 0
        self.is_dirty = False
        self.needs_compressed_writes = False


class BlockDriver(RequestHooks):
    """The hooks; the class itself is the driver that can do nothing."""

    protocol_name: ClassVar[str | None] = None
    is_filter: ClassVar[bool] = False
    # False: neither a protocol nor a filter, and yet no format (quorum): children are probed.
    is_format: ClassVar[bool] = True
    supports_backing: ClassVar[bool] = False
    needs_filename: ClassVar[bool] = False
    has_variable_length: ClassVar[bool] = False
    runtime_opts: ClassVar[tuple[Option, ...]] = ()
    create_opts: ClassVar[tuple[Option, ...]] = ()
    amend_opts: ClassVar[tuple[Option, ...]] = ()  # what amend_options can change
    strong_runtime_opts: ClassVar[tuple[str, ...]] = ()
    mutable_opts: ClassVar[tuple[str, ...]] = ()  # those that a reopen may change
    hooks: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        names = (n for n in dir(BlockDriver) if not n.startswith("_") and n != "hooks")
        cls.hooks = frozenset(n for n in names if getattr(cls, n) is not getattr(BlockDriver, n))

    # -- opening and closing

    def parse_filename(self, filename: str, options: dict[str, object]) -> None:
        """Turns `proto:...` into options of the driver (bdrv_parse_filename)."""

    def probe(self, head: bytes, filename: str) -> int:
        """Scores the first bytes of an image, 0 to 100 (bdrv_probe)."""
        return 0

    def open(self, bs: BlockDriverState, options: dict[str, object], flags: int) -> None:
        """Opens the image (bdrv_open, bdrv_file_open).

        Pops what it understands from `options`, opens its children, sets bs.opaque and,
        where it knows it, bs.total_sectors. `flags` are BDRV_O_*. Raises BlockError.
        """
        raise self._unsupported(bs, "opening images")

    def close(self, bs: BlockDriverState) -> None:
        """Frees what open made (bdrv_close). The children are closed by the core, afterwards."""

    def create(self, filename: str, options: dict[str, object]) -> None:
        """Makes an empty image by that name (bdrv_co_create_opts).

        Pops what it understands of `create_opts` from the flat `options`; blocks.
        """
        message = f"Driver '{self.format_name}' does not support image creation"
        raise BlockError(errno.ENOTSUP, message, driver=self.format_name)

    def delete_file(self, filename: str) -> None:
        """Removes what create made (bdrv_co_delete_file); blocks. Raises OSError."""
        message = f"Driver '{self.format_name}' does not support image deletion"
        raise BlockError(errno.ENOTSUP, message, driver=self.format_name)

    def measure(self, options: dict[str, object], in_bs: BlockDriverState | None) -> dict[str, int]:
        """Tells how large a new image would be (bdrv_measure); blocks.

        `options` are those of `create`, converted; `in_bs` is the image that would be copied,
        or None: then the size is an option. The answer is BlockMeasureInfo of QEMU's schema.
        """
        message = f"Block driver '{self.format_name}' does not support size measurement"
        raise BlockError(errno.ENOTSUP, message, driver=self.format_name)

    def refresh_filename(self, bs: BlockDriverState) -> None:
        """Sets bs.exact_filename anew where a name opens the same node (bdrv_refresh_filename)."""

    def gather_child_options(self, bs: BlockDriverState) -> dict[str, object]:
        """The children's full options, where their names are no good keys for them
        (bdrv_gather_child_options)."""
        raise self._unsupported(bs, "gathering options")

    def dirname(self, bs: BlockDriverState) -> str:
        """The directory that names in the image are relative to (bdrv_dirname)."""
        raise self._unsupported(bs, "directories")

    def refresh_limits(self, bs: BlockDriverState) -> None:
        """Changes bs.bl, which holds the children's limits merged (bdrv_refresh_limits)."""

    def getlength(self, bs: BlockDriverState) -> int:
        """Returns the length in bytes (bdrv_getlength)."""
        return bs.total_sectors * f.SECTOR_SIZE

    def get_info(self, bs: BlockDriverState) -> BlockDriverInfo | None:
        """Tells cluster size and state of the image, or None (bdrv_get_info)."""
        return None

    def get_specific_info(self, bs: BlockDriverState) -> dict[str, object] | None:
        """Tells what only this format has, or None (bdrv_get_specific_info).

        {'type': ..., 'data': {...}}: ImageInfoSpecific of QEMU's schema, its members in the
        schema's order.
        """
        return None

    def get_allocated_file_size(self, bs: BlockDriverState) -> int:
        """Returns the bytes that the image takes on its disk (bdrv_get_allocated_file_size).

        Without this hook a format takes what its children take, and a protocol does not know.
        """
        raise self._unsupported(bs, "telling what an image takes")

    def has_zero_init(self, bs: BlockDriverState) -> bool:
        """Says whether a new image reads as zeroes everywhere (bdrv_has_zero_init).

        Whoever fills it then need not write those. Not asked where there is a backing file.
        """
        return False

    def join_options(self, options: Mapping[str, object], old: dict[str, object]) -> None:
        """Takes from a node's old options what new ones stand against (bdrv_join_options)."""

    def reopen_prepare(
        self, bs: BlockDriverState, options: dict[str, object], flags: int
    ) -> object:
        """Makes ready for new options and flags; may raise (bdrv_reopen_prepare).

        What it returns is handed to reopen_commit or reopen_abort.
        """
        return None

    def reopen_commit(self, bs: BlockDriverState, prepared: object) -> None:
        """Takes over what reopen_prepare made ready; cannot fail (bdrv_reopen_commit)."""

    def reopen_commit_post(self, bs: BlockDriverState) -> None:
        """All nodes have changed: what needs requests is done now (bdrv_reopen_commit_post)."""

    def reopen_abort(self, bs: BlockDriverState, prepared: object) -> None:
        """Throws away what reopen_prepare made ready (bdrv_reopen_abort)."""

    # -- the image as a whole

    def co_check(self, bs: BlockDriverState, result: BdrvCheckResult, fix: int) -> Awaitable[None]:
        """Checks the image's tables, and repairs what `fix` allows (bdrv_co_check).

        Fills `result`, which is new, as far as it gets; raises BlockError where it cannot go
        on. `fix` holds check.FIX_*.
        """
        raise self._unsupported(bs, "checks")

    def change_backing_file(
        self, bs: BlockDriverState, backing_file: str, backing_fmt: str
    ) -> None:
        """Writes another name of a backing file into the header, '' for none; blocks
        (bdrv_change_backing_file)."""
        raise self._unsupported(bs, "changing the backing file")

    def make_empty(self, bs: BlockDriverState) -> None:
        """Lets go of all that the image holds, its backing file shows through; blocks
        (bdrv_make_empty). The node is drained."""
        raise self._unsupported(bs, "emptying of image files")

    def amend_options(
        self,
        bs: BlockDriverState,
        options: dict[str, object],
        progress: Callable[[int, int], None],
        force: bool,
    ) -> None:
        """Changes options that the image was created with; blocks (bdrv_amend_options).

        `options` are those of `amend_opts` that the user gave, converted. `progress` is called
        with the work done and all of it. `force` allows what may lose data for good (luks).
        """
        raise self._unsupported(bs, "option amendment")

    # -- dirty bitmaps that the image keeps (dirty_bitmap.py)

    def supports_persistent_dirty_bitmap(self, bs: BlockDriverState) -> bool:
        """Says whether the image can keep bitmaps (bdrv_supports_persistent_dirty_bitmap)."""
        return False

    def check_can_store_bitmap(self, bs: BlockDriverState, name: str, granularity: int) -> None:
        """Raises unless the image can keep one more, like that
        (bdrv_co_can_store_new_dirty_bitmap)."""
        raise self._unsupported(bs, "persistent bitmaps")

    def co_remove_persistent_dirty_bitmap(self, bs: BlockDriverState, name: str) -> Awaitable[None]:
        """Removes a bitmap from the image, if it is there
        (bdrv_co_remove_persistent_dirty_bitmap)."""
        raise self._unsupported(bs, "persistent bitmaps")

    def co_store_dirty_bitmaps(self, bs: BlockDriverState) -> Awaitable[None]:
        """Writes all persistent bitmaps, and makes them read-only (qcow2_reopen_bitmaps_ro)."""
        raise self._unsupported(bs, "persistent bitmaps")

    # -- internal snapshots (snapshot.py); they block

    def snapshot_create(self, bs: BlockDriverState, info: SnapshotInfo) -> None:
        """Keeps what the disk holds now, and sets `info.id` (bdrv_snapshot_create)."""
        raise self._unsupported(bs, "internal snapshots")

    def snapshot_goto(self, bs: BlockDriverState, id_or_name: str) -> None:
        """Lets the disk be what it was in a snapshot, its length included (bdrv_snapshot_goto).

        ENOENT: there is none with that ID, or else with that name.
        """
        raise self._unsupported(bs, "internal snapshots")

    def snapshot_delete(
        self, bs: BlockDriverState, snapshot_id: str | None, name: str | None
    ) -> None:
        """Forgets the first snapshot with that ID, or name, or both (bdrv_snapshot_delete)."""
        raise self._unsupported(bs, "internal snapshots")

    def snapshot_list(self, bs: BlockDriverState) -> list[SnapshotInfo]:
        """Tells of all snapshots, the oldest first (bdrv_snapshot_list)."""
        raise self._unsupported(bs, "internal snapshots")

    def snapshot_load_tmp(
        self, bs: BlockDriverState, snapshot_id: str | None, name: str | None
    ) -> None:
        """Lets a read-only node read a snapshot until it is closed (bdrv_snapshot_load_tmp)."""
        raise self._unsupported(bs, "internal snapshots")

    # -- children that come and go

    def add_child(self, bs: BlockDriverState, child_bs: BlockDriverState) -> None:
        """Takes one more child while the node is in use (bdrv_add_child)."""
        raise self._unsupported(bs, "adding a child")

    def del_child(self, bs: BlockDriverState, child: BdrvChild) -> None:
        """Lets a child go while the node is in use (bdrv_del_child)."""
        raise self._unsupported(bs, "removing a child")

    # -- permissions

    def child_perm(
        self,
        bs: BlockDriverState,
        child: BdrvChild | None,
        role: int,
        perm: int,
        shared: int,
    ) -> tuple[int, int]:
        """Says what the node needs of a child, and shares (bdrv_child_perm).

        `perm` and `shared` are what the node's own parents need and share. `child` is None
        while the edge is being made. The default is bdrv_default_perms for the role.
        """
        from block.core.permissions import default_perms

        return default_perms(bs, role, perm, shared)

    def check_perm(self, bs: BlockDriverState, perm: int, shared: int) -> None:
        """Makes ready for new cumulative permissions, for example locks the file; may raise."""

    def set_perm(self, bs: BlockDriverState, perm: int, shared: int) -> None:
        """Takes over what check_perm made ready; cannot fail (bdrv_set_perm)."""

    def abort_perm_update(self, bs: BlockDriverState) -> None:
        """Undoes check_perm (bdrv_abort_perm_update)."""

    # -- the event loop

    def drain_begin(self, bs: BlockDriverState) -> None:
        """Stops submitting requests of the driver's own (bdrv_drain_begin)."""

    def drain_end(self, bs: BlockDriverState) -> None:
        """Takes them up again (bdrv_drain_end)."""

    def detach_aio_context(self, bs: BlockDriverState) -> None:
        """Removes everything that is registered with bs.aio_context (bdrv_detach_aio_context).

        Children other than `file` and `backing` are detached here, after the own.
        """

    def attach_aio_context(self, bs: BlockDriverState, ctx: AioContext) -> None:
        """Registers it with the new context (bdrv_attach_aio_context); cannot fail.

        Children other than `file` and `backing` are attached here, before the own.
        """

    # -- write notification

    def child_resized(self, bs: BlockDriverState, child: BdrvChild) -> None:
        """A child has another length now (the parent's side of BdrvChildClass.resize)."""
