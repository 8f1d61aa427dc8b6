// SPDX-License-Identifier: GPL-2.0-only
//
// virtio 1.1, as much as a disk behind virtio-mmio needs. Chapter numbers are the standard's.
//

#define QSIZE 128          // descriptors in a ring; a power of two

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

struct virtq {
  struct desc desc[QSIZE] __attribute__((aligned(16)));   // 2.6: the others need 2 and 4
  volatile struct { u16 flags, idx, ring[QSIZE + 1]; } avail;     // + 1: see used_event
  volatile struct { u16 flags, idx; struct { u32 id, len; } ring[QSIZE + 1]; } used;

  // What follows is the driver's own. The counters run freely and wrap at 65,536.
  volatile u16 *used_event;   // behind avail's ring: interrupt me when used.idx passes this
  volatile u16 *avail_event;  // behind used's ring: ring the bell when avail.idx passes this
  u32 index, size;
  u16 added;                  // chains put into avail; avail.idx follows in virtq_kick
  u16 taken;                  // chains taken out of used
};
#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY 1

struct virtio {
  u64 base;                   // of the registers
  u32 pin;                    // of the IOAPICs
  u32 nqueue;
  struct virtq *queue;
  u64 features;               // both sides agree on these
  volatile u32 interrupts;    // how many came
  u32 doorbells;              // how many virtq_kick did not save
};

// Feature bits: virtio-blk's (5.2.3) and general ones (6).
#define F_SIZE_MAX (1UL << 1)
#define F_SEG_MAX (1UL << 2)
#define F_GEOMETRY (1UL << 4)
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

// Registers (4.2.2).
#define REG_MAGIC 0x000
#define REG_VERSION 0x004
#define REG_DEVICE_ID 0x008
#define REG_QUEUE_SEL 0x030
#define REG_QUEUE_MAX 0x034
#define REG_QUEUE_READY 0x044
#define REG_STATUS 0x070
#define REG_GENERATION 0x0fc
#define REG_CONFIG 0x100
#define MAGIC 0x74726976       // "virt"

// REG_STATUS (2.1).
#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER 2
#define STATUS_DRIVER_OK 4
#define STATUS_FEATURES_OK 8

// What an interrupt can be for; both are acknowledged by writing them back.
#define INT_USED 1
#define INT_CONFIG 2

// virtio_mmio.c
void virtio_discover(char *cmdline, void (*found)(u64 base, u32 pin));
u32 virtio_read(struct virtio *, u32 reg);
void virtio_write(struct virtio *, u32 reg, u32 value);
const char *virtio_negotiate(struct virtio *, u64 wanted);
const char *virtq_init(struct virtio *, u32 index);
void virtio_reset(struct virtio *);
void virtio_irq(void *);
void virtq_add(struct virtq *, u16 head);
void virtq_kick(struct virtio *, struct virtq *);
int virtq_take(struct virtq *, u32 *len);

// virtio_blk.c
#define MAXDISK 4
#define MAXQUEUE 4
#define NREQ 32            // requests that can be in flight: 4 descriptors each

#define BLK_IN 0           // request types (5.2.6)
#define BLK_OUT 1
#define BLK_FLUSH 4
#define BLK_GET_ID 8
#define BLK_DISCARD 11
#define BLK_WRITE_ZEROES 13
#define BLK_OK 0           // statuses
#define BLK_IOERR 1
#define BLK_UNSUPP 2
#define NO_STATUS 0xff     // the device has not written one
#define TIMED_OUT 0xfe     // the request did not come back
#define PATIENCE 50        // how many ticks to wait for one

enum layout {              // how a request's chain is laid out
  DIRECT,
  INDIRECT,                // in a table outside the ring
  SPLIT,                   // with the data in two pieces
};

struct request {           // what one request needs besides its data
  struct { u32 type, reserved; u64 sector; } header;
  struct desc table[4];
  volatile u8 status;
  u32 len;                 // what the device said it has written
};

struct disk {
  struct virtio v;
  u64 capacity;            // sectors
  u32 block;               // sectors in the disk's logical block: a request is of whole blocks
  int polling;             // wait by looking at the ring, not by interrupt
  u32 late;                // sleeps that the disk should have ended, but something else did
  struct virtq queue[MAXQUEUE];
  struct request request[NREQ];
};

extern struct disk disks[MAXDISK];
extern u32 ndisk;
extern u8 data[NREQ][PAGE];                   // request i's data

void blk_found(u64 base, u32 pin);
void blk_start(struct disk *);
void blk_set_polling(struct disk *, int);
void blk_prepare(struct disk *, u32 i, u32 type, u64 sector, u32 nbytes, enum layout);
void blk_add(struct disk *, u32 i);
void blk_kick(struct disk *);
int blk_take(struct disk *);
int blk_wait(struct disk *);
int blk_do(struct disk *, u32 type, u64 sector, u32 nbytes, enum layout);
int blk_range(struct disk *, u32 type, u64 sector, u32 nsectors, u32 flags);

static inline volatile void *
blk_config(struct disk *d, u32 offset)
{
  return (volatile void *)(d->v.base + REG_CONFIG + offset);
}
#define CONFIG8(d, offset) (*(volatile u8 *)blk_config(d, offset))
#define CONFIG16(d, offset) (*(volatile u16 *)blk_config(d, offset))
#define CONFIG32(d, offset) (*(volatile u32 *)blk_config(d, offset))
#define CONFIG_CAPACITY 0
#define CONFIG_SIZE_MAX 8
#define CONFIG_SEG_MAX 12
#define CONFIG_BLK_SIZE 20
#define CONFIG_TOPOLOGY 24
#define CONFIG_WRITEBACK 32
#define CONFIG_NUM_QUEUES 34
#define CONFIG_MAX_DISCARD 36
#define CONFIG_MAX_WRITE_ZEROES 48
