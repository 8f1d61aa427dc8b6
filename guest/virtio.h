// SPDX-License-Identifier: GPL-2.0-only
//
// virtio 1.1, as much as a disk behind virtio-mmio needs. Chapter numbers are the standard's.
//

// Chapter 2.6: the split virtqueue. A request is a chain of descriptors, each of which names a
// piece of memory. The driver puts a chain's first index into `avail`; the device puts it
// into `used` when it is done with the chain.
struct desc {
  u64 addr;
  u32 len;
  u16 flags;
  u16 next;
};
#define DESC_NEXT 1        // the chain goes on at `next`
#define DESC_WRITE 2       // the device writes here; otherwise it reads
#define DESC_INDIRECT 4    // the chain is in the table that lies here

#define QSIZE 128          // descriptors in a ring; a power of two

struct virtq {
  struct desc desc[QSIZE] __attribute__((aligned(16)));
  volatile struct {
    u16 flags, idx, ring[QSIZE];
    u16 used_event;        // interrupt me when used.idx passes this
  } avail;
  volatile struct {
    u16 flags, idx;
    struct { u32 id, len; } ring[QSIZE];
    u16 avail_event;       // ring the bell when avail.idx passes this
  } used;
  // What follows is the driver's own. The counters run freely and wrap at 65,536.
  u16 added;               // chains put into avail; avail.idx follows in virtq_kick
  u16 taken;               // chains taken out of used
};
#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY 1

// Feature bits: virtio-blk's (5.2.3) and general ones (6).
#define F_SIZE_MAX (1UL << 1)
#define F_SEG_MAX (1UL << 2)
#define F_RO (1UL << 5)
#define F_BLK_SIZE (1UL << 6)
#define F_FLUSH (1UL << 9)
#define F_TOPOLOGY (1UL << 10)
#define F_CONFIG_WCE (1UL << 11)
#define F_MQ (1UL << 12)
#define F_DISCARD (1UL << 13)
#define F_WRITE_ZEROES (1UL << 14)
#define F_INDIRECT_DESC (1UL << 28)
#define F_EVENT_IDX (1UL << 29)
#define F_VERSION_1 (1UL << 32)

// Registers (4.2.2), and virtio-blk's configuration (5.2.4) behind them.
#define REG(d, offset) (*(volatile u32 *)((d)->base + (offset)))
#define REG16(d, offset) (*(volatile u16 *)((d)->base + (offset)))
#define REG8(d, offset) (*(volatile u8 *)((d)->base + (offset)))
#define MAGIC 0x000
#define VERSION 0x004
#define DEVICE_ID 0x008
#define DEVICE_FEATURES 0x010
#define DEVICE_FEATURES_SEL 0x014
#define DRIVER_FEATURES 0x020
#define DRIVER_FEATURES_SEL 0x024
#define QUEUE_SEL 0x030
#define QUEUE_MAX 0x034
#define QUEUE_SIZE 0x038
#define QUEUE_READY 0x044
#define QUEUE_NOTIFY 0x050
#define INTERRUPT_ACK 0x064
#define STATUS 0x070
#define QUEUE_DESC 0x080          // these three are addresses, the upper half at + 4
#define QUEUE_AVAIL 0x090
#define QUEUE_USED 0x0a0
#define CAPACITY 0x100
#define SEG_MAX 0x10c
#define BLK_SIZE 0x114
#define WRITEBACK 0x120
#define NUM_QUEUES 0x122

#define VIRT 0x74726976           // MAGIC reads as this: "virt"
#define ACKNOWLEDGE 1             // STATUS (2.1)
#define DRIVER 2
#define DRIVER_OK 4
#define FEATURES_OK 8

// Request types (5.2.6) and how requests end.
#define BLK_IN 0
#define BLK_OUT 1
#define BLK_FLUSH 4
#define BLK_GET_ID 8
#define BLK_DISCARD 11
#define BLK_WRITE_ZEROES 13
#define BLK_OK 0
#define BLK_IOERR 1
#define BLK_UNSUPP 2
#define TIMED_OUT 0xfe     // the request did not come back
#define NO_STATUS 0xff     // the device has not written one

#define MAXDISK 4
#define MAXQUEUE 4
#define NREQ 32            // requests that can be in flight: 4 descriptors each
#define PATIENCE 50        // how many ticks to wait for one

struct request {           // what one request needs besides its data
  struct { u32 type, reserved; u64 sector; } header;
  struct desc table[4];
  volatile u8 status;
  u32 len;                 // what the device said it has written
};

struct disk {
  u64 base;                // of the registers
  u32 pin;                 // of the IOAPICs
  u32 nqueue;
  u64 features;            // both sides agree on these
  u64 capacity;            // sectors
  u32 block;               // sectors in the disk's logical block: a request is of whole blocks
  int polling;             // wait by looking at the ring, not by interrupt
  volatile u32 interrupts; // how many came
  u32 doorbells;           // how many virtq_kick did not save
  u32 late;                // sleeps that the disk should have ended, but something else did
  struct virtq queue[MAXQUEUE];
  struct request request[NREQ];
};

extern struct disk disks[MAXDISK];
extern u32 ndisk;
extern u8 data[NREQ][PAGE];                   // request i's data

// virtio_mmio.c
void virtio_discover(char *cmdline, void (*found)(u64 base, u32 pin));
void virtio_negotiate(struct disk *, u64 wanted);
void virtq_init(struct disk *, u32 queue);
void virtq_kick(struct disk *, u32 queue);

// virtio_blk.c
void blk_found(u64 base, u32 pin);
void blk_start(struct disk *);
void blk_set_polling(struct disk *, int);
void blk_prepare(struct disk *, u32 i, u32 type, u64 sector, u32 nbytes, int indirect);
void blk_add(struct disk *, u32 i);
void blk_kick(struct disk *);
int blk_take(struct disk *);
int blk_wait(struct disk *);
int blk_do(struct disk *, u32 type, u64 sector, u32 nbytes, int indirect);
int blk_range(struct disk *, u32 type, u64 sector, u32 nsectors, u32 flags);

// selftest.c
int selftest(struct disk *, u64 rounds);
