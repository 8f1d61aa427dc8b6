// SPDX-License-Identifier: GPL-2.0-only
//
// The self-test of a disk, in TAP (the Test Anything Protocol): a table of requests and how each
// has to end, and two tests that take more than a request.
//
// Tests write only to the scratch area, 32 pages at the disk's end, which are saved before and
// put back after. A timer runs meanwhile: if a request or an interrupt does not come, it ends the
// machine after half a minute, with the verdict that this is bad.
//
#include "disk.h"

#define AT(page) (8UL * (page) - 8 * NREQUEST)     // from the disk's end: the scratch area's pages
#define SCRATCH AT(0), NREQUEST * PAGE, NREQUEST   // all of it; its page: behind those of the tests
#define ANY ~0UL                              // data: whatever it is

enum { PATIENCE = 30000, WRITES = 1 };        // ms; beside features: a disk that is not read-only

struct test {
    const char *name;
    struct io io;                             // its sector: from the disk's end
    u64 status, data, needs;                  // data: written, or to be read; features, WRITES
    int (*run)(struct disk *, const struct test *);      // instead of request
};

static int equal(const char *what, u64 got, u64 expected) {
    if (got != expected)
        printf("# %s is 0x%lx, expected 0x%lx\n", what, got, expected);
    return got == expected;
}

// One request of the table.
static int request(struct disk *d, const struct test *t) {
    struct io io = t->io;
    u64 *word = (u64 *)data, nwords = io.nbytes / 8;

    io.sector += d->capacity;
    for (u64 i = 0; i < nwords && t->data != ANY; i++)
        word[i] = io.type == OUT ? t->data : ~t->data;
    int ok = equal("status", disk_do(d, io), t->status);
    for (u64 i = 0; ok && i < nwords && io.type == IN && t->status == OK && t->data != ANY; i++)
        ok = equal("a word of the data", word[i], t->data);
    return ok;
}

// More reads than the rings have places, an odd number of them at a time.
static int wrap(struct disk *d, const struct test *t) {
    return equal("failures", disk_run(d, (struct io){ IN, 0, 0, PAGE }, 3 * RING, 31), 0);
}

// A read is collected without sleeping; then its interrupt has to come, and no other.
static int delivery(struct disk *d, const struct test *t) {
    interrupts = 0;
    d->ring.avail.used_event = d->ring.taken;
    d->polling = 1;
    disk_do(d, (struct io){ IN, 0, 0, PAGE });
    d->polling = 0;
    while (interrupts == 0)
        sleep();
    return equal("interrupts", interrupts, 1);
}

static const struct test tests[] = {
    { "the ring is set up, and IN reads", { IN, 0, AT(0), PAGE }, OK, ANY },
    { "OUT writes", { OUT, 0, AT(0), 3 * PAGE }, OK, 1111, WRITES },
    { "IN reads what OUT wrote", { IN, 0, AT(0), 3 * PAGE }, OK, 1111, WRITES },
    { "OUT, indirect", { OUT, 1, AT(1), PAGE }, OK, 2222, WRITES | F_INDIRECT },
    { "IN, indirect", { IN, 1, AT(1), PAGE }, OK, 2222, WRITES | F_INDIRECT },
    { "WRITE_ZEROES", { ZEROES, 0, AT(1), PAGE }, OK, 0, WRITES | F_ZEROES },
    { "IN reads zeroes there", { IN, 0, AT(1), PAGE }, OK, 0, WRITES | F_ZEROES },
    { "DISCARD", { DISCARD, 0, AT(1), PAGE }, OK, 0, WRITES | F_DISCARD },
    { "the page behind is as it was", { IN, 0, AT(2), PAGE }, OK, 1111, WRITES },
    { "FLUSH", { FLUSH }, OK, 0, F_FLUSH },
    { "GET_ID", { GET_ID, .nbytes = 20 }, OK },
    { "an unknown type is unsupported", { 99 }, UNSUPP },
    { "reading past the end fails", { IN, 0, AT(32), PAGE }, IOERR },
    { "reading across the end fails", { IN, 0, AT(31), 2 * PAGE }, IOERR },
    { "reading far away fails", { IN, 0, 1UL << 55, PAGE }, IOERR },
    { "reading 513 bytes fails", { IN, 0, AT(0), 513 }, IOERR },
    { "writing past the end fails", { OUT, 0, AT(32), PAGE }, IOERR },
    { "zeroing past the end fails", { ZEROES, 0, AT(32), PAGE }, IOERR, 0, F_ZEROES },
    { "writing to a read-only disk fails", { OUT, 0, AT(0), PAGE }, IOERR, 0, F_RO },
    { "the rings wrap around", .run = wrap },
    { "an interrupt for a used buffer", .run = delivery },
    { "the scratch area is put back", { OUT, 0, SCRATCH }, OK, ANY, WRITES },
};

// The command `selftest`. Returns the verdict: 0 if all is well, else 1.
int selftest(struct disk *d) {
    u64 offered = d->features | (has(d, F_RO) ? 0 : WRITES);
    int verdict = 0;

    printf("TAP version 13\n1..%lu\n", COUNT(tests));
    timer_start(PATIENCE);
    disk_start(d);
    if (!request(d, &(struct test){ .io = { IN, 0, SCRATCH }, .data = ANY })) {
        printf("Bail out! the scratch area, 128 KiB at the disk's end, cannot be read\n");
        return 1;
    }
    for (const struct test *t = tests; t < tests + COUNT(tests); t++) {
        int skip = (t->needs & ~offered) != 0;
        int ok = skip || (t->run ? t->run : request)(d, t);
        printf("%s %lu - %s%s\n", ok ? "ok" : "not ok", t - tests + 1, t->name,
               skip ? " # SKIP not offered" : "");
        verdict |= !ok;
    }
    timer_start(0);
    return verdict;
}
