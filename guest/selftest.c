// SPDX-License-Identifier: GPL-2.0-only
//
// The self-test of a disk, in TAP (the Test Anything Protocol): a table of tests, each of which
// runs or is skipped according to what the device offers.
//
// Tests write only to the scratch area, 32 pages at the disk's end, which are saved before and
// put back after. A tick runs meanwhile: a request or an interrupt that does not come fails its
// test after some seconds instead of hanging.
//
#include "kernel.h"
#include "virtio.h"

#define SECTORS (PAGE / SECTOR)
#define ALL 0xffffffff                    // at_once: a bit for each request
#define WRITES (1UL << 63)                // needs: not on a read-only disk
#define READ_ONLY_DISK (1UL << 62)        // needs: one among the disks
#define UNKNOWN 99                        // a request type
#define UNTIL(condition) for(u32 since = ticks; !(condition) && ticks - since < PATIENCE;)

enum { ONE, POLLING, LAST };              // how to be interrupted

static u8 saved[NREQ][PAGE];
static u64 written[NREQ];                 // the round that wrote page i of the scratch area
static u64 resets;                        // how many rounds are to be cut short by a reset

static int
equal(const char *what, u64 got, u64 expected)
{
  if(got != expected)
    printf("# %s is 0x%lx, expected 0x%lx\n", what, got, expected);
  return got == expected;
}

// Page i of the scratch area: its sector.
static u64
scratch(struct disk *d, u32 i)
{
  return d->capacity / SECTORS * SECTORS - (NREQ - i) * SECTORS;
}

// Fill request i's data with a number / is it all over the data?
static void
stamp(u32 i, u64 value)
{
  for(u64 *p = (u64 *)data[i]; p < (u64 *)data[i + 1]; p++)
    *p = value;
}

static int
stamped(u32 i, u64 value)
{
  for(u64 *p = (u64 *)data[i]; p < (u64 *)data[i + 1]; p++)
    if(*p != value)
      return 0;
  return 1;
}

// One request: does it end with this status?
static int
ends(struct disk *d, u32 type, u64 sector, u32 nbytes, int status)
{
  return equal("status", blk_do(d, type, sector, nbytes, 0), status);
}

// Request i for page i, for all i below n at once, and `wait` of them awaited. Returns a bit for
// each that came back and went well.
static u32
at_once(struct disk *d, u32 type, u32 n, u32 wait)
{
  u32 good = 0;
  int i;

  for(u32 k = 0; k < n; k++){
    blk_prepare(d, k, type, scratch(d, k), PAGE, 0);
    blk_add(d, k);
  }
  blk_kick(d);
  while(wait-- > 0 && (i = blk_wait(d)) >= 0)
    good |= (u32)(d->request[i].status == BLK_OK) << i;
  return good;
}

// The tests. What `how` means is said in the table below.
static int
identity(struct disk *d, u32 how)
{
  return equal("magic", REG(d, MAGIC), VIRT) && equal("version", REG(d, VERSION), 2) &&
         equal("device id", REG(d, DEVICE_ID), 2) &&
         equal("status", REG(d, STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

static int
config(struct disk *d, u32 how)
{
  u64 capacity = 0;

  for(int i = 7; i >= 0; i--)
    capacity = capacity << 8 | REG8(d, CAPACITY + i);
  return equal("capacity, byte by byte", capacity, d->capacity) &&
         equal("capacity % block size", d->capacity % d->block, 0);
}

static int
rings(struct disk *d, u32 how)
{
  for(u32 i = 0; i < d->nqueue; i++){
    REG(d, QUEUE_SEL) = i;
    if(!equal("ready", REG(d, QUEUE_READY), 1))
      return 0;
  }
  return equal("requests back", at_once(d, BLK_IN, d->nqueue, d->nqueue), (1 << d->nqueue) - 1);
}

static int
bare(struct disk *d, u32 type)
{
  u32 nbytes = type == BLK_IN ? PAGE : type == BLK_GET_ID ? 20 : 0;

  return ends(d, type, 0, nbytes, type == UNKNOWN ? BLK_UNSUPP : BLK_OK) &&
         equal("bytes written", d->request[0].len, nbytes + 1);
}

static int
round_trip(struct disk *d, u32 how)
{
  stamp(0, 0x1111 + how);
  if(!equal("write", blk_do(d, BLK_OUT, scratch(d, 0), PAGE, how & 1), BLK_OK) ||
     !equal("bytes written", d->request[0].len, 1))
    return 0;
  stamp(0, 0);
  return equal("read", blk_do(d, BLK_IN, scratch(d, 0), PAGE, how & 2), BLK_OK) &&
         equal("same", stamped(0, 0x1111 + how), 1);
}

// The middle one of three pages. What it reads as when discarded is the device's choice.
static int
range(struct disk *d, u32 type)
{
  for(u32 i = 0; i < 3; i++)
    stamp(i, 0x2222);
  return equal("written", at_once(d, BLK_OUT, 3, 3), 7) &&
         equal("status", blk_range(d, type, scratch(d, 1), SECTORS, 0), BLK_OK) &&
         equal("read", at_once(d, BLK_IN, 3, 3), 7) &&
         equal("neighbours the same", stamped(0, 0x2222) && stamped(2, 0x2222), 1) &&
         equal("zeroes", type == BLK_DISCARD || stamped(1, 0), 1) &&
         equal("unknown flag", blk_range(d, type, scratch(d, 1), SECTORS,
                                         type == BLK_DISCARD ? 1 : 2), BLK_UNSUPP) &&
         equal("past the end", blk_range(d, type, d->capacity, SECTORS, 0), BLK_IOERR);
}

// Turned over, and back to what it was.
static int
write_cache(struct disk *d, u32 how)
{
  for(u32 i = 0; i < 2; i++){
    u8 other = !REG8(d, WRITEBACK);
    REG8(d, WRITEBACK) = other;
    if(!equal("writeback", REG8(d, WRITEBACK), other) || !round_trip(d, 0))
      return 0;
  }
  return 1;
}

static int
past_end(struct disk *d, u32 type)
{
  return ends(d, type, d->capacity, PAGE, BLK_IOERR) &&
         ends(d, type, d->capacity - d->block, 2 * PAGE, BLK_IOERR) &&
         ends(d, type, 1UL << 55, PAGE, BLK_IOERR) && ends(d, type, -8UL, PAGE, BLK_IOERR);
}

static int
odd_length(struct disk *d, u32 type)
{
  return ends(d, type, 0, 100, BLK_IOERR) && ends(d, type, 0, SECTOR + 1, BLK_IOERR);
}

// The first read-only disk, whichever is being tested.
static struct disk *
read_only_disk(void)
{
  for(u32 i = 0; i < ndisk; i++)
    if(disks[i].features & F_RO)
      return &disks[i];
  return 0;
}

static int
read_only(struct disk *d, u32 how)
{
  d = read_only_disk();
  return ends(d, BLK_IN, 0, PAGE, BLK_OK) && ends(d, BLK_OUT, 0, PAGE, BLK_IOERR);
}

// 33 requests at a time: so the wrap comes in the middle of some, and at any place in them.
static int
wrap(struct disk *d, u32 how)
{
  for(u16 before = d->queue[0].used.idx; (u16)(d->queue[0].used.idx - before) < 2 * QSIZE;)
    if(!equal("requests back", at_once(d, BLK_IN, NREQ, NREQ), ALL) || !bare(d, BLK_IN))
      return 0;
  return 1;
}

// Write round << 8 | i to each page i, all at once; reset the device when some requests are back
// and some are not. What was reported as written is there; another page holds what it did before,
// or this round's: wholly, not in part. Round 0 is not cut short.
static int
one_round(struct disk *d, u64 round)
{
  u32 wait = round == 0 ? NREQ : round * 5 % NREQ, back;

  for(u32 i = 0; i < NREQ; i++)
    stamp(i, round << 8 | i);
  back = at_once(d, BLK_OUT, NREQ, wait);
  if(round > 0)
    blk_start(d);
  if((round == 0 && !equal("written", back, ALL)) ||
     !equal("read", at_once(d, BLK_IN, NREQ, NREQ), ALL))
    return 0;
  for(u32 i = 0; i < NREQ; i++){
    u64 before = written[i];
    written[i] = stamped(i, round << 8 | i) ? round : before;
    if(!stamped(i, written[i] << 8 | i) || (back >> i & 1 && written[i] != round))
      return equal("a page's content", *(u64 *)data[i], round << 8 | i);
  }
  return 1;
}

static int
rounds(struct disk *d, u32 first)
{
  u64 last = first == 0 ? 0 : resets, round = first;

  while(round <= last && one_round(d, round))
    round++;
  return round > last;
}

// Reads on queue 0, collected without sleeping, and the interrupts for them counted. Before them
// there is one from a fresh start, whose interrupt is waited for: no late one spoils the count.
static int
interrupts(struct disk *d, u32 how)
{
  u32 n = how == ONE ? 1 : 4, back = 0;

  blk_start(d);
  d->interrupts = 0;
  bare(d, BLK_IN);
  UNTIL(d->interrupts > 0)
    relax();
  d->interrupts = 0;
  blk_set_polling(d, how == POLLING);
  if(how != POLLING)
    d->queue[0].avail.used_event = d->queue[0].taken + n - 1;
  for(u32 i = 0; i < n; i++){
    blk_prepare(d, i * d->nqueue, BLK_IN, 0, PAGE, 0);
    blk_add(d, i * d->nqueue);
  }
  blk_kick(d);
  UNTIL(back == n)
    back += blk_take(d) >= 0;
  if(how != POLLING)
    UNTIL(d->interrupts > 0)
      relax();
  blk_set_polling(d, 0);
  return equal("reads back", back, n) && equal("interrupts", d->interrupts, how != POLLING);
}

// A lost interrupt does not stop the tests, because the tick wakes them all the same. It may be
// quicker than the disk now and then, but not often.
static int
wake_ups(struct disk *d, u32 how)
{
  return equal("sleeps that the tick ended", d->late > 5 ? d->late : 0, 0);
}

static int
restart(struct disk *d, u32 how)
{
  REG(d, STATUS) = 0;
  REG(d, QUEUE_SEL) = 0;
  u32 ready = REG(d, QUEUE_READY);
  blk_start(d);
  return equal("queue ready after the reset", ready, 0) &&
         equal("used.idx", d->queue[0].used.idx, 0) && bare(d, BLK_IN);
}

static int
put_back(struct disk *d, u32 how)
{
  memcpy(data, saved, sizeof(data));
  if(!equal("written", at_once(d, BLK_OUT, NREQ, NREQ), ALL) ||
     !equal("read", at_once(d, BLK_IN, NREQ, NREQ), ALL))
    return 0;
  for(u64 *p = (u64 *)data, *q = (u64 *)saved; p < (u64 *)data[NREQ]; p++, q++)
    if(!equal("a word read back", *p, *q))
      return 0;
  return 1;
}

static const struct {
  const char *name;
  int (*run)(struct disk *, u32 how);
  u32 how;
  u64 needs;
} tests[] = {
  { "the registers identify a running disk", identity, 0, 0 },
  { "configuration space", config, 0, 0 },
  { "rings set up, and each answers", rings, 0, 0 },
  { "IN reads", bare, BLK_IN, 0 },
  { "OUT writes", round_trip, 0, WRITES },
  { "OUT, indirect, in two pieces", round_trip, 1, WRITES | F_INDIRECT_DESC },
  { "IN, indirect, in two pieces", round_trip, 2, WRITES | F_INDIRECT_DESC },
  { "FLUSH", bare, BLK_FLUSH, F_FLUSH },
  { "GET_ID", bare, BLK_GET_ID, 0 },
  { "DISCARD", range, BLK_DISCARD, WRITES | F_DISCARD },
  { "WRITE_ZEROES", range, BLK_WRITE_ZEROES, WRITES | F_WRITE_ZEROES },
  { "write cache off and on", write_cache, 0, WRITES | F_CONFIG_WCE },
  { "an unknown type is unsupported", bare, UNKNOWN, 0 },
  { "reading past the end fails", past_end, BLK_IN, 0 },
  { "writing past the end fails", past_end, BLK_OUT, WRITES },
  { "a length that is no sector's fails", odd_length, BLK_IN, 0 },
  { "writing to a read-only disk fails", read_only, 0, READ_ONLY_DISK },
  { "the rings wrap around", wrap, 0, 0 },
  { "32 requests at once", rounds, 0, WRITES },
  { "an interrupt for a used buffer", interrupts, ONE, 0 },
  { "no interrupt while polling", interrupts, POLLING, 0 },
  { "EVENT_IDX: one interrupt, where asked", interrupts, LAST, F_EVENT_IDX },
  { "reset and start again", restart, 0, 0 },
  { "reset under I/O loses nothing", rounds, 1, WRITES },
  { "the scratch area is put back", put_back, 0, WRITES },
  { "interrupts wake up who sleeps", wake_ups, 0, 0 },
};

// Why a test cannot run on this disk, or 0.
static const char *
missing(struct disk *d, u64 needs)
{
  if(needs & WRITES && d->features & F_RO)
    return "the disk is read-only";
  if(needs == READ_ONLY_DISK)
    return read_only_disk() ? 0 : "no disk is read-only";
  return needs & ~WRITES & ~d->features ? "not offered" : 0;
}

// The command `selftest`. Returns the verdict: 0 if all is well, else 1.
int
selftest(struct disk *d, u64 nresets)
{
  int verdict = 0;

  resets = nresets;
  d->late = 0;
  tick_start();
  printf("TAP version 13\n1..%lu\n", ARRAY_LEN(tests));
  if(d->capacity < NREQ * SECTORS || at_once(d, BLK_IN, NREQ, NREQ) != ALL){
    printf("Bail out! the scratch area, 128 KiB at the disk's end, cannot be read\n");
    tick_stop();
    return 1;
  }
  memcpy(saved, data, sizeof(data));
  for(u32 i = 0; i < ARRAY_LEN(tests); i++){
    const char *why = missing(d, tests[i].needs);
    int ok = why || tests[i].run(d, tests[i].how);
    printf("%s %u - %s%s%s\n", ok ? "ok" : "not ok", i + 1, tests[i].name, why ? " # SKIP " : "",
           why ? why : "");
    if(!ok){
      verdict = 1;
      blk_start(d);               // whatever it has left in flight is no more
    }
  }
  tick_stop();
  return verdict;
}
