// SPDX-License-Identifier: GPL-2.0-only
//
// The disk's driver. Request i owns a header, a status byte, a page of data and the descriptors
// from 4 * i on, for ever. So a chain, once written, can be used again and again (the shell's bench
// does), and the number in the used ring says which request it was.
//
//   chain:   header (16 bytes) -> data -> status (1 byte)
//
// prepare writes the chain; add puts it into the ring; wait rings the bell, and returns whichever
// request is done first. disk_run does all of it, for one request or for many.
//
#include "disk.h"

struct disk disks[NDISK];
u64 ndisk, interrupts;
u8 data[2 * NREQUEST][PAGE] __attribute__((aligned(PAGE)));

// There may be a device at this address.
void disk_found(u64 address, u64 pin) {
    struct disk *d = &disks[ndisk];

    if (ndisk == NDISK || REG(address, MAGIC) != VIRT || REG(address, DEVICE_ID) != BLOCK_DEVICE)
        return;
    d->reg = address;
    irq_enable(pin, VECTOR_DISK);
    disk_start(d);
    printf("disk %lu: %lu sectors, registers %lx, pin %lu\n", ndisk++, d->capacity, address, pin);
}

// From any state to running with an empty ring (3.1.1): the first start, and every one after a
// reset, which makes the device forget what was in flight.
void disk_start(struct disk *d) {
    REG(d->reg, STATUS) = 0;
    while (REG(d->reg, STATUS) != 0)
        relax();
    REG(d->reg, STATUS) = ACKNOWLEDGE | DRIVER;
    REG(d->reg, DRIVER_HALF) = 1;
    REG(d->reg, DRIVER_FEATURES) = VERSION_1;
    REG(d->reg, DRIVER_HALF) = REG(d->reg, DEVICE_HALF) = 0;
    REG(d->reg, DRIVER_FEATURES) = d->features = REG(d->reg, DEVICE_FEATURES) & F_ALL;
    REG(d->reg, STATUS) = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    d->capacity = REG(d->reg, CAPACITY) | (u64)REG(d->reg, CAPACITY + 4) << 32;
    d->nbytes = has(d, F_BLK_SIZE) ? REG(d->reg, BLOCK_SIZE) : SECTOR;
    REG(d->reg, QUEUE_SELECT) = 0;
    if (REG(d->reg, VERSION) != 2 || !(REG(d->reg, STATUS) & FEATURES_OK) ||
        REG(d->reg, QUEUE_MAX) < RING || d->nbytes > PAGE || d->capacity < PAGE / SECTOR)
        panic("no disk for us; QEMU needs -global virtio-mmio.force-legacy=false");
    memset(&d->ring, 0, sizeof(d->ring));
    REG(d->reg, QUEUE_SIZE) = RING;
    REG(d->reg, DESC) = (u64)d->ring.desc;
    REG(d->reg, AVAIL) = (u64)&d->ring.avail;
    REG(d->reg, USED) = (u64)&d->ring.used;
    REG(d->reg, DESC + 4) = REG(d->reg, AVAIL + 4) = REG(d->reg, USED + 4) = 0;
    REG(d->reg, QUEUE_READY) = 1;
    REG(d->reg, STATUS) = RUNNING;
}

// Write request i's chain. Without bytes it has no data.
static void prepare(struct disk *d, u32 i, struct io io) {
    struct request *r = &d->request[i];
    u8 *bytes = data[io.page + i];
    u32 first = io.indirect ? 0 : 4 * i;
    struct desc *chain = io.indirect ? r->table : &d->ring.desc[first];

    r->header = (typeof(r->header)){ io.type, 0, io.type <= OUT ? io.sector : 0 };
    if (io.type == DISCARD || io.type == ZEROES) {            // the range is the data
        struct { u64 sector; u32 nsectors, flags; } *range = (void *)bytes;
        *range = (typeof(*range)){ io.sector, io.nbytes / SECTOR, 0 };
        io.nbytes = sizeof(*range);
    }
    r->status = NO_STATUS;
    chain[0] = (struct desc){ (u64)&r->header, sizeof(r->header), NEXT, first + 1 + !io.nbytes };
    chain[1] = (struct desc){ (u64)bytes, io.nbytes, NEXT | (reads(io) ? WRITE : 0), first + 2 };
    chain[2] = (struct desc){ (u64)&r->status, 1, WRITE, 0 };
    if (io.indirect)
        d->ring.desc[4 * i] = (struct desc){ (u64)chain, sizeof(r->table), INDIRECT, 0 };
}

// Put request i, prepared, into the ring, where the device does not look before wait.
static inline void add(struct ring *ring, u32 i) { ring->avail.ring[ring->added++ % RING] = 4 * i; }

// Let the device see what was added, and ring its doorbell if it wants that: with EVENT_IDX, if
// its event is among old ... new - 1 (2.6.7.1).
static void kick(struct disk *d) {
    u16 old = d->ring.avail.idx, new = d->ring.added;

    barrier();                               // the chains first, then the index
    d->ring.avail.idx = new;
    fence();                                 // the index first, then a look at whether it listens
    u16 distance = new - d->ring.used.avail_event - 1;
    if (!has(d, F_EVENT_IDX) || distance < (u16)(new - old)) {
        REG(d->reg, QUEUE_NOTIFY) = 0;
        d->doorbells++;
    }
}

static inline int is_empty(struct ring *ring) { return ring->used.idx == ring->taken; }

// The number of a request that the device is done with. If there is none yet, kick and wait for it.
static u32 wait(struct disk *d) {
    struct ring *ring = &d->ring;

    if (is_empty(ring))
        kick(d);
    while (is_empty(ring)) {
        relax();
        if (d->polling)
            continue;
        ring->avail.used_event = ring->taken;    // please interrupt with the next one
        fence();                             // ask first, then look once more
        if (is_empty(ring))
            sleep();
    }
    barrier();                               // the index first, then the entry and the data
    return ring->used.ring[ring->taken++ % RING].id / 4;
}

// n requests like io, `depth` of them at a time. Returns how many did not go well.
u64 disk_run(struct disk *d, struct io io, u64 n, u64 depth) {
    u64 end = d->capacity & ~7UL, added, failed = 0;

    for (added = 0; added < depth; added++) {
        prepare(d, added, io);
        add(&d->ring, added);
        io.sector = (io.sector + STRIDE) % end;
    }
    for (u64 done = 0; done < n; done++) {
        u32 i = wait(d);
        failed += d->request[i].status != OK;
        if (added < n) {
            d->request[i].header.sector = added++ * STRIDE % end;
            add(&d->ring, i);
        }
    }
    return failed;
}

// One request. Returns its status.
int disk_do(struct disk *d, struct io io) {
    disk_run(d, io, 1, 1);
    return d->request[0].status;
}

// From boot.S. Acknowledged before anyone looks at the ring: the line is an edge, and an
// acknowledgement after the look would wipe out the cause that came in between. InterruptStatus is
// not read: that would be one more exit out of the guest, and both causes are treated alike.
void disk_interrupt(void) {
    for (struct disk *d = disks; d < disks + ndisk; d++)
        REG(d->reg, INTERRUPT_ACK) = 3;
    interrupts++;
    irq_done();
}
