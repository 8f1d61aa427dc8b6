// SPDX-License-Identifier: GPL-2.0-only
//
// The shell on the serial line, its commands, and main.
//
#include "guest.h"
#include "disk.h"

enum { BENCH_STRIDE = 127 * 8 };  // sectors: the device could merge neighbours, these are none

static struct disk *disk;         // the current one; 0 if there is none
static int booting;               // commands come from the kernel's command line

static const char *name;          // of the command that runs;
static u64 arg[2], nargs;         // its numbers, and how many there are;
static char *rest;                // what follows them

// The commands. Each gets what the table says is to be asked of the disk, with arg[0] for sector.
static void report(int status) {
    printf("%s: %s\n", name, status == OK ? "ok" : status == IOERR ? "I/O error" :
           status == UNSUPP ? "not supported" : "no answer");
}

static void do_read(struct io io) {
    io.nbytes = disk->block * SECTOR;
    int status = disk_do(disk, io);
    if (status != OK)
        report(status);
    for (u8 *row = data[0]; status == OK && row < data[0] + io.nbytes; row += 16) {
        printf("%03x ", (u32)(row - data[0]));
        for (u32 i = 0; i < 16; i++)
            printf(" %02x", row[i]);
        printf("  ");
        for (u32 i = 0; i < 16; i++)
            putc(row[i] >= ' ' && row[i] < 127 ? row[i] : '.');
        printf("\n");
    }
}

// The block is filled with the byte, or with lines of the text.
static void do_write(struct io io) {
    char *p = rest;

    io.nbytes = disk->block * SECTOR;
    for (u32 i = 0; i < io.nbytes; i++) {
        data[0][i] = nargs == 2 ? (u8)arg[1] : *p ? *p : '\n';
        p = *p ? p + 1 : rest;
    }
    report(disk_do(disk, io));
}

// flush, discard, zero
static void do_other(struct io io) {
    io.nbytes = arg[1] * SECTOR;
    report(disk_do(disk, io));
}

static void do_id(struct io io) {
    io.nbytes = 20;
    data[0][20] = 0;
    if (disk_do(disk, io) == OK)
        printf("id: '%s'\n", (char *)data[0]);
    else
        printf("id: it has none\n");
}

static void do_info(struct io io) {
    printf("capacity %lu sectors (%lu KiB)\nfeatures", disk->capacity, disk->capacity / 2);
    for (u32 i = 0; i < NFEATURE; i++)
        if (has(disk, i))
            printf(" %s", feature_names[i]);
    printf("\nblock size %u\nso far %u doorbells, %u interrupts\n", disk->block * SECTOR,
           disk->doorbells, disk->interrupts);
}

// N reads of 4 KiB, at most QD of them in flight.
static void do_bench(struct io io) {
    u64 n = arg[0], depth = arg[1], end = disk->capacity & ~7UL, failed = 0, added;
    u32 doorbells = disk->doorbells, interrupts = disk->interrupts;

    disk->polling = same_word(rest, "poll");
    if (depth < 1 || depth > NREQUEST || n < depth || end == 0 ||
        !(disk->polling || same_word(rest, "irq"))) {
        printf("bench N QD irq|poll: QD is 1 to %u, N is at least QD\n", NREQUEST);
        return;
    }
    watch_start();
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
    u64 us = watch_us();
    printf("bench: %lu reads of %u bytes, depth %lu, %s: %lu reads/s (%lu us, %u doorbells, "
           "%u interrupts, %lu failed)\n", n, PAGE, depth, disk->polling ? "poll" : "irq",
           n * 1000000 / (us + !us), us, disk->doorbells - doorbells,
           disk->interrupts - interrupts, failed);
    disk->polling = 0;
}

static void do_selftest(struct io io) {
    int verdict = selftest(disk, nargs ? arg[0] : 2);
    if (booting)
        power_off(verdict);
}

static void do_disk(struct io io) {
    if (nargs && arg[0] >= ndisk)
        printf("disk: there is no disk %lu\n", arg[0]);
    else if (nargs)
        disk = &disks[arg[0]];
    for (struct disk *d = disks; d < disks + ndisk; d++)
        printf("%s disk %lu: %lu sectors, registers %lx, pin %u%s\n", d == disk ? "*" : " ",
               d - disks, d->capacity, (u64)d->reg, d->pin, has(d, F_RO) ? ", read-only" : "");
}

static void do_cpus(struct io io) { cpus(); }
static void do_crash(struct io io) { *(volatile u32 *)0x80000000 = 0; }
static void do_poweroff(struct io io) { power_off(arg[0]); }
static void do_help(struct io io);

static const struct {
    const char *help;             // begins with the command's name
    void (*run)(struct io);
    u32 numbers;                  // how many it cannot do without
    u32 type, indirect;           // of its request
} commands[] = {
    { "read SECTOR                print a block: 512 bytes, on most disks", do_read, 1, IN },
    { "write SECTOR BYTE|TEXT     fill a block with it", do_write, 1, OUT },
    { "iread SECTOR               read, by an indirect descriptor", do_read, 1, IN, 1 },
    { "iwrite SECTOR BYTE|TEXT    write, by an indirect descriptor", do_write, 1, OUT, 1 },
    { "flush                      what is written stays, come what may", do_other, 0, FLUSH },
    { "discard SECTOR COUNT       the contents are needed no more", do_other, 2, DISCARD },
    { "zero SECTOR COUNT          write zeroes without sending them", do_other, 2, WRITE_ZEROES },
    { "id                         the disk's serial number", do_id, 0, GET_ID },
    { "info                       features, sizes, counters", do_info },
    { "bench N QD irq|poll        time N reads of 4 KiB, QD at a time", do_bench, 2 },
    { "selftest [RESETS]          test the disk; 128 KiB at its end are put back", do_selftest },
    { "disk [N]                   list the disks; the commands above are for disk N", do_disk },
    { "cpus                       start the other processors, list all", do_cpus },
    { "crash                      touch memory that is not there: a register dump", do_crash },
    { "poweroff [VERDICT]         end; the exit status is 2 * VERDICT + 1", do_poweroff },
    { "help                       this list", do_help },
};
enum { NEED_DISK = 11 };          // so many commands from the first one on

static void do_help(struct io io) {
    for (u32 i = 0; i < COUNT(commands); i++)
        printf("%s\n", commands[i].help);
}

// Cut the word off that the text begins with; returns what follows.
static char *cut_word(char *text) {
    while (*text > ' ')
        text++;
    while (*text == ' ')
        *text++ = 0;
    return text;
}

static void run(char *line) {
    u32 c = 0;
    char *end;

    while (*line == ' ')
        line++;
    if (*line == 0)
        return;
    name = line;
    rest = cut_word(line);
    arg[0] = arg[1] = 0;
    for (nargs = 0; nargs < 2 && (end = scan(rest, &arg[nargs])) && *end <= ' '; nargs++)
        rest = cut_word(rest);
    while (c < COUNT(commands) && !same_word(name, commands[c].help))
        c++;
    if (c == COUNT(commands))
        printf("%s: no such command; try help\n", name);
    else if (!disk && c < NEED_DISK)
        printf("%s: there is no disk\n", name);
    else if (nargs < commands[c].numbers)
        printf("expected a number, found '%s'; try help\n", rest);
    else
        commands[c].run((struct io){ commands[c].type, commands[c].indirect, arg[0] });
}

// Run the commands in a line, which ';' separates.
static void run_all(char *line) {
    for (char *next; line; line = next) {
        if ((next = find(line, ";")))
            next[-1] = 0;
        run(line);
    }
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
#define ANNOUNCED "virtio_mmio.device="
#define SLOT(i) (0xfeb00000UL + 512 * (i))

static void find_disks(char *cmdline) {
    char *p = find(cmdline, ANNOUNCED), *end = p - sizeof(ANNOUNCED) + 1;
    u64 address, pin;

    if (p)
        *(end > cmdline ? end - 1 : end) = 0;      // the commands end at the space before it
    else
        for (int i = 23, pins = *(volatile u32 *)SLOT(23) == VIRT ? 24 : 16; i >= 0; i--)
            disk_found(SLOT(i), pins + i);
    for (; p; p = find(p, ANNOUNCED))
        if ((p = find(p, "@")) && (p = scan(p, &address)) && scan(p + 1, &pin))
            disk_found(address, pin);
}

// What the loader left behind (PVH's hvm_start_info), as far as needed.
struct start_info {
    u32 magic, version, flags, nr_modules;
    u64 modlist;
    char *cmdline;
};

void main(struct start_info *info) {
    static char line[256];

    printf("miniqemu guest\n");
    irq_init();
    if (info->magic != 0x336ec578)
        panic("main: not started the PVH way");
    char *cmdline = info->cmdline ? info->cmdline : line;
    find_disks(cmdline);
    disk = ndisk ? &disks[0] : 0;
    do_disk((struct io){ 0 });
    booting = 1;
    run_all(cmdline);
    booting = 0;
    printf("Type help for the commands.\n");
    for (;;) {
        if (disk)
            printf("disk%lu> ", disk - disks);
        else
            printf("no disk> ");
        read_line(line, sizeof(line));
        run_all(line);
    }
}
