# SPDX-License-Identifier: GPL-2.0-only
"""-drive, in the words of old, as options of a node and settings of a backend (QEMU: blockdev.c).

    file=, format=, node-name=, x.y=        go to the node
    cache=                                  is split: two flags of the node, one of the device
    throttling.*=, and their older names    limits of the backend (throttling.py)
    readonly=, aio=, detect-zeroes=         are translated
    rerror=, werror=, id=                   belong to the backend
    snapshot=                               puts an overlay between (block/ops/snapshot_overlay.py)
    if=, bus=, unit=, index=, media=        say where a board should plug it in: only if=none here

What is left after that is the driver's, which refuses what it does not know.
"""

from __future__ import annotations

from block.core.cache import parse_aio, parse_cache_mode
from block.core.options import parse_bool, parse_number

from .config import Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.core.backend import BlockBackend

    from .throttling import DriveThrottling

RENAMED = {
    "iops": "throttling.iops-total",
    "iops_rd": "throttling.iops-read",
    "iops_wr": "throttling.iops-write",
    "bps": "throttling.bps-total",
    "bps_rd": "throttling.bps-read",
    "bps_wr": "throttling.bps-write",
    "iops_max": "throttling.iops-total-max",
    "iops_rd_max": "throttling.iops-read-max",
    "iops_wr_max": "throttling.iops-write-max",
    "bps_max": "throttling.bps-total-max",
    "bps_rd_max": "throttling.bps-read-max",
    "bps_wr_max": "throttling.bps-write-max",
    "iops_size": "throttling.iops-size",
    "group": "throttling.group",
    "readonly": "read-only",
}
INTERFACES = ("none", "ide", "scsi", "floppy", "pflash", "mtd", "sd", "virtio", "xen")
READ_ERROR_ACTIONS = ("report", "ignore", "stop")
WRITE_ERROR_ACTIONS = ("report", "ignore", "stop", "enospc")


class Drive:
    """One -drive, understood but not opened (DriveInfo); `snapshot` is the option -snapshot."""

    def __init__(self, item: Item, number: int, snapshot: bool = False) -> None:
        self.item = item
        self.options = dict(item.values)
        self.flags = 0
        self.snapshot = snapshot
        self.blk: BlockBackend | None = None
        self._rename()
        self.writethrough = self._take_cache()
        self.read_only = self._take_read_only()
        self._take_place()
        self.id = self._take("id") or f"none{number}"
        self.filename = self._take("file") or None
        self.throttling = self._take_throttling()
        self.on_write_error = self._take_action("werror", "write", WRITE_ERROR_ACTIONS, "enospc")
        self.on_read_error = self._take_action("rerror", "read", READ_ERROR_ACTIONS, "report")
        self.is_empty = self.filename is None and not self.options
        self._take_common()
        self._set_defaults()

    def _take(self, name: str) -> str | None:
        """Removes an option; its text, or None."""
        text = self.item.text_of(name) if name in self.options else None
        self.options.pop(name, None)
        return text

    def _take_bool(self, name: str, default: bool = False) -> bool:
        return bool(self.item.check(parse_bool, name, self.options.pop(name, default)))

    def _rename(self) -> None:
        for old, new in RENAMED.items():
            if old in self.options:
                if new in self.options:
                    raise self.item.error(
                        f"'{new}' and its alias '{old}' can't be used at the same time"
                    )
                self.options[new] = self.options.pop(old)
        for name in self.options:
            if name.startswith("stats-"):
                raise self.item.error(f"'{name}' is not supported by miniqemu")

    def _take_throttling(self) -> DriveThrottling | None:
        if not any(name.startswith("throttling.") for name in self.options):
            return None
        from .throttling import DriveThrottling

        return DriveThrottling(self.item, self.options)

    def _take_cache(self) -> bool:
        """cache=; what is said of its three parts alone wins. Returns writethrough."""
        mode = self._take("cache")
        writethrough = False
        if mode is not None:
            from block.core.flags import BDRV_O_NO_FLUSH, BDRV_O_NOCACHE

            flags, writethrough = self.item.check(parse_cache_mode, mode)
            self.options.setdefault("cache.direct", bool(flags & BDRV_O_NOCACHE))
            self.options.setdefault("cache.no-flush", bool(flags & BDRV_O_NO_FLUSH))
        if "cache.writeback" in self.options:
            writethrough = not self._take_bool("cache.writeback")
        return writethrough

    def _take_read_only(self) -> bool:
        read_only = self._take_bool("read-only")
        media = self._take("media")
        if media not in (None, "disk", "cdrom"):
            raise self.item.error(f"'{media}' invalid media")
        return read_only or media == "cdrom"

    def _take_place(self) -> None:
        """if=, bus=, unit=, index=: miniqemu's board plugs in nothing by itself."""
        interface = self._take("if") or "none"
        if interface not in INTERFACES:
            raise self.item.error(f"unsupported bus type '{interface}'")
        if interface != "none":
            raise self.item.error(f"if={interface} is not supported by miniqemu (if=none is)")
        given = [name for name in ("index", "bus", "unit") if name in self.options]
        for name in given:
            self.item.check(parse_number, name, self.options.pop(name))
        if "index" in given and len(given) > 1:
            raise self.item.error("index cannot be used with bus and unit")

    def _take_action(self, name: str, kind: str, actions: tuple[str, ...], default: str) -> str:
        action = self._take(name) or default
        if action not in actions:
            raise self.item.error(f"'{action}' invalid {kind} error action")
        return action

    def _take_common(self) -> None:
        """What blockdev_init looks at before it opens anything."""
        self.snapshot = self._take_bool("snapshot", self.snapshot)
        if self._take_bool("copy-on-read"):
            self._enable_copy_on_read()
        aio = self._take("aio")
        if aio is not None:
            self.flags |= self.item.check(parse_aio, aio)
        format = self._take("format")
        if format is not None:
            if "driver" in self.options:
                raise self.item.error("Cannot specify both 'driver' and 'format'")
            self.options["driver"] = format

    def _enable_copy_on_read(self) -> None:
        from block.core.flags import BDRV_O_COPY_ON_READ

        if self.read_only:
            from block.core.report import warn_report

            warn_report("disabling copy-on-read on read-only drive", self.item.where)
        else:
            self.flags |= BDRV_O_COPY_ON_READ

    def _set_defaults(self) -> None:
        self.options["read-only"] = self.read_only
        for name, value in DEFAULTS.items():
            self.options.setdefault(name, value)


DEFAULTS = {"cache.direct": False, "cache.no-flush": False, "auto-read-only": True}
