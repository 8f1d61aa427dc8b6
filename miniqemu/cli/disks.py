# SPDX-License-Identifier: GPL-2.0-only
"""From the properties of a -device virtio-blk-device to the disk's configuration."""

from __future__ import annotations

from miniqemu.hw.virtio_blk_conf import VirtioBlkConf

from .devices import Device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from block.aio.iothread import IOThread
    from block.core.backend import BlockBackend

# Properties that go into the configuration as they are, with '-' as '_'.
PLAIN = (
    "config-wce", "discard", "event_idx", "indirect_desc", "max-discard-sectors",
    "max-write-zeroes-sectors", "min_io_size", "opt_io_size", "queue-size", "request-merging",
    "seg-max-adjust", "share-rw", "write-zeroes",
)  # fmt: skip
# Properties with a value that means "choose": that value.
CHOOSE = {
    "num-queues": 65535,
    "logical_block_size": 0,
    "physical_block_size": 0,
    "discard_granularity": 0xFFFFFFFF,
    "serial": None,
}


def disk_conf(
    device: Device, blk: BlockBackend, iothreads: dict[str, IOThread], ioeventfd: bool
) -> VirtioBlkConf:
    """The configuration of a disk on `blk`. Raises DeviceError or CliError."""
    given = device.properties
    settings = {name.replace("-", "_"): given[name] for name in PLAIN}
    for name, choose in CHOOSE.items():
        if given[name] != choose:
            settings[name.replace("-", "_")] = given[name]
    iothread = given["iothread"]
    if iothread is not None and iothread not in iothreads:
        raise device.error(f"Device '{iothread}' not found")
    if given["rerror"] != "auto":
        blk.on_read_error = given["rerror"]
    if given["werror"] != "auto":
        blk.on_write_error = given["werror"]
    if given["write-cache"] != "auto":
        blk.enable_write_cache = given["write-cache"] == "on"
    return VirtioBlkConf(
        blk,
        iothread=None if iothread is None else iothreads[iothread],
        ioeventfd=ioeventfd,
        **settings,
    )
