// SPDX-License-Identifier: GPL-2.0-only
//
// virtio 1.1, as much as a disk behind virtio-mmio needs. Chapter numbers are the standard's.
//
enum { SECTOR = 512, PAGE = 4096 };          // disks count in sectors; a request's data, at most
enum { NDISK = 8, RING = 128, NREQUEST = 32 };

struct registers {                           // 4.2.2, and from `capacity` on 5.2.4
    u32 magic, version, device_id, vendor_id;
    u32 device_features, device_features_half, unused_018[2];
    u32 driver_features, driver_features_half, unused_028[2];
    u32 queue_select, queue_max, queue_size, unused_03c[2], queue_ready, unused_048[2];
    u32 queue_notify, unused_054[4], interrupt_ack, unused_068[2];
    u32 status, unused_074[3];
    u32 desc[2], unused_088[2], avail[2], unused_098[2], used[2], unused_0a8[22];
    u32 capacity[2], size_max, seg_max, geometry, block_size, topology[2];
    u8 writeback, unused_121;
    u16 num_queues;
};
_Static_assert(offsetof(struct registers, num_queues) == 0x122, "a register is missing");

enum { VIRT = 0x74726976, BLOCK_DEVICE = 2 };            // magic: "virt"; device_id
enum { ACKNOWLEDGE = 1, DRIVER = 2, FEATURES_OK = 8, RUNNING = 15 };    // status (2.1)

// The numbers of feature bits (5.2.3, 6).
enum {
    F_RO = 5, F_BLK_SIZE = 6, F_FLUSH = 9, F_CONFIG_WCE = 11, F_MQ = 12, F_DISCARD = 13,
    F_WRITE_ZEROES = 14, F_INDIRECT = 28, F_EVENT_IDX = 29, F_VERSION_1 = 32, NFEATURE
};

// The split virtqueue (2.6). A request is a chain of descriptors, each of which names a piece of
// memory. The driver puts a chain's first number into `avail`; the device puts it into `used`
// when it is done with the chain. Both `idx` run freely and wrap at 65,536.
struct desc {
    u64 addr;
    u32 len;
    u16 flags, next;
};
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };  // it goes on; the device writes; the chain is there

struct ring {
    struct desc desc[RING] __attribute__((aligned(16)));
    volatile struct {
        u16 flags, idx, ring[RING];
        u16 used_event;                      // interrupt me when used.idx passes this
    } avail;
    volatile struct {
        u16 flags, idx;
        struct { u32 id, len; } ring[RING];
        u16 avail_event;                     // ring the bell when avail.idx passes this
    } used;
    u16 added, taken;                        // the driver's own: chains into avail, out of used
};

struct io {                                  // what can be asked of a disk (5.2.6)
    u32 type, indirect;                      // indirect: the chain lies outside the ring
    u64 sector, nbytes;
};
enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, TIMED_OUT = 0xfe, NO_STATUS = 0xff };

struct request {                             // what a request needs besides its data
    struct { u32 type, reserved; u64 sector; } header;
    struct { u64 sector; u32 nsectors, flags; } range;
    struct desc table[3];
    volatile u8 status;
    u32 written;                             // bytes, as the device says
};

struct disk {
    volatile struct registers *reg;
    u32 pin, queue;                          // which of its queues is in use
    u64 features, capacity;                  // both sides agree on these; sectors
    u32 block;                               // sectors in a logical block: requests are whole ones
    int polling;                             // wait by looking at the ring, not by interrupt
    u32 interrupts, doorbells;               // how many there were
    struct ring ring;
    struct request request[NREQUEST];
};

extern struct disk disks[NDISK];
extern u32 ndisk;
extern u8 data[NREQUEST][PAGE];              // request i's data
extern const char *const feature_names[NFEATURE];

static inline int has(struct disk *d, u32 feature) { return d->features >> feature & 1; }
void disk_found(u64 address, u32 pin);
void disk_start(struct disk *d);
void disk_prepare(struct disk *d, u32 i, struct io io);
void disk_add(struct disk *d, u32 i);
int disk_wait(struct disk *d);
int disk_do(struct disk *d, struct io io);

int selftest(struct disk *d, u64 resets);    // selftest.c
