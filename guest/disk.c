// SPDX-License-Identifier: GPL-2.0-only
//
// The disk's driver. Request i owns a header, a status byte, a page of data and the descriptors
// from 4 * i on, for ever. So a chain, once written, can be used again and again (the shell's bench
// does), and the number in the used ring says which request it was.
//
//   chain:   header (16 bytes) -> data -> status (1 byte)
//
// disk_prepare writes the chain; disk_add puts it into the ring; disk_wait rings the bell, and
// returns whichever request is done first.
//
#include "disk.h"

struct disk disks[NDISK];
u64 ndisk;
u8 data[NREQUEST][PAGE] __attribute__((aligned(PAGE)));

// What this driver knows. It agrees to each of these that a disk offers.
const char *const feature_names[NFEATURE] = {
    [1] = "SIZE_MAX", "SEG_MAX", [5] = "RO", "BLK_SIZE", [9] = "FLUSH", "TOPOLOGY", "CONFIG_WCE",
    "MQ", "DISCARD", "WRITE_ZEROES", [28] = "INDIRECT_DESC", "EVENT_IDX", [32] = "VERSION_1",
};

// There may be a device at this address.
void disk_found(u64 address, u64 pin) {
    struct disk *d = &disks[ndisk];

    if (ndisk == NDISK || REG(address, MAGIC) != VIRT || REG(address, DEVICE_ID) != BLOCK_DEVICE)
        return;
    if (REG(address, VERSION) == 1)
        panic("virtio-mmio version 1: QEMU needs -global virtio-mmio.force-legacy=false");
    d->reg = address;
    d->pin = pin;
    irq_enable(pin, VECTOR_DISK + ndisk++);
    disk_start(d);
}

static void agree_on_features(struct disk *d) {
    u64 known = 0;

    for (u32 i = 0; i < NFEATURE; i++)
        known |= feature_names[i] ? 1UL << i : 0;
    d->features = 0;
    for (u32 half = 0; half < 2; half++) {
        REG(d->reg, DEVICE_HALF) = REG(d->reg, DRIVER_HALF) = half;
        u64 agreed = REG(d->reg, DEVICE_FEATURES) & (u32)(known >> 32 * half);
        REG(d->reg, DRIVER_FEATURES) = agreed;
        d->features |= agreed << 32 * half;
    }
    REG(d->reg, STATUS) = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    if (!has(d, F_VERSION_1) || !(REG(d->reg, STATUS) & FEATURES_OK))
        panic("agree_on_features: we cannot agree");
}

static void write_address(struct disk *d, u32 reg, volatile void *address) {
    REG(d->reg, reg) = (u64)address;
    REG(d->reg, reg + 4) = (u64)address >> 32;
}

// From any state to running with an empty ring (3.1.1): the first start, and every one after a
// reset, which makes the device forget what was in flight.
void disk_start(struct disk *d) {
    REG(d->reg, STATUS) = 0;
    while (REG(d->reg, STATUS) != 0)
        relax();
    REG(d->reg, STATUS) = ACKNOWLEDGE | DRIVER;
    agree_on_features(d);
    d->capacity = REG(d->reg, CAPACITY) | (u64)REG(d->reg, CAPACITY + 4) << 32;
    d->nbytes = has(d, F_BLK_SIZE) ? REG(d->reg, BLOCK_SIZE) : SECTOR;
    memset(&d->ring, 0, sizeof(d->ring));
    REG(d->reg, QUEUE_SELECT) = d->queue;
    if (REG(d->reg, QUEUE_MAX) < RING || d->nbytes > PAGE)
        panic("disk_start: needs queues of 128 descriptors, and blocks of at most 4096 bytes");
    REG(d->reg, QUEUE_SIZE) = RING;
    write_address(d, DESC, d->ring.desc);
    write_address(d, AVAIL, &d->ring.avail);
    write_address(d, USED, &d->ring.used);
    REG(d->reg, QUEUE_READY) = 1;
    REG(d->reg, STATUS) = RUNNING;
}

// Write request i's chain. Without bytes it has no data.
void disk_prepare(struct disk *d, u32 i, struct io io) {
    struct request *r = &d->request[i];
    u32 first = io.indirect ? 0 : 4 * i;
    struct desc *chain = io.indirect ? r->table : &d->ring.desc[first];

    r->header = (typeof(r->header)){ io.type, 0, io.type <= OUT ? io.sector : 0 };
    if (io.type == DISCARD || io.type == ZEROES) {            // the range is the data
        struct { u64 sector; u32 nsectors, flags; } *range = (void *)data[i];
        *range = (typeof(*range)){ io.sector, io.nbytes / SECTOR, 0 };
        io.nbytes = sizeof(*range);
    }
    chain[0] = (struct desc){ (u64)&r->header, sizeof(r->header), NEXT, first + 1 + !io.nbytes };
    chain[1] = (struct desc){ (u64)data[i], io.nbytes, NEXT | (reads(io) ? WRITE : 0), first + 2 };
    chain[2] = (struct desc){ (u64)&r->status, 1, WRITE, 0 };
    if (io.indirect)
        d->ring.desc[4 * i] = (struct desc){ (u64)chain, sizeof(r->table), INDIRECT, 0 };
}

// Put request i, prepared, into the ring, where the device does not look before disk_wait.
void disk_add(struct disk *d, u32 i) {
    d->request[i].status = NO_STATUS;
    d->ring.avail.ring[d->ring.added++ % RING] = 4 * i;
}

// Let the device see what was added, and ring its doorbell if it wants that: with EVENT_IDX, if
// its event is among old ... new - 1 (2.6.7.1).
static void kick(struct disk *d) {
    u16 old = d->ring.avail.idx, new = d->ring.added;

    if (old == new)
        return;
    barrier();                               // the chains first, then the index
    d->ring.avail.idx = new;
    fence();                                 // the index first, then a look at whether it listens
    u16 behind = new - d->ring.used.avail_event - 1;
    if (!has(d, F_EVENT_IDX) || behind < (u16)(new - old)) {
        REG(d->reg, QUEUE_NOTIFY) = d->queue;
        d->doorbells++;
    }
}

static inline int is_empty(struct ring *ring) { return ring->used.idx == ring->taken; }

// Ask for an interrupt with the next used request, and sleep until it comes, unless there is a
// used request by now. 0 if it does not come in time.
__attribute__((noinline))                    // what it needs would burden who need not sleep
static int interrupted(struct disk *d) {
    u64 before = d->interrupts;

    d->ring.avail.used_event = d->ring.taken;
    fence();                                 // ask first, then look once more
    if (!is_empty(&d->ring))
        return 1;
    while (d->interrupts == before && !late)
        sleep();
    return d->interrupts != before;
}

// The number of a request that the device is done with. If there is none yet, kick and wait; -1
// if that takes too long.
int disk_wait(struct disk *d) {
    struct ring *ring = &d->ring;

    if (is_empty(ring))
        kick(d);
    while (is_empty(ring))
        if (d->polling)
            relax();
        else if (!interrupted(d))
            return -1;
    barrier();                               // the index first, then the entry and the data
    u32 slot = ring->taken++ % RING, i = ring->used.ring[slot].id / 4;
    d->request[i].written = ring->used.ring[slot].len;
    return i;
}

// One request, alone, from data[0] or to it. Returns its status.
int disk_do(struct disk *d, struct io io) {
    disk_prepare(d, 0, io);
    disk_add(d, 0);
    if (disk_wait(d) == 0)
        return d->request[0].status;
    disk_start(d);                           // nothing of it is in flight any more
    return TIMED_OUT;
}

// Acknowledged before anyone looks at the ring: the line is an edge, and an acknowledgement after
// the look would wipe out the cause that came in between. InterruptStatus is not read: both causes
// are treated alike, and a read is one more exit out of the guest.
void disk_interrupt(u32 number) {
    REG(disks[number].reg, INTERRUPT_ACK) = 3;
    disks[number].interrupts++;
}
