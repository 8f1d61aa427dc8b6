# SPDX-License-Identifier: GPL-2.0-only
"""The properties of a virtio-blk device, and what may be wrong with them (QEMU's VirtIOBlkConf).

Names and defaults are those of QEMU's `-device virtio-blk-device,help`, with underscores; so are
the messages. Sizes are bytes, sectors are 512 bytes.
"""

from __future__ import annotations

from miniqemu.hw import virtio_blk_layout as layout
from miniqemu.hw.virtio_blk_layout import SECTOR
from miniqemu.hw.virtqueue import F_EVENT_IDX, F_INDIRECT_DESC, MAX_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.iothread import IOThread
    from block.core.backend import BlockBackend

REQUEST_MAX_SECTORS = 0x7FFF_FE00 // SECTOR  # BDRV_REQUEST_MAX_SECTORS
MAX_QUEUES = 1024  # VIRTIO_QUEUE_MAX
MAX_SEGMENTS = 32  # of one discard or write-zeroes request
CHS_LIMITS = {"cyls": 65535, "heads": 255, "secs": 255}


class DeviceError(ValueError):
    """A property, or a combination of them, that cannot be; str() is QEMU's text."""


class VirtioBlkConf:
    """What `-device virtio-blk-device,...` says; DeviceError names what cannot be."""

    def __init__(
        self,
        blk: BlockBackend,
        *,
        serial: str = "",
        num_queues: int = 1,
        queue_size: int = 256,
        iothread: IOThread | None = None,
        ioeventfd: bool = True,
        logical_block_size: int = SECTOR,
        physical_block_size: int = SECTOR,
        min_io_size: int = 0,
        opt_io_size: int = 0,
        discard_granularity: int = 0,
        share_rw: bool = False,
        config_wce: bool = True,
        discard: bool = True,
        write_zeroes: bool = True,
        max_discard_sectors: int = REQUEST_MAX_SECTORS,
        max_write_zeroes_sectors: int = REQUEST_MAX_SECTORS,
        seg_max_adjust: bool = True,
        request_merging: bool = True,
        event_idx: bool = True,
        indirect_desc: bool = True,
        cyls: int = 0,
        heads: int = 0,
        secs: int = 0,
    ) -> None:
        self.blk = blk
        self.serial = serial
        self.num_queues = num_queues
        self.queue_size = queue_size
        self.iothread = iothread
        self.ioeventfd = ioeventfd
        self.logical_block_size = logical_block_size
        self.physical_block_size = physical_block_size
        self.min_io_size = min_io_size
        self.opt_io_size = opt_io_size
        self.discard_granularity = discard_granularity  # 0: the logical block
        self.share_rw = share_rw  # others may write to the image, too
        self.config_wce = config_wce
        self.discard = discard
        self.write_zeroes = write_zeroes
        self.max_discard_sectors = max_discard_sectors
        self.max_write_zeroes_sectors = max_write_zeroes_sectors
        self.seg_max_adjust = seg_max_adjust
        self.request_merging = request_merging
        self.event_idx = event_idx
        self.indirect_desc = indirect_desc
        self.cyls, self.heads, self.secs = cyls, heads, secs
        self._check_queues()
        self._check_block_sizes()
        self._check_limits()
        self._check_geometry()

    def _check_queues(self) -> None:
        if self.num_queues < 1:
            raise DeviceError("num-queues property must be larger than 0")
        if self.num_queues > MAX_QUEUES:
            raise DeviceError(f"num-queues property must not exceed {MAX_QUEUES}")
        size = self.queue_size
        if size <= 2:
            raise DeviceError(f"invalid queue-size property ({size}), must be > 2")
        if size & (size - 1) or size > MAX_SIZE:
            raise DeviceError(
                f"invalid queue-size property ({size}), must be a power of 2 (max {MAX_SIZE})"
            )
        if self.iothread is not None and not self.ioeventfd:
            raise DeviceError("ioeventfd is required for iothread")

    def _check_block_sizes(self) -> None:
        for name in ("logical_block_size", "physical_block_size"):
            size: int = getattr(self, name)
            if size < SECTOR or size > 2 << 20 or size & (size - 1):
                raise DeviceError(
                    f"Property {name} doesn't take value {size} "
                    f"(a power of 2 from 512 to 2 MiB is needed)"
                )
        if self.logical_block_size > self.physical_block_size:
            raise DeviceError("logical_block_size > physical_block_size not supported")
        for name in ("min_io_size", "opt_io_size", "discard_granularity"):
            if getattr(self, name) % self.logical_block_size:
                raise DeviceError(f"{name} must be a multiple of logical_block_size")
        if self.min_io_size // self.logical_block_size > 0xFFFF:
            raise DeviceError("min_io_size must not exceed 65535 logical blocks")

    def _check_limits(self) -> None:
        for name in ("discard", "write_zeroes"):
            limit: int = getattr(self, f"max_{name}_sectors")
            if getattr(self, name) and not 0 < limit <= REQUEST_MAX_SECTORS:
                option = f"max-{name.replace('_', '-')}-sectors"
                raise DeviceError(
                    f"invalid {option} property ({limit}), "
                    f"must be between 1 and {REQUEST_MAX_SECTORS}"
                )

    def _check_geometry(self) -> None:
        if not (self.cyls or self.heads or self.secs):
            return
        for name, limit in CHS_LIMITS.items():
            if not 1 <= getattr(self, name) <= limit:
                raise DeviceError(f"{name} must be between 1 and {limit}")

    def geometry(self, total_sectors: int) -> tuple[int, int, int]:
        """Cylinders, heads and sectors: as given, or guessed from the size (hd_geometry_guess)."""
        if self.cyls:
            return self.cyls, self.heads, self.secs
        heads, secs = 16, 63
        return min(max(total_sectors // (heads * secs), 2), 16383), heads, secs

    def features(self, read_only: bool) -> int:
        """The feature bits of the disk (virtio_blk_get_features)."""
        always = layout.F_SIZE_MAX | layout.F_SEG_MAX | layout.F_GEOMETRY | layout.F_BLK_SIZE
        return (
            always
            | layout.F_TOPOLOGY
            | layout.F_FLUSH
            | (layout.F_CONFIG_WCE if self.config_wce else 0)
            | (layout.F_RO if read_only else 0)
            | (layout.F_MQ if self.num_queues > 1 else 0)
            | (layout.F_DISCARD if self.discard else 0)
            | (layout.F_WRITE_ZEROES if self.write_zeroes else 0)
            | (F_EVENT_IDX if self.event_idx else 0)
            | (F_INDIRECT_DESC if self.indirect_desc else 0)
        )

    def config_space(self, capacity: int, write_cache: bool) -> bytearray:
        """What a driver reads, for a disk of `capacity` sectors (virtio_blk_update_config)."""
        block = self.logical_block_size
        cyls, heads, secs = self.geometry(capacity)
        values = {
            "capacity": capacity,
            "size_max": REQUEST_MAX_SECTORS * SECTOR,
            "seg_max": (self.queue_size if self.seg_max_adjust else 128) - 2,
            "cylinders": cyls,
            "heads": heads,
            "sectors": secs,
            "blk_size": block,
            "physical_block_exp": (self.physical_block_size // block).bit_length() - 1,
            "min_io_size": self.min_io_size // block,
            "opt_io_size": self.opt_io_size // block,
            "writeback": int(write_cache),
            "num_queues": self.num_queues,
        }
        if self.discard:
            values["max_discard_sectors"] = self.max_discard_sectors
            values["max_discard_seg"] = MAX_SEGMENTS
            values["discard_sector_alignment"] = (self.discard_granularity or block) // SECTOR
        if self.write_zeroes:
            values["max_write_zeroes_sectors"] = self.max_write_zeroes_sectors
            values["max_write_zeroes_seg"] = MAX_SEGMENTS
            values["write_zeroes_may_unmap"] = 1
        return layout.pack_config(values)
