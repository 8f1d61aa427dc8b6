// SPDX-License-Identifier: GPL-2.0-only
//
// The self-test of a disk, in TAP (the Test Anything Protocol): a table of requests and how each
// has to end, and some tests that take more than one request.
//
// Tests write only to the scratch area, 32 pages at the disk's end, which are saved before and
// put back after. A tick runs meanwhile: a request or an interrupt that does not come fails its
// test after some seconds instead of hanging.
//
#include "guest.h"
#include "disk.h"

#define AT(page) (8UL * (page) - 8 * NREQUEST)     // from the disk's end: the scratch area's pages
#define FAR (1UL << 55)                       // sectors: 2^64 bytes
#define ALL 0xffffffff                        // a bit for each request
#define ANY ~0UL                              // data: whatever it is
#define NEEDS(feature) (1UL << (feature))
#define INDIRECT_DESC NEEDS(F_INDIRECT)
#define EVENT_IDX NEEDS(F_EVENT_IDX)
#define ZEROES NEEDS(F_WRITE_ZEROES)
#define READ_ONLY NEEDS(F_RO)
#define WRITES (1UL << 63)                    // a disk that is not read-only

struct test {
    const char *name;
    int (*run)(struct disk *, const struct test *);
    struct io io;
    int status;
    u64 data;                                 // what is written; what has to be read; a variant
    u64 needs;                                // features, and WRITES
};

static u8 saved[NREQUEST][PAGE];
static u64 resets;                            // how many the command asked for

static int equal(const char *what, u64 got, u64 expected) {
    if (got != expected)
        printf("# %s is 0x%lx, expected 0x%lx\n", what, got, expected);
    return got == expected;
}

// Fill request i's data with a number / is it all over the data?
static void fill(u32 i, u64 nbytes, u64 value) {
    u64 *p = (u64 *)data[i], n = nbytes / 8;
    asm volatile("rep stosq" : "+D"(p), "+c"(n) : "a"(value) : "memory");
}

static int filled(u32 i, u64 nbytes, u64 value) {
    u64 *p = (u64 *)data[i], n = nbytes / 8;
    asm volatile("repe scasq" : "+D"(p), "+c"(n) : "a"(value) : "memory", "cc");
    return equal("a word of the data", p[-1], value);
}

// One request of the table.
static int request(struct disk *d, const struct test *t) {
    struct io io = t->io;
    int reads = io.type == IN || io.type == GET_ID;

    io.sector += d->capacity;
    if (io.type == OUT)
        fill(0, io.nbytes, t->data);
    if (!equal("status", disk_do(d, io), t->status))
        return 0;
    if (t->status != OK)
        return 1;
    return equal("bytes written", d->request[0].written, reads ? io.nbytes + 1 : 1) &&
           (io.type != IN || t->data == ANY || filled(0, io.nbytes, t->data));
}

// Request i for page i, for all i below n at once, and `wait` of them awaited. Returns a bit for
// each that came back and went well.
static u32 at_once(struct disk *d, u32 type, u32 n, u32 wait) {
    u32 good = 0;
    int i;

    for (u32 k = 0; k < n; k++) {
        disk_prepare(d, k, (struct io){ type, 0, d->capacity + AT(k), PAGE });
        disk_add(d, k);
    }
    while (wait-- > 0 && (i = disk_wait(d)) >= 0)
        good |= (u32)(d->request[i].status == OK) << i;
    return good;
}

// Each of the device's queues in turn, from a fresh start.
static int queues(struct disk *d, const struct test *t) {
    u32 n = has(d, F_MQ) ? d->reg->num_queues : 1, good = 0;

    for (d->queue = 0; d->queue < n; d->queue++) {
        disk_start(d);
        good += d->reg->status == RUNNING && at_once(d, IN, NREQUEST, NREQUEST) == ALL;
    }
    d->queue = 0;
    disk_start(d);
    return equal("queues that work", good, n);
}

// 33 requests at a time: so the wrap comes in the middle of some, and at any place in them.
static int wrap(struct disk *d, const struct test *t) {
    u16 before = d->ring.used.idx;

    while ((u16)(d->ring.used.idx - before) < 2 * RING)
        if (!equal("requests back", at_once(d, IN, NREQUEST, NREQUEST), ALL) ||
            !equal("request back", at_once(d, IN, 1, 1), 1))
            return 0;
    return 1;
}

// In each round the number round << 8 | i is written to each page i, all at once; in each but the
// first the device is reset when some requests are back and some are not. What was reported as
// written is there; another page holds this round's number or the one before: wholly, not in part.
static int resets_under_io(struct disk *d, const struct test *t) {
    u64 held[NREQUEST] = { 0 };               // the round whose number is in page i

    for (u64 round = 0; round <= resets; round++) {
        for (u32 i = 0; i < NREQUEST; i++)
            fill(i, PAGE, round << 8 | i);
        u32 back = at_once(d, OUT, NREQUEST, round ? 1 + round * 5 % (NREQUEST - 1) : NREQUEST);
        if (round > 0)
            disk_start(d);
        if (!equal("requests back", at_once(d, IN, NREQUEST, NREQUEST), ALL))
            return 0;
        for (u32 i = 0; i < NREQUEST; i++) {
            u64 found = *(u64 *)data[i] >> 8;
            int may_be_old = round > 0 && found == held[i] && !(back >> i & 1);
            if (!may_be_old && !equal("round", found, round))
                return 0;
            if (!filled(i, PAGE, found << 8 | i))
                return 0;
            held[i] = found;
        }
    }
    return 1;
}

// The interrupts for n reads that are collected without sleeping; they come in at the end.
static u32 count_interrupts(struct disk *d, u32 n) {
    d->interrupts = 0;
    d->polling = 1;
    while (n-- > 0)
        disk_do(d, (struct io){ IN, 0, 0, PAGE });
    d->polling = 0;
    for (u32 start = ticks; d->interrupts == 0 && ticks - start < 2;)
        sleep();
    return d->interrupts;
}

// data: which read is to interrupt; 0 is none of them.
static int interrupts(struct disk *d, const struct test *t) {
    count_interrupts(d, 1);                   // if one is still under way
    d->ring.avail.used_event = d->ring.taken + t->data - 1;
    return equal("early interrupts", count_interrupts(d, t->data ? t->data - 1 : 4), 0) &&
           (t->data == 0 || equal("interrupts", count_interrupts(d, 1), 1));
}

static int put_back(struct disk *d, const struct test *t) {
    memcpy(data, saved, sizeof(data));
    return equal("requests back", at_once(d, OUT, NREQUEST, NREQUEST), ALL);
}

static const struct test tests[] = {
    { "each ring is set up and answers", queues },
    { "IN reads", request, { IN, 0, AT(0), PAGE }, OK, ANY },
    { "OUT writes", request, { OUT, 0, AT(0), 3 * PAGE }, OK, 1111, WRITES },
    { "IN reads what OUT wrote", request, { IN, 0, AT(0), 3 * PAGE }, OK, 1111, WRITES },
    { "OUT, indirect", request, { OUT, 1, AT(1), PAGE }, OK, 2222, WRITES | INDIRECT_DESC },
    { "IN, indirect", request, { IN, 1, AT(1), PAGE }, OK, 2222, WRITES | INDIRECT_DESC },
    { "WRITE_ZEROES", request, { WRITE_ZEROES, 0, AT(1), PAGE }, OK, 0, WRITES | ZEROES },
    { "IN reads zeroes there", request, { IN, 0, AT(1), PAGE }, OK, 0, WRITES | ZEROES },
    { "DISCARD", request, { DISCARD, 0, AT(1), PAGE }, OK, 0, WRITES | NEEDS(F_DISCARD) },
    { "the page before is as it was", request, { IN, 0, AT(0), PAGE }, OK, 1111, WRITES },
    { "the page behind is as it was", request, { IN, 0, AT(2), PAGE }, OK, 1111, WRITES },
    { "FLUSH", request, { FLUSH }, OK, 0, NEEDS(F_FLUSH) },
    { "GET_ID", request, { GET_ID, .nbytes = 20 }, OK },
    { "an unknown type is unsupported", request, { 99 }, UNSUPP },
    { "reading past the end fails", request, { IN, 0, AT(32), PAGE }, IOERR },
    { "reading across the end fails", request, { IN, 0, AT(31), 2 * PAGE }, IOERR },
    { "reading far away fails", request, { IN, 0, AT(0) + FAR, PAGE }, IOERR },
    { "reading 100 bytes fails", request, { IN, 0, AT(0), 100 }, IOERR },
    { "reading 513 bytes fails", request, { IN, 0, AT(0), 513 }, IOERR },
    { "writing past the end fails", request, { OUT, 0, AT(32), PAGE }, IOERR },
    { "writing across the end fails", request, { OUT, 0, AT(31), 2 * PAGE }, IOERR },
    { "writing far away fails", request, { OUT, 0, AT(0) + FAR, PAGE }, IOERR },
    { "zeroing past the end fails", request, { WRITE_ZEROES, 0, AT(32), PAGE }, IOERR, 0, ZEROES },
    { "writing to a read-only disk fails", request, { OUT, 0, AT(0), PAGE }, IOERR, 0, READ_ONLY },
    { "the rings wrap around", wrap },
    { "reset under I/O loses nothing", resets_under_io, .needs = WRITES },
    { "an interrupt for a used buffer", interrupts, .data = 1 },
    { "no interrupt while polling", interrupts, .data = 0, .needs = EVENT_IDX },
    { "EVENT_IDX: one interrupt, where asked", interrupts, .data = 4, .needs = EVENT_IDX },
    { "the scratch area is put back", put_back, .needs = WRITES },
};

// The command `selftest`. Returns the verdict: 0 if all is well, else 1.
int selftest(struct disk *d, u64 nresets) {
    int verdict = 0;

    resets = nresets;
    tick_start();
    printf("TAP version 13\n1..%lu\n", COUNT(tests));
    if (d->capacity < 8 * NREQUEST || at_once(d, IN, NREQUEST, NREQUEST) != ALL) {
        printf("Bail out! the scratch area, 128 KiB at the disk's end, cannot be read\n");
        tick_stop();
        return 1;
    }
    memcpy(saved, data, sizeof(data));
    for (u32 i = 0; i < COUNT(tests); i++) {
        const struct test *t = &tests[i];
        const char *why = t->needs & WRITES && has(d, F_RO) ? "the disk is read-only" :
                          t->needs & ~WRITES & ~d->features ? "not offered" : 0;
        int ok = why || t->run(d, t);
        printf("%s %u - %s%s%s\n", ok ? "ok" : "not ok", i + 1, t->name, why ? " # SKIP " : "",
               why ? why : "");
        if (!ok) {
            verdict = 1;
            disk_start(d);                    // whatever it has left in flight is no more
        }
    }
    tick_stop();
    return verdict;
}
