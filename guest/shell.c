// SPDX-License-Identifier: GPL-2.0-only
//
// The shell on the serial line, its commands, and main.
//
#include "disk.h"

enum { BENCH_STRIDE = 127 * 8 };  // sectors: the device could merge neighbours, these are none

static struct disk *disk = disks; // the current one
static int booting = 1;           // commands come from the kernel's command line

static const char *name;          // of the command that runs;
static u64 arg[2], nargs;         // its numbers, and how many there are;
static char *rest;                // what follows them;
static struct io io;              // what it asks of the disk

// Ask it. Say how that went, unless the data does.
static int ask(u64 nbytes) {
    io.nbytes = nbytes;
    int status = disk_do(disk, io);
    if (status != OK || !reads(io))
        printf("%s: %s\n", name, status == OK ? "ok" : status == IOERR ? "I/O error" :
               status == UNSUPP ? "not supported" : "no answer");
    return status == OK;
}

static void do_read(void) {
    if (!ask(disk->nbytes))
        return;
    for (u8 *row = data[0]; row < data[0] + io.nbytes; row += 16) {
        printf("%03lx ", row - data[0]);
        for (u32 i = 0; i < 16; i++)
            printf(" %02lx", (u64)row[i]);
        printf("  ");
        for (u32 i = 0; i < 16; i++)
            putc(row[i] >= ' ' && row[i] < 127 ? row[i] : '.');
        printf("\n");
    }
}

// The block is filled with the byte, or with lines of the text.
static void do_write(void) {
    char *p = rest;

    for (u64 i = 0; i < disk->nbytes; i++) {
        data[0][i] = nargs == 2 ? (u8)arg[1] : *p ? *p : '\n';
        p = *p ? p + 1 : rest;
    }
    ask(disk->nbytes);
}

static void do_flush(void) { ask(0); }
static void do_range(void) { ask(arg[1] * SECTOR); }

static void do_id(void) {
    data[0][20] = 0;
    if (ask(20))
        printf("id: '%s'\n", (char *)data[0]);
}

static void do_info(void) {
    printf("capacity %lu sectors (%lu KiB)\nfeatures", disk->capacity, disk->capacity / 2);
    for (u32 i = 0; i < NFEATURE; i++)
        if (disk->features >> i & 1)
            printf(" %s", feature_names[i]);
    printf("\nblock size %lu\nso far %lu doorbells, %lu interrupts\n", disk->nbytes,
           disk->doorbells, disk->interrupts);
}

// N reads of 4 KiB, at most QD of them in flight.
static void do_bench(void) {
    u64 n = arg[0], depth = arg[1], end = disk->capacity & ~7UL, failed = 0, added;
    u64 doorbells = disk->doorbells, interrupts = disk->interrupts;

    disk->polling = same_word(rest, "poll");
    if (depth < 1 || depth > NREQUEST || n < depth || end == 0 ||
        !(disk->polling || same_word(rest, "irq"))) {
        printf("bench N QD irq|poll: QD is 1 to %lu, N is at least QD\n", COUNT(disk->request));
        return;
    }
    for (added = 0; added < depth; added++) {
        disk_prepare(disk, added, (struct io){ IN, 0, added * BENCH_STRIDE % end, PAGE });
        disk_add(disk, added);
    }
    for (u64 done = 0; done < n; done++) {
        u32 i = disk_wait(disk);
        failed += disk->request[i].status != OK;
        if (added < n) {
            disk->request[i].header.sector = added++ * BENCH_STRIDE % end;
            disk_add(disk, i);
        }
    }
    u64 us = timer_us();
    printf("bench: %lu reads of 4096 bytes, depth %lu, %s: %lu reads/s (%lu us, %lu doorbells, "
           "%lu interrupts, %lu failed)\n", n, depth, disk->polling ? "poll" : "irq",
           n * 1000000 / (us + !us), us, disk->doorbells - doorbells,
           disk->interrupts - interrupts, failed);
    disk->polling = 0;
}

static void do_selftest(void) {
    int verdict = selftest(disk, nargs ? arg[0] : 2);
    if (booting)
        power_off(verdict);
}

static void do_disk(void) {
    if (nargs && arg[0] >= ndisk)
        printf("disk: there is no disk %lu\n", arg[0]);
    else if (nargs)
        disk = &disks[arg[0]];
    for (struct disk *d = disks; d < disks + ndisk; d++)
        printf("%s disk %lu: %lu sectors, registers %lx, pin %lu%s\n", d == disk ? "*" : " ",
               d - disks, d->capacity, d->reg, d->pin, has(d, F_RO) ? ", read-only" : "");
}

static void do_crash(void) { *(volatile u32 *)0x80000000 = 0; }
static void do_poweroff(void) { power_off(arg[0]); }
static void do_help(void);

static const struct command {
    const char *help;             // begins with the command's name
    void (*run)(void);
    u32 numbers;                  // how many it cannot do without
    struct io io;
} commands[] = {
    { "read SECTOR                print a block: 512 bytes, on most disks", do_read, 1, { IN } },
    { "write SECTOR BYTE|TEXT     fill a block with it", do_write, 1, { OUT } },
    { "iread SECTOR               read, by an indirect descriptor", do_read, 1, { IN, 1 } },
    { "iwrite SECTOR BYTE|TEXT    write, by an indirect descriptor", do_write, 1, { OUT, 1 } },
    { "flush                      what is written stays, come what may", do_flush, 0, { FLUSH } },
    { "discard SECTOR COUNT       the contents are needed no more", do_range, 2, { DISCARD } },
    { "zero SECTOR COUNT          zeroes, without sending them", do_range, 2, { ZEROES } },
    { "id                         the disk's serial number", do_id, 0, { GET_ID } },
    { "info                       features, sizes, counters", do_info },
    { "bench N QD irq|poll        time N reads of 4 KiB, QD at a time", do_bench, 2 },
    { "selftest [RESETS]          test the disk; 128 KiB at its end are put back", do_selftest },
    { "disk [N]                   list the disks; the commands above are for disk N", do_disk },
    { "cpus                       start the other processors, list all", cpus },
    { "crash                      touch memory that is not there: a register dump", do_crash },
    { "poweroff [VERDICT]         end; the exit status is 2 * VERDICT + 1", do_poweroff },
    { "help                       this list", do_help },
};
enum { NEED_DISK = 11 };          // so many commands from the first one on

static void do_help(void) {
    for (u32 i = 0; i < COUNT(commands); i++)
        printf("%s\n", commands[i].help);
}

// Cut the first piece off the text, up to `end`; what is left begins with no space.
static char *cut(char **text, char end) {
    char *piece = *text;

    while (**text && **text != end)
        ++*text;
    while (**text == end || **text == ' ')
        *(*text)++ = 0;
    return piece;
}

static void run(char *line) {
    const struct command *c = commands;
    char *end;

    name = cut(&line, ' ');
    for (nargs = 0; nargs < 2 && (end = scan(line, &arg[nargs])) > line && *end <= ' '; nargs++)
        cut(&line, ' ');
    rest = line;
    while (c < commands + COUNT(commands) && !same_word(name, c->help))
        c++;
    if (c == commands + COUNT(commands)) {
        printf("%s: no such command; try help\n", name);
    } else if (c < commands + NEED_DISK && ndisk == 0) {
        printf("%s: there is no disk\n", name);
    } else if (nargs < c->numbers) {
        printf("expected a number, found '%s'; try help\n", rest);
    } else {
        io = c->io;
        io.sector = arg[0];
        timer_start(0);           // a stop watch for bench, and no limit for the others
        c->run();
    }
}

// Run the commands in a line, which ';' separates.
static void run_all(char *line) {
    while (*line == ' ' || *line == ';')
        line++;
    while (*line)
        run(cut(&line, ';'));
}

// Read a line, with its echo. Backspace takes back a character.
static void read_line(char *line, u32 size) {
    u32 n = 0;
    int c;

    while ((c = getc()) != '\r' && c != '\n') {
        if ((c == '\b' || c == 127) && n > 0) {
            printf("\b \b");
            n--;
        } else if (c >= ' ' && c < 127 && n < size - 1) {
            putc(line[n++] = c);
        }
    }
    line[n] = 0;
    printf("\n");
}

// The loader names each disk on the command line, behind the commands, by size, address and pin:
// "virtio_mmio.device=512@0xfeb00e00:12". Where it names none (QEMU's microvm with ACPI) they sit
// in fixed slots, filled from the top: 24 at the pins of a second IOAPIC, or else 8.
#define SLOT(i) (0xfeb00000UL + 512 * (i))

static void find_disks(char *cmdline) {
    char *p = find(cmdline, "virtio_mmio.device=");
    u64 address, pin;

    if (p)
        p[p == cmdline ? 0 : -1] = 0;              // the commands end at the space before it
    else
        for (int i = 23, pins = REG(SLOT(23), MAGIC) == VIRT ? 24 : 16; i >= 0; i--)
            disk_found(SLOT(i), pins + i);
    while (p && (p = find(p + 1, "@"))) {
        p = scan(p + 1, &address);
        if (*p == ':' && scan(p + 1, &pin))
            disk_found(address, pin);
    }
}

// What the loader left behind (PVH's hvm_start_info), as far as needed.
struct start_info { u32 magic, version, flags, nr_modules; u64 modlist; char *cmdline; };

void main(struct start_info *info) {
    static char line[256];

    printf("miniqemu guest\n");
    irq_init();
    find_disks(info->cmdline);
    do_disk();
    run_all(info->cmdline);
    booting = 0;
    printf("Type help for the commands.\n");
    for (;;) {
        printf(ndisk ? "disk%lu> " : "no disk> ", disk - disks);
        read_line(line, sizeof(line));
        run_all(line);
    }
}
