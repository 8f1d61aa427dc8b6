// SPDX-License-Identifier: GPL-2.0-only
//
// virtio 1.1, as much as a disk behind virtio-mmio needs. Chapter numbers are the standard's.
//
#include "guest.h"

// Disks count in sectors. A request has a page of data. Of many in a row, each begins STRIDE behind
// the one before: the device could merge neighbours, these are none.
enum { SECTOR = 512, PAGE = 4096, STRIDE = 127 * 8, NDISK = 8, RING = 128, NREQUEST = 32 };

enum {                                       // registers (4.2.2), and from CAPACITY on 5.2.4
    MAGIC = 0x00, VERSION = 0x04, DEVICE_ID = 0x08, DEVICE_FEATURES = 0x10, DEVICE_HALF = 0x14,
    DRIVER_FEATURES = 0x20, DRIVER_HALF = 0x24, QUEUE_SELECT = 0x30, QUEUE_MAX = 0x34,
    QUEUE_SIZE = 0x38, QUEUE_READY = 0x44, QUEUE_NOTIFY = 0x50, INTERRUPT_ACK = 0x64, STATUS = 0x70,
    DESC = 0x80, AVAIL = 0x90, USED = 0xa0, CAPACITY = 0x100, BLOCK_SIZE = 0x114,
};
enum { VIRT = 0x74726976, BLOCK_DEVICE = 2, VERSION_1 = 1 };    // MAGIC; DEVICE_ID; feature 32
enum { ACKNOWLEDGE = 1, DRIVER = 2, FEATURES_OK = 8, RUNNING = 15 };    // STATUS (2.1)

enum {                                       // features (5.2.3, 6.3): all that we know
    F_RO = 1 << 5, F_BLK_SIZE = 1 << 6, F_FLUSH = 1 << 9, F_DISCARD = 1 << 13, F_ZEROES = 1 << 14,
    F_INDIRECT = 1 << 28, F_EVENT_IDX = 1 << 29,
    F_ALL = F_RO | F_BLK_SIZE | F_FLUSH | F_DISCARD | F_ZEROES | F_INDIRECT | F_EVENT_IDX,
};

// The split virtqueue (2.6). A request is a chain of descriptors, each of which names a piece of
// memory. The driver puts a chain's first number into `avail`; the device puts it into `used`
// when it is done with the chain. Both `idx` run freely and wrap at 65,536. The events say when
// the other side wants to hear: when used.idx, or avail.idx, passes this.
struct desc { u64 addr; u32 len; u16 flags, next; };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };  // it goes on; the device writes; the chain is there

struct ring {
    struct desc desc[RING] __attribute__((aligned(16)));
    volatile struct { u16 flags, idx, ring[RING], used_event; } avail;
    volatile struct { u16 flags, idx; struct { u32 id, len; } ring[RING]; u16 avail_event; } used;
    u16 added, taken;                        // the driver's own: chains into avail, out of used
};

// What can be asked of a disk (5.2.6). Request i's data is in `data` from its page i + `page` on.
// Indirect: the chain lies outside the ring.
struct io { u32 type, indirect; u64 sector, nbytes, page; };
enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, NO_STATUS = 0xff };

struct request {                             // what a request needs besides its data
    struct { u32 type, reserved; u64 sector; } header;
    struct desc table[3];
    volatile u8 status;
};

struct disk {
    u64 reg;                                 // its registers' address
    u32 features;                            // both sides agree on these
    u64 capacity, nbytes;                    // sectors; bytes of a block: requests have whole ones
    u64 doorbells;                           // how many there were
    int polling;                             // wait by looking at the ring, not by interrupt
    struct ring ring;
    struct request request[NREQUEST];
};

extern struct disk disks[NDISK];
extern u64 ndisk, interrupts;                // interrupts: how many came from disks
extern u8 data[2 * NREQUEST][PAGE];

static inline int has(struct disk *d, u32 feature) { return (d->features & feature) != 0; }
static inline int reads(struct io io) { return io.type == IN || io.type == GET_ID; }
void disk_found(u64 address, u64 pin);
void disk_start(struct disk *d);
u64 disk_run(struct disk *d, struct io io, u64 n, u64 depth);
int disk_do(struct disk *d, struct io io);

int selftest(struct disk *d);                // selftest.c
