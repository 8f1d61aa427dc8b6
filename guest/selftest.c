// SPDX-License-Identifier: GPL-2.0-only
//
// The self-test of a disk, in TAP (the Test Anything Protocol): a table of requests and how each
// has to end, and some tests that take more than one request.
//
// Tests write only to the scratch area, 32 pages at the disk's end, which are saved before and
// put back after. A timer runs meanwhile: a request or an interrupt that does not come fails its
// test after some seconds instead of hanging.
//
#include "disk.h"

enum { PATIENCE = 10000, MOMENT = 40 };       // ms: too long for anything; enough for an interrupt
#define ALL 0xffffffff                        // a bit for each request
#define AT(page) (8UL * (page) - 8 * NREQUEST)     // from the disk's end: the scratch area's pages
#define FAR (1UL << 55)                       // sectors: 2^64 bytes
#define ANY ~0UL                              // data: whatever it is

enum { WRITES = 1 };                          // beside features: a disk that is not read-only

struct test {
    const char *name;
    int (*run)(struct disk *, const struct test *);
    struct io io;                             // its sector: from the disk's end
    u64 status, data;                         // data: what is written; what has to be read
    u64 needs;                                // features, WRITES
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

    io.sector += d->capacity;
    fill(0, io.nbytes, io.type == OUT ? t->data : ~t->data);
    timer_start(PATIENCE);
    u64 status = disk_do(d, io);
    if (status != OK || t->status != OK)
        return equal("status", status, t->status);
    return equal("bytes written", d->request[0].written, reads(io) ? io.nbytes + 1 : 1) &&
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
    timer_start(PATIENCE);
    while (wait-- > 0 && (i = disk_wait(d)) >= 0)
        good |= (u32)(d->request[i].status == OK) << i;
    return good;
}

static int all_at_once(struct disk *d, u32 type) {
    return equal("requests back", at_once(d, type, NREQUEST, NREQUEST), ALL);
}

// Each of the device's queues in turn, from a fresh start; the first one comes last and stays.
static int queues(struct disk *d, const struct test *t) {
    u32 n = has(d, F_MQ) ? REG(d->reg, QUEUES) >> 16 : 1, good = 0;

    for (u32 left = n; left > 0; left--) {
        d->queue = left - 1;
        disk_start(d);
        good += REG(d->reg, STATUS) == RUNNING && all_at_once(d, IN);
    }
    return equal("queues that work", good, n);
}

// 31 requests at a time: so the wrap comes in the middle of some.
static int wrap(struct disk *d, const struct test *t) {
    for (u32 done = 0; done < 2 * RING; done += 31)
        if (!equal("requests back", at_once(d, IN, 31, 31), ALL >> 1))
            return 0;
    return 1;
}

// In each round the number round << 8 | i is written to each page i, all at once, and the device is
// reset: in the first when all requests are back, later when some are and some are not. What was
// reported as written is there; another page holds this round's number or the one before: wholly,
// not in part.
static int resets_under_io(struct disk *d, const struct test *t) {
    u64 held[NREQUEST] = { 0 };               // the number in page i

    for (u64 round = 0; round <= resets; round++) {
        for (u32 i = 0; i < NREQUEST; i++)
            fill(i, PAGE, round << 8 | i);
        u32 back = at_once(d, OUT, NREQUEST, round ? 1 + round * 5 % (NREQUEST - 1) : NREQUEST);
        disk_start(d);
        if (!all_at_once(d, IN))
            return 0;
        for (u32 i = 0; i < NREQUEST; i++) {
            int is_old = *(u64 *)data[i] == held[i] && !(back >> i & 1);
            held[i] = is_old ? held[i] : round << 8 | i;
            if (!filled(i, PAGE, held[i]))
                return 0;
        }
    }
    return 1;
}

// The interrupts for n reads that are collected without sleeping; they come in at the end.
static u64 count_interrupts(struct disk *d, u64 n, u64 ms) {
    d->interrupts = 0;
    d->polling = 1;
    while (n-- > 0)
        disk_do(d, (struct io){ IN, 0, 0, PAGE });
    d->polling = 0;
    timer_start(ms);
    while (d->interrupts == 0 && !late)
        sleep();
    return d->interrupts;
}

// data: how many reads are not to interrupt. Then comes one that is; and if only one was asked for,
// those behind it are not. Before that, what was under way comes in: a fresh start ends it; and the
// first interrupt after one, which comes whether it was asked for or not.
static int interrupts(struct disk *d, const struct test *t) {
    disk_start(d);
    count_interrupts(d, 0, MOMENT);
    count_interrupts(d, 1, PATIENCE);
    d->ring.avail.used_event = d->ring.taken + t->data;
    return equal("early interrupts", count_interrupts(d, t->data, MOMENT), 0) &&
           equal("interrupts", count_interrupts(d, 1, PATIENCE), 1) &&
           (!(t->needs & F_EVENT_IDX) ||
            equal("late interrupts", count_interrupts(d, 4, MOMENT), 0));
}

static int put_back(struct disk *d, const struct test *t) {
    memcpy(data, saved, sizeof(data));
    return all_at_once(d, OUT);
}

static const struct test tests[] = {
    { "each ring is set up and answers", queues },
    { "IN reads", request, { IN, 0, AT(0), PAGE }, OK, ANY },
    { "OUT writes", request, { OUT, 0, AT(0), 3 * PAGE }, OK, 1111, WRITES },
    { "IN reads what OUT wrote", request, { IN, 0, AT(0), 3 * PAGE }, OK, 1111, WRITES },
    { "OUT, indirect", request, { OUT, 1, AT(1), PAGE }, OK, 2222, WRITES | F_INDIRECT },
    { "IN, indirect", request, { IN, 1, AT(1), PAGE }, OK, 2222, WRITES | F_INDIRECT },
    { "WRITE_ZEROES", request, { ZEROES, 0, AT(1), PAGE }, OK, 0, WRITES | F_ZEROES },
    { "IN reads zeroes there", request, { IN, 0, AT(1), PAGE }, OK, 0, WRITES | F_ZEROES },
    { "DISCARD", request, { DISCARD, 0, AT(1), PAGE }, OK, 0, WRITES | F_DISCARD },
    { "the page before is as it was", request, { IN, 0, AT(0), PAGE }, OK, 1111, WRITES },
    { "the page behind is as it was", request, { IN, 0, AT(2), PAGE }, OK, 1111, WRITES },
    { "FLUSH", request, { FLUSH }, OK, 0, F_FLUSH },
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
    { "zeroing past the end fails", request, { ZEROES, 0, AT(32), PAGE }, IOERR, 0, F_ZEROES },
    { "writing to a read-only disk fails", request, { OUT, 0, AT(0), PAGE }, IOERR, 0, F_RO },
    { "the rings wrap around", wrap },
    { "reset under I/O loses nothing", resets_under_io, .needs = WRITES },
    { "an interrupt for a used buffer", interrupts, .data = 0 },
    { "EVENT_IDX: one interrupt, where asked", interrupts, .data = 3, .needs = F_EVENT_IDX },
    { "the scratch area is put back", put_back, .needs = WRITES },
};

// The command `selftest`. Returns the verdict: 0 if all is well, else 1.
int selftest(struct disk *d, u64 nresets) {
    u64 offered = d->features | (has(d, F_RO) ? 0 : WRITES);
    int verdict = 0;

    resets = nresets;
    printf("TAP version 13\n1..%lu\n", COUNT(tests));
    if (d->capacity < 8 * NREQUEST || !all_at_once(d, IN)) {
        printf("Bail out! the scratch area, 128 KiB at the disk's end, cannot be read\n");
        return 1;
    }
    memcpy(saved, data, sizeof(data));
    for (const struct test *t = tests; t < tests + COUNT(tests); t++) {
        int skip = (t->needs & ~offered) != 0, ok = skip || t->run(d, t);
        printf("%s %lu - %s%s\n", ok ? "ok" : "not ok", t - tests + 1, t->name,
               skip ? " # SKIP not offered" : "");
        if (!ok) {
            verdict = 1;
            disk_start(d);                    // whatever it has left in flight is no more
        }
    }
    return verdict;
}
