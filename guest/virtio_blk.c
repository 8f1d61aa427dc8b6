// SPDX-License-Identifier: GPL-2.0-only
//
// The disk. Request i (0 ... NREQ - 1) owns a header, a status byte, 4 KiB of data and the
// descriptors 4 * i ... 4 * i + 3 of queue i % nqueue, for ever. So a chain, once written, can be
// used again and again (bench does), and the number in the used ring says which request it was.
//
//   chain:   header (16 bytes) -> data -> status (1 byte)
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
  struct virtio probe = { .base = base };
  u32 version = virtio_read(&probe, REG_VERSION);

  if(virtio_read(&probe, REG_MAGIC) != MAGIC || virtio_read(&probe, REG_DEVICE_ID) != 2)
    return;
  if(version != 2){
    printf("disk at %lx: virtio-mmio version %u, this kernel knows 2 only: start QEMU with\n"
           "    -global virtio-mmio.force-legacy=false\n", base, version);
    return;
  }
  if(ndisk == MAXDISK){
    printf("disk at %lx: more than %d, left alone\n", base, MAXDISK);
    return;
  }
  struct disk *d = &disks[ndisk++];
  d->v.base = base;
  d->v.pin = pin;
  d->v.queue = d->queue;
  irq_enable(pin, virtio_irq, &d->v);
  blk_start(d);
}

static u64
read_capacity(struct disk *d)
{
  u32 generation;
  u64 low, high;

  do {                       // the two halves have to be of one moment (2.4.1)
    generation = virtio_read(&d->v, REG_GENERATION);
    low = CONFIG32(d, CONFIG_CAPACITY);
    high = CONFIG32(d, CONFIG_CAPACITY + 4);
  } while(virtio_read(&d->v, REG_GENERATION) != generation);
  return high << 32 | low;
}

// From any state to running with empty rings: the first start, and every one after a reset.
void
blk_start(struct disk *d)
{
  const char *error = virtio_negotiate(&d->v, WANTED);

  d->capacity = read_capacity(d);
  d->block = d->v.features & F_BLK_SIZE ? CONFIG32(d, CONFIG_BLK_SIZE) / SECTOR : 1;
  if(!error && (d->block < 1 || d->block > PAGE / SECTOR || d->block & (d->block - 1)))
    error = "its blocks are not of 512, 1024, 2048 or 4096 bytes";
  d->v.nqueue = 1;
  if(d->v.features & F_MQ && CONFIG16(d, CONFIG_NUM_QUEUES) > 1)
    d->v.nqueue = CONFIG16(d, CONFIG_NUM_QUEUES);
  if(d->v.nqueue > MAXQUEUE)
    d->v.nqueue = MAXQUEUE;
  for(u32 i = 0; i < d->v.nqueue && !error; i++){
    error = virtq_init(&d->v, i);
    if(!error && d->queue[i].size < QSIZE)
      error = "its queue has room for less than 128 descriptors";
  }
  if(error){
    printf("disk at %lx: %s\n", d->v.base, error);
    panic("blk_start");
  }
  blk_set_polling(d, d->polling);
  virtio_write(&d->v, REG_STATUS, virtio_read(&d->v, REG_STATUS) | STATUS_DRIVER_OK);
}

// Polling or not. With EVENT_IDX the device interrupts when used.idx passes used_event, and a
// polling driver leaves that behind; without, a flag asks it not to interrupt.
void
blk_set_polling(struct disk *d, int polling)
{
  u16 flag = d->v.features & F_EVENT_IDX ? 0 : AVAIL_NO_INTERRUPT;

  d->polling = polling;
  for(u32 i = 0; i < d->v.nqueue; i++){
    d->queue[i].avail.flags = polling ? flag : 0;
    if(polling)
      *d->queue[i].used_event = d->queue[i].taken - 1;
  }
}

// Write request i's chain. nbytes may be 0: then it has no data.
void
blk_prepare(struct disk *d, u32 i, u32 type, u64 sector, u32 nbytes, enum layout layout)
{
  struct request *r = &d->request[i];
  struct desc *ring = d->queue[i % d->v.nqueue].desc + 4 * i;
  struct desc *t = layout == INDIRECT ? r->table : ring;
  u32 first = layout == INDIRECT ? 0 : 4 * i, n = 0;
  u32 piece = layout == SPLIT ? nbytes / 2 : nbytes;
  u16 direction = type == BLK_IN || type == BLK_GET_ID ? DESC_WRITE : 0;

  r->header.type = type;
  r->header.sector = sector;
  t[n++] = (struct desc){ (u64)&r->header, sizeof(r->header), DESC_NEXT, first + 1 };
  for(u32 at = 0; at < nbytes; at += piece, n++)
    t[n] = (struct desc){ (u64)data[i] + at, piece, DESC_NEXT | direction, first + n + 1 };
  t[n++] = (struct desc){ (u64)&r->status, 1, DESC_WRITE, 0 };
  if(layout == INDIRECT)
    *ring = (struct desc){ (u64)r->table, n * sizeof(struct desc), DESC_INDIRECT, 0 };
}

// Add request i, prepared, to its ring. blk_kick sends it off.
void
blk_add(struct disk *d, u32 i)
{
  d->request[i].status = NO_STATUS;
  virtq_add(&d->queue[i % d->v.nqueue], 4 * i);
}

void
blk_kick(struct disk *d)
{
  for(u32 i = 0; i < d->v.nqueue; i++)
    virtq_kick(&d->v, &d->queue[i]);
}

// A request that the device is done with, or -1.
int
blk_take(struct disk *d)
{
  u32 len;
  int head;

  for(u32 i = 0; i < d->v.nqueue; i++)
    if((head = virtq_take(&d->queue[i], &len)) >= 0){
      d->request[head / 4].len = len;
      return head / 4;
    }
  return -1;
}

static int
used_something(struct disk *d)
{
  for(u32 i = 0; i < d->v.nqueue; i++)
    if(d->queue[i].used.idx != d->queue[i].taken)
      return 1;
  return 0;
}

// Sleep until an interrupt, unless the device has used something in the meantime.
static void
sleep_for(struct disk *d)
{
  u32 before = d->v.interrupts;

  for(u32 i = 0; i < d->v.nqueue; i++)
    *d->queue[i].used_event = d->queue[i].taken;
  fence();                   // ask for the interrupt first, then look for the last time
  intr_off();
  if(!used_something(d)){
    intr_wait();
    if(d->v.interrupts == before && used_something(d))
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
blk_do(struct disk *d, u32 type, u64 sector, u32 nbytes, enum layout layout)
{
  blk_prepare(d, 0, type, sector, nbytes, layout);
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
  struct { u64 sector; u32 nsectors, flags; } *range = (void *)data[0];

  range->sector = sector;
  range->nsectors = nsectors;
  range->flags = flags;
  return blk_do(d, type, 0, sizeof(*range), DIRECT);
}
