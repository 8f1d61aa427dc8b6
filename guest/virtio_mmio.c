// SPDX-License-Identifier: GPL-2.0-only
//
// The transport: finding devices, agreeing on features, and the ring.
//
// Adding a request: virtq_add (any number of times), then virtq_kick.
// Getting it back: virtq_take, from the interrupt on or by asking again and again.
// One processor uses a ring at a time, outside of interrupt handlers: virtio_irq touches none.
//
#include "kernel.h"
#include "virtio.h"

#define REG_DEVICE_FEATURES 0x010
#define REG_DEVICE_FEATURES_SEL 0x014
#define REG_DRIVER_FEATURES 0x020
#define REG_DRIVER_FEATURES_SEL 0x024
#define REG_QUEUE_NUM 0x038
#define REG_QUEUE_NOTIFY 0x050
#define REG_INTERRUPT_ACK 0x064
#define REG_QUEUE_DESC 0x080       // each with its upper half at + 4
#define REG_QUEUE_AVAIL 0x090
#define REG_QUEUE_USED 0x0a0

#define SLOT(i) (0xfeb00000UL + 512 * (i))

u32
virtio_read(struct virtio *v, u32 reg)
{
  return *(volatile u32 *)(v->base + reg);
}

void
virtio_write(struct virtio *v, u32 reg, u32 value)
{
  *(volatile u32 *)(v->base + reg) = value;
}

static int
is_slot(u64 base)
{
  return *(volatile u32 *)(base + REG_MAGIC) == MAGIC;
}

// One device as the command line has it, "512@0xfeb00e00:12": size, address, pin.
static int
parse_device(char *s, u64 *base, u64 *pin)
{
  char *at = s, *colon;

  while(*at && *at != '@')
    at++;
  if(*at == 0)
    return 0;
  for(colon = at; *colon && *colon != ':'; colon++)
    ;
  if(*colon == 0)
    return 0;
  *colon = 0;
  return parse(at + 1, base) && parse(colon + 1, pin);
}

// QEMU's microvm, when it has ACPI, describes its devices there and not on the command line. They
// sit in fixed slots, filled from the top; with a second IOAPIC there are 24 slots, else 8.
static void
look_in_slots(void (*found)(u64 base, u32 pin))
{
  int nslot = is_slot(SLOT(23)) ? 24 : is_slot(SLOT(7)) ? 8 : 0;

  for(int i = nslot - 1; i >= 0; i--)
    found(SLOT(i), nslot == 24 ? 24 + i : 16 + i);
}

// Calls found() for each device that the command line names, and blanks it out there.
void
virtio_discover(char *cmdline, void (*found)(u64 base, u32 pin))
{
  static const char prefix[] = "virtio_mmio.device=";
  char word[64], *p = cmdline;
  u64 base, pin;
  u32 n, named = 0;

  while(*p){
    while(*p == ' ')
      p++;
    if(starts_with(p, prefix)){
      for(n = 0; *p && *p != ' ' && n < sizeof(word) - 1; *p++ = ' ')
        word[n++] = *p;
      word[n] = 0;
      named++;
      if(!parse_device(word + sizeof(prefix) - 1, &base, &pin))
        printf("not understood: %s\n", word);
      else
        found(base, pin);
    }
    while(*p && *p != ' ')
      p++;
  }
  if(named == 0)
    look_in_slots(found);
}

// The device forgets its rings; what was in flight is no longer. Waits until it says so.
void
virtio_reset(struct virtio *v)
{
  virtio_write(v, REG_STATUS, 0);
  while(virtio_read(v, REG_STATUS) != 0)
    ;
}

static u64
offered(struct virtio *v)
{
  u64 low;

  virtio_write(v, REG_DEVICE_FEATURES_SEL, 0);
  low = virtio_read(v, REG_DEVICE_FEATURES);
  virtio_write(v, REG_DEVICE_FEATURES_SEL, 1);
  return (u64)virtio_read(v, REG_DEVICE_FEATURES) << 32 | low;
}

// From reset to FEATURES_OK (3.1.1, steps 1 to 6). Returns what went wrong, or 0.
const char *
virtio_negotiate(struct virtio *v, u64 wanted)
{
  u32 status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;

  virtio_reset(v);
  virtio_write(v, REG_STATUS, status);
  v->features = offered(v) & wanted;
  if(!(v->features & F_VERSION_1))
    return "the device does not offer VERSION_1";
  virtio_write(v, REG_DRIVER_FEATURES_SEL, 0);
  virtio_write(v, REG_DRIVER_FEATURES, v->features);
  virtio_write(v, REG_DRIVER_FEATURES_SEL, 1);
  virtio_write(v, REG_DRIVER_FEATURES, v->features >> 32);
  virtio_write(v, REG_STATUS, status |= STATUS_FEATURES_OK);
  if(virtio_read(v, REG_STATUS) != status)
    return "the device does not accept the features";
  return 0;
}

static void
write_address(struct virtio *v, u32 reg, volatile void *p)
{
  virtio_write(v, reg, (u64)p);
  virtio_write(v, reg + 4, (u64)p >> 32);
}

// An empty ring, given to the device (4.2.3.2). Returns what went wrong, or 0.
const char *
virtq_init(struct virtio *v, u32 index)
{
  struct virtq *q = &v->queue[index];
  u32 max;

  virtio_write(v, REG_QUEUE_SEL, index);
  if(virtio_read(v, REG_QUEUE_READY))
    return "the queue is in use after a reset";
  max = virtio_read(v, REG_QUEUE_MAX);
  if(max == 0)
    return "there is no such queue";
  q->index = index;
  for(q->size = QSIZE; q->size > max; q->size /= 2)
    ;
  q->avail.flags = q->avail.idx = q->used.flags = q->used.idx = 0;
  q->added = q->taken = 0;
  q->used_event = &q->avail.ring[q->size];
  q->avail_event = (volatile u16 *)&q->used.ring[q->size];
  *q->used_event = *q->avail_event = 0;
  virtio_write(v, REG_QUEUE_NUM, q->size);
  write_address(v, REG_QUEUE_DESC, q->desc);
  write_address(v, REG_QUEUE_AVAIL, &q->avail);
  write_address(v, REG_QUEUE_USED, &q->used);
  virtio_write(v, REG_QUEUE_READY, 1);
  return 0;
}

// The interrupt. It is acknowledged before anyone looks at the ring: the line is an edge, and an
// acknowledgement after the look would wipe out the cause that came in between. InterruptStatus
// is not read: both its causes are treated alike here, and a read is one more exit out of the
// guest, for each interrupt.
void
virtio_irq(void *arg)
{
  struct virtio *v = arg;

  virtio_write(v, REG_INTERRUPT_ACK, INT_USED | INT_CONFIG);
  v->interrupts++;
}

// Put a chain into the ring, where the device does not look before virtq_kick.
void
virtq_add(struct virtq *q, u16 head)
{
  q->avail.ring[q->added++ & (q->size - 1)] = head;
}

// Let the device see what was added, and ring its doorbell if it wants that.
void
virtq_kick(struct virtio *v, struct virtq *q)
{
  u16 old = q->avail.idx, new = q->added;
  int wanted;

  if(old == new)
    return;
  barrier();                         // the chains first, then the index
  q->avail.idx = new;
  fence();                           // the index first, then a look at whether it listens
  if(v->features & F_EVENT_IDX)      // is the event among old ... new - 1? (2.6.7.1)
    wanted = (u16)(new - *q->avail_event - 1) < (u16)(new - old);
  else
    wanted = !(q->used.flags & USED_NO_NOTIFY);
  if(wanted){
    v->doorbells++;
    virtio_write(v, REG_QUEUE_NOTIFY, q->index);
  }
}

// The head of a chain that the device is done with, and how much it wrote; -1 if there is none.
int
virtq_take(struct virtq *q, u32 *len)
{
  u32 slot = q->taken & (q->size - 1);

  if(q->used.idx == q->taken)
    return -1;
  barrier();                         // the index first, then the entry
  *len = q->used.ring[slot].len;
  q->taken++;
  return q->used.ring[slot].id;
}
