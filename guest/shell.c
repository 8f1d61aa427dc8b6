// SPDX-License-Identifier: GPL-2.0-only
//
// The shell on the serial line, its commands, and main.
//
#include "disk.h"

static struct disk *disk = disks; // the current one
static int booting = 1;           // commands come from the kernel's command line

static const char *name;          // of the command that runs;
static u64 arg[2], nargs;         // its numbers, and how many there are;
static char *rest;                // what follows them;
static struct io io;              // what it asks of the disk

// The block is filled with the byte, or with lines of the text.
static void fill(void) {
    const char *p = rest;

    for (u64 i = 0; i < disk->nbytes; i++) {
        data[0][i] = nargs == 2 ? (u8)arg[1] : *p ? *p : '\n';
        p = *p ? p + 1 : rest;
    }
}

static void dump(void) {
    for (u8 *row = data[0]; row < data[0] + disk->nbytes; row += 16) {
        printf("%03lx ", row - data[0]);
        for (u32 i = 0; i < 16; i++)
            printf(" %02lx", (u64)row[i]);
        printf("  ");
        for (u32 i = 0; i < 16; i++)
            putc(row[i] >= ' ' && row[i] < 127 ? row[i] : '.');
        printf("\n");
    }
}

static void do_io(void) {
    io.nbytes = io.type <= OUT ? disk->nbytes : io.type == GET_ID ? 20 : arg[1] * SECTOR;
    if (io.type == OUT)
        fill();
    int status = disk_do(disk, io);
    if (status != OK || !reads(io)) {
        printf("%s: %s\n", name, !status ? "ok" : status == IOERR ? "I/O error" : "not supported");
    } else if (io.type == IN) {
        dump();
    } else {
        data[0][20] = 0;
        printf("id: '%s'\n", (char *)data[0]);
    }
}

static void do_info(void) {
    static const char *const names[30] = {
        [5] = "RO", "BLK_SIZE", [9] = "FLUSH", [13] = "DISCARD", "WRITE_ZEROES",
        [28] = "INDIRECT_DESC", "EVENT_IDX",
    };

    printf("%lu sectors, blocks of %lu bytes\nfeatures", disk->capacity, disk->nbytes);
    for (u32 i = 0; i < COUNT(names); i++)
        if (disk->features >> i & 1)
            printf(" %s", names[i]);
    printf("\n%lu doorbells, %lu interrupts\n", disk->doorbells, interrupts);
}

// N reads of 4 KiB, at most QD of them in flight.
static void do_bench(void) {
    u64 n = arg[0], depth = arg[1];

    disk->polling = behind(rest, "poll") != 0;
    if (depth < 1 || depth > NREQUEST || n < depth || !(disk->polling || behind(rest, "irq"))) {
        printf("bench N QD irq|poll: QD is 1 to %lu, N is at least QD\n", COUNT(disk->request));
        return;
    }
    interrupts = disk->doorbells = 0;
    u64 failed = disk_run(disk, (struct io){ IN, 0, 0, PAGE }, n, depth);
    u64 us = timer_us();
    printf("bench: %lu reads of 4096 bytes, depth %lu, %s: %lu reads/s (%lu us, %lu doorbells, "
           "%lu interrupts, %lu failed)\n", n, depth, rest, n * 1000000 / (us + !us), us,
           disk->doorbells, interrupts, failed);
    disk->polling = 0;
}

static void do_selftest(void) {
    int verdict = selftest(disk);
    if (booting)
        power_off(verdict);
}

static void do_disk(void) {
    if (arg[0] < ndisk)
        disk = &disks[arg[0]];
    else
        printf("disk: there is no disk %lu\n", arg[0]);
}

static void do_crash(void) { *(volatile u32 *)0x80000000 = 0; }
static void do_poweroff(void) { power_off(arg[0]); }

static const struct command {
    const char *help;             // begins with the command's name
    void (*run)(void);
    u32 numbers;                  // how many it cannot do without
    struct io io;
} commands[] = {
    { "read SECTOR                print a block: 512 bytes, on most disks", do_io, 1, { IN } },
    { "write SECTOR BYTE|TEXT     fill a block with it", do_io, 1, { OUT } },
    { "iread SECTOR               read, by an indirect descriptor", do_io, 1, { IN, 1 } },
    { "iwrite SECTOR BYTE|TEXT    write, by an indirect descriptor", do_io, 1, { OUT, 1 } },
    { "flush                      what is written stays, come what may", do_io, 0, { FLUSH } },
    { "discard SECTOR COUNT       the contents are needed no more", do_io, 2, { DISCARD } },
    { "zero SECTOR COUNT          zeroes, without sending them", do_io, 2, { ZEROES } },
    { "id                         the disk's serial number", do_io, 0, { GET_ID } },
    { "info                       features, sizes, counters", do_info },
    { "bench N QD irq|poll        time N reads of 4 KiB, QD at a time", do_bench, 2 },
    { "selftest                   test the disk; 128 KiB at its end are put back", do_selftest },
    { "disk N                     the commands above are for disk N from now on", do_disk, 1 },
    { "cpus                       start the other processors, count them", cpus },
    { "crash                      touch memory that is not there: a register dump", do_crash },
    { "poweroff [VERDICT]         end; the exit status tells the verdict", do_poweroff },
    { "help                       this list" },
};
enum { NEED_DISK = 11 };          // so many commands from the first one on

// Cut the text at `end`, and return what follows that and spaces.
static char *cut(char *text, char end) {
    while (*text && *text != end)
        text++;
    while (*text == end || *text == ' ')
        *text++ = 0;
    return text;
}

static void run(char *line) {
    const struct command *c = commands, *help = commands + COUNT(commands) - 1;
    char *end;

    name = line;
    rest = cut(line, ' ');
    while (c < help && !((end = behind(c->help, name)) && *end == ' '))
        c++;
    arg[1] = 0;
    for (nargs = 0; nargs < 2 && (end = scan(rest, &arg[nargs])) > rest && *end <= ' '; nargs++)
        rest = cut(rest, ' ');
    if (c == help) {              // or what is no command
        for (c = commands; c <= help; c++)
            printf("%s\n", c->help);
    } else if (c < commands + NEED_DISK && ndisk == 0) {
        printf("%s: there is no disk\n", name);
    } else if (nargs < c->numbers) {
        printf("%s: expected a number, found '%s'; try help\n", name, rest);
    } else {
        io = c->io;
        io.sector = arg[0];
        timer_start(0);           // a stop watch, for bench
        c->run();
    }
}

// Read a line, with its echo. Backspace takes back a character.
static char *read_line(void) {
    static char line[256];
    u32 n = 0, c;

    printf(ndisk ? "disk%lu> " : "no disk> ", disk - disks);
    while ((c = getc()) != '\r' && c != '\n') {
        if ((c == '\b' || c == 127) && n > 0) {
            printf("\b \b");
            n--;
        } else if (c >= ' ' && c < 127 && n < sizeof(line) - 1) {
            putc(line[n++] = c);
        }
    }
    line[n] = 0;
    printf("\n");
    return line;
}

// The loader names each disk on the command line, behind the commands, by size, address and pin:
// " virtio_mmio.device=512@0xfeb00e00:12". Where it names none (QEMU's microvm with ACPI) they sit
// in 24 slots, filled from the top, at the pins of a second IOAPIC.
static void find_disks(char *cmdline) {
    char *p = cmdline;
    u64 address, pin;

    while (*p && !behind(p, " virtio_mmio.device="))
        p++;
    for (int i = 23; i >= 0 && *p == 0; i--)
        disk_found(0xfeb00000 + 512 * i, 24 + i);
    p = cut(p, ' ');              // the commands end here
    while (*(p = cut(p, '@'))) {
        p = scan(p, &address);
        scan(p + 1, &pin);
        disk_found(address, pin);
    }
}

// What the loader left behind (PVH's hvm_start_info), as far as needed.
struct start_info { u32 magic, version, flags, nr_modules; u64 modlist; char *cmdline; };

void main(struct start_info *info) {
    printf("miniqemu guest. Type help for the commands.\n");
    irq_init();
    find_disks(info->cmdline);
    for (char *line = info->cmdline; ; line = read_line()) {
        for (char *next; *line; line = next) {
            next = cut(line, ';');
            run(line);
        }
        booting = 0;
    }
}
