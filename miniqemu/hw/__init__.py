# SPDX-License-Identifier: GPL-2.0-only
"""The devices that a guest sees.

virtio
    virtqueue               rings in guest memory, the device's side
    virtio, virtio_status   what every device has; its status as a state machine
    virtio_mmio             the registers
    virtio_serve, dataplane     who serves the queues: the main loop, an IOThread
    virtio_main_thread      what a vCPU's store causes, done in the main thread

The disk
    virtio_blk              the device, from its properties to its end
    virtio_blk_conf         its properties
    virtio_blk_layout       what goes over its queues, byte for byte
    virtio_blk_io, virtio_blk_request   requests; one of them, from chain to status byte

The others
    lapic, ioapic, pit      interrupts and time, where the accelerator has none of its own
    uart                    the serial line
    isa_debug_exit          the way out
"""
