// SPDX-License-Identifier: GPL-2.0-only
//
// The transport: finding devices, agreeing on features, the rings, the interrupt.
//
// One processor uses a ring at a time, outside of interrupt handlers: virtio_irq touches none.
//
#include "kernel.h"
#include "virtio.h"

#define SLOT(i) (0xfeb00000UL + 512 * (i))
#define IS_SLOT(i) (*(volatile u32 *)SLOT(i) == VIRT)

// QEMU's microvm, when it has ACPI, describes its devices there and not on the command line. They
// sit in fixed slots, filled from the top; with a second IOAPIC there are 24 slots, else 8.
static void
look_in_slots(void (*found)(u64 base, u32 pin))
{
  int nslot = IS_SLOT(23) ? 24 : IS_SLOT(7) ? 8 : 0;

  for(int i = nslot - 1; i >= 0; i--)
    found(SLOT(i), nslot == 24 ? 24 + i : 16 + i);
}

// Calls found() for each device that the command line names, and blanks it out there. One looks
// like "virtio_mmio.device=512@0xfeb00e00:12": size, address, pin.
void
virtio_discover(char *cmdline, void (*found)(u64 base, u32 pin))
{
  char *p = find(cmdline, "virtio_mmio.device="), *start;

  if(p == 0)
    look_in_slots(found);
  for(; p; p = find(p, "virtio_mmio.device=")){
    u64 base = 0, pin = 0;
    start = p;
    while(*p++ != '=')
      ;
    scan(&p);
    if(*p == '@')
      p++, base = scan(&p);
    if(*p == ':')
      p++, pin = scan(&p);
    memset(start, ' ', p - start);
    found(base, pin);
  }
}

// From reset to FEATURES_OK (3.1.1, steps 1 to 6). The reset makes the device forget its rings;
// what was in flight is no longer.
void
virtio_negotiate(struct disk *d, u64 wanted)
{
  REG(d, STATUS) = 0;
  while(REG(d, STATUS) != 0)
    ;
  REG(d, STATUS) = ACKNOWLEDGE | DRIVER;
  d->features = 0;
  for(u32 half = 0; half < 2; half++){
    REG(d, DEVICE_FEATURES_SEL) = half;
    u32 agreed = REG(d, DEVICE_FEATURES) & (wanted >> 32 * half);
    REG(d, DRIVER_FEATURES_SEL) = half;
    REG(d, DRIVER_FEATURES) = agreed;
    d->features |= (u64)agreed << 32 * half;
  }
  REG(d, STATUS) = ACKNOWLEDGE | DRIVER | FEATURES_OK;
  if(!(d->features & F_VERSION_1) || !(REG(d, STATUS) & FEATURES_OK))
    panic("virtio_negotiate: we cannot agree");
}

static void
write_address(struct disk *d, u32 reg, volatile void *p)
{
  REG(d, reg) = (u64)p;
  REG(d, reg + 4) = (u64)p >> 32;
}

// An empty ring, given to the device (4.2.3.2).
void
virtq_init(struct disk *d, u32 queue)
{
  struct virtq *q = &d->queue[queue];

  memset(q, 0, sizeof(*q));
  REG(d, QUEUE_SEL) = queue;
  if(REG(d, QUEUE_READY) || REG(d, QUEUE_MAX) < QSIZE)
    panic("virtq_init: a queue in use, or without room for 128 descriptors");
  REG(d, QUEUE_SIZE) = QSIZE;
  write_address(d, QUEUE_DESC, q->desc);
  write_address(d, QUEUE_AVAIL, &q->avail);
  write_address(d, QUEUE_USED, &q->used);
  REG(d, QUEUE_READY) = 1;
}

// Let the device see the chains that were added, and ring its doorbell if it wants that.
void
virtq_kick(struct disk *d, u32 queue)
{
  struct virtq *q = &d->queue[queue];
  u16 old = q->avail.idx, new = q->added;
  int wanted;

  if(old == new)
    return;
  barrier();                         // the chains first, then the index
  q->avail.idx = new;
  fence();                           // the index first, then a look at whether it listens
  if(d->features & F_EVENT_IDX)      // is the event among old ... new - 1? (2.6.7.1)
    wanted = (u16)(new - q->used.avail_event - 1) < (u16)(new - old);
  else
    wanted = !(q->used.flags & USED_NO_NOTIFY);
  if(wanted){
    d->doorbells++;
    REG(d, QUEUE_NOTIFY) = queue;
  }
}

// An interrupt. It is acknowledged before anyone looks at the ring: the line is an edge, and an
// acknowledgement after the look would wipe out the cause that came in between. InterruptStatus
// is not read: both its causes are treated alike here, and a read is one more exit out of the
// guest, for each interrupt.
void
virtio_irq(u32 pin)
{
  for(u32 i = 0; i < ndisk; i++)
    if(disks[i].pin == pin){
      REG(&disks[i], INTERRUPT_ACK) = 3;
      disks[i].interrupts++;
    }
}
