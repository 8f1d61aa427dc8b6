// SPDX-License-Identifier: GPL-2.0-only
//
// The disk. Request i (0 ... NREQ - 1) owns a header, a status byte, 4 KiB of data and the
// descriptors 4 * i ... 4 * i + 3 of queue i % nqueue, for ever. So a chain, once written, can be
// used again and again (bench does), and the number in the used ring says which request it was.
//
//   chain:   header (16 bytes) -> data -> status (1 byte)
//
// A request goes by blk_prepare, blk_add, blk_kick, and comes back by blk_take or blk_wait.
//
#include "kernel.h"
#include "virtio.h"

#define WANTED (F_SIZE_MAX | F_SEG_MAX | F_RO | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | \
                F_CONFIG_WCE | F_MQ | F_DISCARD | F_WRITE_ZEROES | F_INDIRECT_DESC | \
                F_EVENT_IDX | F_VERSION_1)

struct disk disks[MAXDISK];
u32 ndisk;
u8 data[NREQ][PAGE] __attribute__((aligned(PAGE)));

// From virtio_discover.
void
blk_found(u64 base, u32 pin)
{
  struct disk *d = &disks[ndisk];

  if(ndisk == MAXDISK)
    return;
  d->base = base;
  d->pin = pin;
  if(REG(d, MAGIC) != VIRT || REG(d, DEVICE_ID) != 2)
    return;
  if(REG(d, VERSION) != 2){
    printf("disk at %lx: virtio-mmio version %u, this kernel knows 2 only: start QEMU with\n"
           "    -global virtio-mmio.force-legacy=false\n", base, REG(d, VERSION));
    return;
  }
  ndisk++;
  irq_enable(pin);
  blk_start(d);
}

// From any state to running with empty rings: the first start, and every one after a reset.
void
blk_start(struct disk *d)
{
  virtio_negotiate(d, WANTED);
  d->capacity = REG(d, CAPACITY) | (u64)REG(d, CAPACITY + 4) << 32;
  d->block = d->features & F_BLK_SIZE ? REG(d, BLK_SIZE) / SECTOR : 1;
  if(d->block < 1 || d->block > PAGE / SECTOR)
    panic("blk_start: the disk's blocks are not of 512 to 4096 bytes");
  d->nqueue = d->features & F_MQ ? REG16(d, NUM_QUEUES) : 1;
  if(d->nqueue > MAXQUEUE)
    d->nqueue = MAXQUEUE;
  for(u32 i = 0; i < d->nqueue; i++)
    virtq_init(d, i);
  blk_set_polling(d, d->polling);
  REG(d, STATUS) = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
}

// Polling or not. With EVENT_IDX the device interrupts when used.idx passes used_event, and a
// polling driver leaves that behind; without, a flag asks it not to interrupt.
void
blk_set_polling(struct disk *d, int polling)
{
  d->polling = polling;
  for(u32 i = 0; i < d->nqueue; i++){
    d->queue[i].avail.flags = polling && !(d->features & F_EVENT_IDX) ? AVAIL_NO_INTERRUPT : 0;
    if(polling)
      d->queue[i].avail.used_event = d->queue[i].taken - 1;
  }
}

// Write request i's chain. nbytes may be 0: then it has no data. An indirect chain lies in a
// table outside the ring, and there has its data in two pieces.
void
blk_prepare(struct disk *d, u32 i, u32 type, u64 sector, u32 nbytes, int indirect)
{
  struct request *r = &d->request[i];
  struct desc *ring = d->queue[i % d->nqueue].desc + 4 * i;
  struct desc *chain = indirect ? r->table : ring;
  u32 first = indirect ? 0 : 4 * i, piece = indirect ? nbytes / 2 : nbytes, n = 0;
  u16 direction = type == BLK_IN || type == BLK_GET_ID ? DESC_WRITE : 0;

  r->header.type = type;
  r->header.sector = sector;
  chain[n++] = (struct desc){ (u64)&r->header, sizeof(r->header), DESC_NEXT, first + 1 };
  for(u32 at = 0; at < nbytes; at += piece, n++)
    chain[n] = (struct desc){ (u64)data[i] + at, piece, DESC_NEXT | direction, first + n + 1 };
  chain[n++] = (struct desc){ (u64)&r->status, 1, DESC_WRITE, 0 };
  if(indirect)
    *ring = (struct desc){ (u64)chain, n * sizeof(struct desc), DESC_INDIRECT, 0 };
}

// Put request i, prepared, into its ring, where the device does not look before blk_kick.
void
blk_add(struct disk *d, u32 i)
{
  struct virtq *q = &d->queue[i % d->nqueue];

  d->request[i].status = NO_STATUS;
  q->avail.ring[q->added++ % QSIZE] = 4 * i;
}

void
blk_kick(struct disk *d)
{
  for(u32 i = 0; i < d->nqueue; i++)
    virtq_kick(d, i);
}

// A queue with a request that the device is done with, or 0.
static struct virtq *
used_queue(struct disk *d)
{
  for(u32 i = 0; i < d->nqueue; i++)
    if(d->queue[i].used.idx != d->queue[i].taken)
      return &d->queue[i];
  return 0;
}

// A request that the device is done with, or -1.
int
blk_take(struct disk *d)
{
  struct virtq *q = used_queue(d);

  if(q == 0)
    return -1;
  barrier();                         // the index first, then the entry
  u32 slot = q->taken++ % QSIZE, i = q->used.ring[slot].id / 4;
  d->request[i].len = q->used.ring[slot].len;
  return i;
}

// Sleep until an interrupt, unless the device has used something in the meantime.
static void
sleep_for(struct disk *d)
{
  u32 before = d->interrupts;

  for(u32 i = 0; i < d->nqueue; i++)
    d->queue[i].avail.used_event = d->queue[i].taken;
  fence();                   // ask for the interrupt first, then look for the last time
  intr_off();
  if(!used_queue(d)){
    intr_wait();
    if(d->interrupts == before && used_queue(d))
      d->late++;
  }
  intr_on();
}

// As blk_take, but waits; -1 if it took too long (which only tick_start makes noticeable).
int
blk_wait(struct disk *d)
{
  u32 start = ticks;
  int i;

  while((i = blk_take(d)) < 0){
    if(ticks - start > PATIENCE)
      return -1;
    if(d->polling)
      relax();
    else
      sleep_for(d);
  }
  return i;
}

// One request, alone, from data[0] or to it. Returns its status.
int
blk_do(struct disk *d, u32 type, u64 sector, u32 nbytes, int indirect)
{
  blk_prepare(d, 0, type, sector, nbytes, indirect);
  blk_add(d, 0);
  blk_kick(d);
  if(blk_wait(d) == 0)
    return d->request[0].status;
  blk_start(d);              // nothing of it is in flight any more
  return TIMED_OUT;
}

// DISCARD or WRITE_ZEROES: the range is data (5.2.6).
int
blk_range(struct disk *d, u32 type, u64 sector, u32 nsectors, u32 flags)
{
  struct { u64 sector; u32 nsectors, flags; } range = { sector, nsectors, flags };

  memcpy(data[0], &range, sizeof(range));
  return blk_do(d, type, 0, sizeof(range), 0);
}
