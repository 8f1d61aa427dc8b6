// SPDX-License-Identifier: GPL-2.0-only
//
// The self-test of a disk, in TAP (the Test Anything Protocol): a table of tests, each of which
// runs or is skipped according to what the device offers.
//
// Tests write only to the scratch area, 32 blocks at the disk's end, which are saved before and
// put back after. A tick runs meanwhile: a request or an interrupt that does not come fails its
// test after some seconds instead of hanging.
//
#include "kernel.h"
#include "virtio.h"

#define SECTORS (PAGE / SECTOR)           // in a request's data
#define UNTIL(condition) for(u32 since = ticks; !(condition) && ticks - since < PATIENCE;)

static u8 saved[NREQ][PAGE] __attribute__((aligned(PAGE)));

static int
equal(const char *what, u64 got, u64 expected)
{
  if(got != expected)
    printf("# %s is 0x%lx, expected 0x%lx\n", what, got, expected);
  return got == expected;
}

static int
has_scratch(struct disk *d)
{
  u32 needed = NREQ * d->block + SECTORS;

  if(d->capacity < needed)
    printf("# the disk has %lu sectors, needed are %u\n", d->capacity, needed);
  return d->capacity >= needed;
}

// Block i of the scratch area: its sector. The area begins and ends at a multiple of 4 KiB.
static u64
scratch(struct disk *d, u32 i)
{
  return (d->capacity & ~(SECTORS - 1UL)) - (NREQ - i) * d->block;
}

// Fill sectors with a number / is it in each place of theirs?
static void
stamp(void *p, u64 value, u64 nsectors)
{
  u64 n = nsectors * SECTOR / sizeof(value);

  asm volatile("rep stosq" : "+D"(p), "+c"(n) : "a"(value) : "memory");
}

static int
stamped(const void *p, u64 value, u64 nsectors)
{
  const u64 *word = p;

  for(u64 i = 0; i < nsectors * SECTOR / sizeof(value); i++)
    if(word[i] != value)
      return 0;
  return 1;
}

// 4 KiB in the scratch area, from data[0] or to it.
static int
transfer(struct disk *d, u32 type, enum layout layout)
{
  return equal("status", blk_do(d, type, scratch(d, 0), PAGE, layout), BLK_OK);
}

// Write 4 KiB one way, read them another, compare.
static int
round_trip(struct disk *d, u64 value, enum layout out, enum layout in)
{
  stamp(data[0], value, SECTORS);
  if(!transfer(d, BLK_OUT, out))
    return 0;
  stamp(data[0], ~value, SECTORS);
  return transfer(d, BLK_IN, in) && equal("same", stamped(data[0], value, SECTORS), 1);
}

// Prepare and add request i for block `block` of the scratch area.
static void
add(struct disk *d, u32 i, u32 type, u32 block)
{
  blk_prepare(d, i, type, scratch(d, block), d->block * SECTOR, DIRECT);
  blk_add(d, i);
}

// Does this block of the scratch area hold the number, all over?
static int
holds(struct disk *d, u32 block, u64 value)
{
  int status = blk_do(d, BLK_IN, scratch(d, block), d->block * SECTOR, DIRECT);

  return equal("status", status, BLK_OK) &&
         equal("the block is as expected", stamped(data[0], value, d->block), 1);
}

static int
identity(struct disk *d)
{
  return equal("magic", virtio_read(&d->v, REG_MAGIC), MAGIC) &&
         equal("version", virtio_read(&d->v, REG_VERSION), 2) &&
         equal("device id", virtio_read(&d->v, REG_DEVICE_ID), 2);
}

static int
handshake(struct disk *d)
{
  return equal("status", virtio_read(&d->v, REG_STATUS),
               STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK) &&
         equal("VERSION_1", !!(d->v.features & F_VERSION_1), 1);
}

static int
config(struct disk *d)
{
  return equal("capacity % block size", d->capacity % d->block, 0) &&
         equal("capacity, byte by byte", CONFIG8(d, 0) | (u32)CONFIG8(d, 1) << 8 |
               (u32)CONFIG8(d, 2) << 16 | (u32)CONFIG8(d, 3) << 24, (u32)d->capacity);
}

static int
rings(struct disk *d)
{
  for(u32 i = 0; i < d->v.nqueue; i++){
    virtio_write(&d->v, REG_QUEUE_SEL, i);
    if(!equal("ready", virtio_read(&d->v, REG_QUEUE_READY), 1) ||
       !equal("maximum < size", virtio_read(&d->v, REG_QUEUE_MAX) < d->queue[i].size, 0))
      return 0;
  }
  return 1;
}

static int
each_queue(struct disk *d)
{
  for(u32 i = 0; i < d->v.nqueue; i++){
    add(d, i, BLK_IN, 0);
    blk_kick(d);
    if(!equal("request", blk_wait(d), i) || !equal("status", d->request[i].status, BLK_OK))
      return 0;
  }
  return 1;
}

static int
read_length(struct disk *d)
{
  return transfer(d, BLK_IN, DIRECT) && equal("bytes written", d->request[0].len, PAGE + 1);
}

static int
write_length(struct disk *d)
{
  return round_trip(d, 0x1111, DIRECT, DIRECT) && transfer(d, BLK_OUT, DIRECT) &&
         equal("bytes written", d->request[0].len, 1);
}

static int
split(struct disk *d)
{
  return round_trip(d, 0x2222, SPLIT, DIRECT) && round_trip(d, 0x3333, DIRECT, SPLIT);
}

static int
indirect(struct disk *d)
{
  return round_trip(d, 0x4444, INDIRECT, DIRECT) && round_trip(d, 0x5555, DIRECT, INDIRECT);
}

static int
flush(struct disk *d)
{
  return equal("status", blk_do(d, BLK_FLUSH, 0, 0, DIRECT), BLK_OK);
}

static int
get_id(struct disk *d)
{
  return equal("status", blk_do(d, BLK_GET_ID, 0, 20, DIRECT), BLK_OK) &&
         equal("bytes written", d->request[0].len, 21);
}

static int
write_zeroes(struct disk *d)
{
  for(u32 i = 0; i < 3; i++){
    stamp(data[i], 0x6666, d->block);
    add(d, i, BLK_OUT, i);
    blk_kick(d);
    if(blk_wait(d) < 0)
      return 0;
  }
  return equal("status", blk_range(d, BLK_WRITE_ZEROES, scratch(d, 1), d->block, 0), BLK_OK) &&
         holds(d, 0, 0x6666) && holds(d, 1, 0) && holds(d, 2, 0x6666);
}

// What a discarded sector reads as is the device's choice.
static int
discard(struct disk *d)
{
  return equal("status", blk_range(d, BLK_DISCARD, scratch(d, 0), SECTORS, 0), BLK_OK) &&
         transfer(d, BLK_IN, DIRECT) &&
         equal("with a flag", blk_range(d, BLK_DISCARD, scratch(d, 0), SECTORS, 1), BLK_UNSUPP) &&
         equal("past the end", blk_range(d, BLK_DISCARD, d->capacity, 8, 0), BLK_IOERR);
}

// Turned over, and back to what it was.
static int
write_cache(struct disk *d)
{
  u8 was = CONFIG8(d, CONFIG_WRITEBACK);

  for(u32 i = 1; i <= 2; i++){
    CONFIG8(d, CONFIG_WRITEBACK) = (was + i) & 1;
    if(!equal("writeback", CONFIG8(d, CONFIG_WRITEBACK), (was + i) & 1) ||
       !round_trip(d, 0x7000 + i, DIRECT, DIRECT))
      return 0;
  }
  return 1;
}

static int
unknown_type(struct disk *d)
{
  return equal("status", blk_do(d, 99, 0, 0, DIRECT), BLK_UNSUPP);
}

static int
past_end(struct disk *d, u32 type)
{
  u64 last = d->capacity - d->block;

  return equal("at the end", blk_do(d, type, d->capacity, PAGE, DIRECT), BLK_IOERR) &&
         equal("over the end", blk_do(d, type, last, 2 * PAGE, DIRECT), BLK_IOERR) &&
         equal("sector 2^55", blk_do(d, type, 1UL << 55, PAGE, DIRECT), BLK_IOERR) &&
         equal("sector 2^64 - 8", blk_do(d, type, -8UL, PAGE, DIRECT), BLK_IOERR);
}

static int read_past_end(struct disk *d) { return past_end(d, BLK_IN); }
static int write_past_end(struct disk *d) { return past_end(d, BLK_OUT); }

static int
odd_length(struct disk *d)
{
  return equal("100 bytes", blk_do(d, BLK_IN, scratch(d, 0), 100, DIRECT), BLK_IOERR) &&
         equal("513 bytes", blk_do(d, BLK_IN, scratch(d, 0), 513, DIRECT), BLK_IOERR);
}

// On the first read-only disk, whichever is being tested.
static struct disk *
read_only_disk(void)
{
  for(u32 i = 0; i < ndisk; i++)
    if(disks[i].v.features & F_RO)
      return &disks[i];
  return 0;
}

static int
read_only(struct disk *d)
{
  d = read_only_disk();
  return equal("a read", blk_do(d, BLK_IN, 0, PAGE, DIRECT), BLK_OK) &&
         equal("a write", blk_do(d, BLK_OUT, 0, PAGE, DIRECT), BLK_IOERR);
}

// More requests than the ring has room for, three at a time: both indices wrap round the ring.
static int
wrap(struct disk *d)
{
  u32 finished = 0, n = 2 * QSIZE + 4;
  u16 before = d->queue[0].used.idx;
  int i;

  for(i = 0; i < 3; i++)
    add(d, i * d->v.nqueue, BLK_IN, 0);
  blk_kick(d);
  while((i = blk_wait(d)) >= 0 && equal("status", d->request[i].status, BLK_OK)){
    if(++finished == n)
      break;
    if(finished <= n - 3)
      blk_add(d, i);
    blk_kick(d);
  }
  return equal("requests finished", finished, n) &&
         equal("used.idx moved by", (u16)(d->queue[0].used.idx - before), n);
}

// Every request there is at once; each comes back once and did what it should.
static int
all_at_once(struct disk *d)
{
  u32 back = 0;
  int i;

  for(i = 0; i < NREQ; i++){
    stamp(data[i], 0x7700 + i, d->block);
    add(d, i, BLK_OUT, i);
  }
  blk_kick(d);
  for(u32 n = 0; n < NREQ && (i = blk_wait(d)) >= 0; n++)
    back |= (u32)(d->request[i].status == BLK_OK) << i;
  if(!equal("requests back", back, 0xffffffff))
    return 0;
  for(i = 0; i < NREQ; i++)
    if(!holds(d, i, 0x7700 + i))
      return 0;
  return 1;
}

// n reads on queue 0, collected without sleeping. Returns how many came back. Before them there
// is one from a fresh start, whose interrupt is waited for: so no late one spoils the count.
// used_event: which of the n shall interrupt, from 0 on, where there is EVENT_IDX.
static u32
count_interrupts(struct disk *d, int polling, u16 event, u32 n)
{
  u32 finished = 0;

  blk_start(d);
  d->v.interrupts = 0;
  transfer(d, BLK_IN, DIRECT);
  UNTIL(d->v.interrupts != 0)
    relax();
  d->v.interrupts = 0;
  blk_set_polling(d, polling);
  if(!polling)
    *d->queue[0].used_event = d->queue[0].taken + event;
  for(u32 i = 0; i < n; i++)
    add(d, i * d->v.nqueue, BLK_IN, 0);
  blk_kick(d);
  UNTIL(finished == n)
    finished += blk_take(d) >= 0;
  if(!polling)
    UNTIL(d->v.interrupts != 0)
      relax();
  blk_set_polling(d, 0);
  return finished;
}

static int
interrupt(struct disk *d)
{
  return equal("reads back", count_interrupts(d, 0, 0, 1), 1) &&
         equal("interrupts", d->v.interrupts, 1);
}

static int
no_interrupt(struct disk *d)
{
  return equal("reads back", count_interrupts(d, 1, 0, 4), 4) &&
         equal("interrupts", d->v.interrupts, 0);
}

static int
event_index(struct disk *d)
{
  return equal("reads back", count_interrupts(d, 0, 3, 4), 4) &&
         equal("interrupts", d->v.interrupts, 1);
}

// A lost interrupt does not stop these tests, because the tick wakes them all the same. It may be
// quicker than the disk now and then, but not often.
static int
wake_ups(struct disk *d)
{
  return equal("sleeps that the tick ended", d->late > 5 ? d->late : 0, 0);
}

static int
reset(struct disk *d)
{
  int ok;

  virtio_reset(&d->v);
  virtio_write(&d->v, REG_QUEUE_SEL, 0);
  ok = equal("queue ready after the reset", virtio_read(&d->v, REG_QUEUE_READY), 0);
  blk_start(d);
  return ok && equal("used.idx", d->queue[0].used.idx, 0) && transfer(d, BLK_IN, DIRECT);
}

// Read what is in the scratch area into `saved`, or write it back.
static int
move_scratch(struct disk *d, u32 type)
{
  int ok = 1;

  for(u32 i = 0; i < NREQ && ok; i++){
    add(d, i, type, i);
    d->queue[i % d->v.nqueue].desc[4 * i + 1].addr = (u64)saved[i];
    blk_kick(d);
    ok = equal("request", blk_wait(d), i) && equal("status", d->request[i].status, BLK_OK);
  }
  return ok;
}

static int
restore(struct disk *d)
{
  if(!move_scratch(d, BLK_OUT))
    return 0;
  for(u32 i = 0; i < NREQ; i++){
    blk_do(d, BLK_IN, scratch(d, i), d->block * SECTOR, DIRECT);
    for(u32 j = 0; j < d->block * SECTOR; j += sizeof(u64))
      if(*(u64 *)(data[0] + j) != *(u64 *)(saved[i] + j))
        return equal("block read back", 0, 1);
  }
  return 1;
}

// Block i of the scratch area holds, all over, the number of a round, and i. Which round? A block
// of two rounds' parts, or of something else, gives ~0.
static u64
which_round(struct disk *d, u32 i)
{
  u64 value;

  if(blk_do(d, BLK_IN, scratch(d, i), d->block * SECTOR, DIRECT) != BLK_OK)
    return ~0UL;
  value = *(u64 *)data[0];
  return (u8)value == i && stamped(data[0], value, d->block) ? value >> 8 : ~0UL;
}

// Write to all blocks at once; reset the device when some requests are back and some are not.
// What was reported as written is there; the other blocks are as before or as after.
// Round 0 is not cut short.
static int
reset_round(struct disk *d, u64 round, u64 *content)
{
  u32 back = 0, wait_for = round == 0 ? NREQ : round * 5 % NREQ;
  u64 now;
  int i;

  for(i = 0; i < NREQ; i++){
    stamp(data[i], round << 8 | i, d->block);
    add(d, i, BLK_OUT, i);
  }
  blk_kick(d);
  for(u32 n = 0; n < wait_for && (i = blk_wait(d)) >= 0; n++)
    back |= (u32)(d->request[i].status == BLK_OK) << i;
  if(round > 0)
    blk_start(d);
  for(i = 0; i < NREQ; i++){
    now = which_round(d, i);
    if(now != round && (back >> i & 1 || round == 0 || now != content[i])){
      printf("# block %d is of round %ld, after a reset in round %lu\n", i, now, round);
      return 0;
    }
    content[i] = now;
  }
  return 1;
}

static int
reset_rounds(struct disk *d, u64 rounds)
{
  static u64 content[NREQ];
  int ok = 1;

  for(u64 round = 0; round <= rounds && ok; round++)
    ok = reset_round(d, round, content);
  return ok;
}

static int resets(struct disk *d) { return reset_rounds(d, 2); }

// The command `reset`. Returns whether nothing was lost.
int
reset_under_io(struct disk *d, u64 rounds)
{
  int ok = has_scratch(d) && move_scratch(d, BLK_IN) && reset_rounds(d, rounds);

  return ok && move_scratch(d, BLK_OUT);
}

#define WRITES (1UL << 63)                // not on a read-only disk
#define READ_ONLY_DISK (1UL << 62)        // needs one among the disks

static const struct {
  const char *name;
  int (*run)(struct disk *);
  u64 needs;
} tests[] = {
  { "the registers identify a disk", identity, 0 },
  { "features agreed, driver running", handshake, 0 },
  { "configuration space", config, 0 },
  { "rings set up", rings, 0 },
  { "every queue answers", each_queue, 0 },
  { "IN reads, and counts what it writes", read_length, 0 },
  { "OUT writes", write_length, WRITES },
  { "data in two pieces", split, WRITES },
  { "indirect descriptors", indirect, WRITES | F_INDIRECT_DESC },
  { "FLUSH", flush, F_FLUSH },
  { "GET_ID", get_id, 0 },
  { "DISCARD", discard, WRITES | F_DISCARD },
  { "WRITE_ZEROES", write_zeroes, WRITES | F_WRITE_ZEROES },
  { "write cache off and on", write_cache, WRITES | F_CONFIG_WCE },
  { "an unknown type is unsupported", unknown_type, 0 },
  { "reading past the end fails", read_past_end, 0 },
  { "writing past the end fails", write_past_end, WRITES },
  { "a length that is no sector's fails", odd_length, 0 },
  { "writing to a read-only disk fails", read_only, READ_ONLY_DISK },
  { "the rings wrap around", wrap, 0 },
  { "32 requests at once", all_at_once, WRITES },
  { "an interrupt for a used buffer", interrupt, 0 },
  { "no interrupt while polling", no_interrupt, 0 },
  { "EVENT_IDX: one interrupt, where asked", event_index, F_EVENT_IDX },
  { "reset and start again", reset, 0 },
  { "reset under I/O loses nothing", resets, WRITES },
  { "the scratch area is put back", restore, WRITES },
  { "interrupts wake up who sleeps", wake_ups, 0 },
};

// Why a test cannot run on this disk, or 0.
static const char *
missing(struct disk *d, u64 needs)
{
  if(needs & WRITES && d->v.features & F_RO)
    return "the disk is read-only";
  if(needs & READ_ONLY_DISK && !read_only_disk())
    return "no disk is read-only";
  if(needs & ~(WRITES | READ_ONLY_DISK) & ~d->v.features)
    return "not offered";
  return 0;
}

// The command `selftest`. Returns the verdict: 0 if all is well, else 1.
int
selftest(struct disk *d)
{
  int verdict = 0, ok;
  const char *why;

  printf("TAP version 13\n1..%lu\n", ARRAY_LEN(tests));
  d->late = 0;
  tick_start();
  if(!has_scratch(d) || !move_scratch(d, BLK_IN)){
    printf("Bail out! there is no scratch area, or it cannot be read\n");
    tick_stop();
    return 1;
  }
  for(u32 i = 0; i < ARRAY_LEN(tests); i++){
    why = missing(d, tests[i].needs);
    ok = why || tests[i].run(d);
    printf("%s %u - %s%s%s\n", ok ? "ok" : "not ok", i + 1, tests[i].name, why ? " # SKIP " : "",
           why ? why : "");
    verdict |= !ok;
  }
  tick_stop();
  return verdict;
}
