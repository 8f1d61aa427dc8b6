// SPDX-License-Identifier: GPL-2.0-only
//
// The shell on the serial line, its commands, and main.
//
#include "kernel.h"
#include "virtio.h"

#define BENCH_STRIDE (127 * 8)    // neighbours could be merged by the device; these are none

static struct disk *disk;         // the current one; 0 if there is none
static int booting;               // commands come from the kernel's command line

static u64 arg[2];                // of the command that runs: its numbers,
static char *rest;                // and what follows them

// Is the next word a number? Then it is taken off `rest`.
static int
number(u64 *value)
{
  char *end = rest;

  *value = scan(&end);
  if(end == rest || (*end && *end != ' '))
    return 0;
  rest = skip_word(rest);
  return 1;
}

static void
report(const char *what, int status)
{
  printf("%s: %s\n", what, status == BLK_OK ? "ok" : status == BLK_IOERR ? "I/O error" :
         status == BLK_UNSUPP ? "not supported" : "no answer");
}

// Each command gets, from the table below, `how`: a request type, or whether it is indirect.
static void
do_read(u32 how)
{
  u32 nbytes = disk->block * SECTOR;
  int status = blk_do(disk, BLK_IN, arg[0], nbytes, how);

  if(status != BLK_OK)
    report("read", status);
  for(u8 *p = data[0]; status == BLK_OK && p < data[0] + nbytes; p += 16){
    printf("%03x ", (u32)(p - data[0]));
    for(u32 i = 0; i < 16; i++)
      printf(" %02x", p[i]);
    printf("  ");
    for(u32 i = 0; i < 16; i++)
      putc(p[i] >= ' ' && p[i] < 127 ? p[i] : '.');
    printf("\n");
  }
}

// The block is filled with the byte, or with lines of the text.
static void
do_write(u32 how)
{
  u32 nbytes = disk->block * SECTOR;
  char *p = rest;
  u64 byte;

  if(number(&byte))
    memset(data[0], byte, nbytes);
  else
    for(u32 i = 0; i < nbytes; i++){
      data[0][i] = *p ? *p : '\n';
      p = *p ? p + 1 : rest;
    }
  report("write", blk_do(disk, BLK_OUT, arg[0], nbytes, how));
}

static void
do_flush(u32 how)
{
  report("flush", blk_do(disk, BLK_FLUSH, 0, 0, 0));
}

static void
do_range(u32 how)
{
  report(how == BLK_DISCARD ? "discard" : "zero", blk_range(disk, how, arg[0], arg[1], 0));
}

static void
do_id(u32 how)
{
  memset(data[0], 0, 21);
  if(blk_do(disk, BLK_GET_ID, 0, 20, 0) == BLK_OK)
    printf("id: '%s'\n", (char *)data[0]);
  else
    printf("id: it has none\n");
}

static void
do_info(u32 how)
{
  static const char *const features[] = {
    [1] = "SIZE_MAX", "SEG_MAX", [5] = "RO", "BLK_SIZE", [9] = "FLUSH", "TOPOLOGY", "CONFIG_WCE",
    "MQ", "DISCARD", "WRITE_ZEROES", [28] = "INDIRECT_DESC", "EVENT_IDX", [32] = "VERSION_1",
  };

  printf("capacity %lu sectors (%lu KiB)\nfeatures", disk->capacity, disk->capacity / 2);
  for(u32 i = 0; i < ARRAY_LEN(features); i++)
    if(disk->features >> i & 1)
      printf(" %s", features[i]);
  printf("\nqueues %u, block size %u", disk->nqueue, disk->block * SECTOR);
  if(disk->features & F_SEG_MAX)
    printf(", segments in a request at most %u", REG(disk, SEG_MAX));
  if(disk->features & F_CONFIG_WCE)
    printf(", write cache %s", REG8(disk, WRITEBACK) ? "on" : "off");
  printf("\nso far %u doorbells, %u interrupts\n", disk->doorbells, disk->interrupts);
}

// N reads of 4 KiB, at most QD of them in flight.
static void
bench(u64 n, u64 depth)
{
  u64 end = disk->capacity & ~7UL, sector = 0, started, finished = 0, failed = 0, us;
  u32 doorbells = disk->doorbells, interrupts = disk->interrupts;
  int i;

  watch_start();
  for(started = 0; started < depth; started++, sector += 8){
    blk_prepare(disk, started, BLK_IN, sector % end, PAGE, 0);
    blk_add(disk, started);
  }
  blk_kick(disk);
  for(; finished < n; finished++){
    if((i = blk_take(disk)) < 0){
      blk_kick(disk);
      i = blk_wait(disk);
    }
    failed += disk->request[i].status != BLK_OK;
    if(started < n){
      sector = (sector + BENCH_STRIDE) % end;
      disk->request[i].header.sector = sector;
      blk_add(disk, i);
      started++;
    }
  }
  us = watch_us();
  printf("bench: %lu reads of %u bytes, depth %lu, %s: %lu reads/s (%lu us, %u doorbells, "
         "%u interrupts, %lu failed)\n", n, PAGE, depth, disk->polling ? "poll" : "irq",
         n * 1000000 / (us + !us), us, disk->doorbells - doorbells,
         disk->interrupts - interrupts, failed);
}

static void
do_bench(u32 how)
{
  int poll = same_word(rest, "poll");

  if(arg[1] < 1 || arg[1] > NREQ || arg[0] < arg[1] || disk->capacity < 8 ||
     !(poll || same_word(rest, "irq"))){
    printf("bench N QD irq|poll: QD is 1 to %u, N is at least QD\n", NREQ);
    return;
  }
  blk_set_polling(disk, poll);
  bench(arg[0], arg[1]);
  blk_set_polling(disk, 0);
}

static void
do_disk(u32 how)
{
  u64 n;

  if(number(&n)){
    if(n >= ndisk)
      printf("disk: there is no disk %lu\n", n);
    else
      disk = &disks[n];
  }
  for(u32 i = 0; i < ndisk; i++)
    printf("%s disk %u: %lu sectors, registers %lx, pin %u%s\n", &disks[i] == disk ? "*" : " ", i,
           disks[i].capacity, disks[i].base, disks[i].pin,
           disks[i].features & F_RO ? ", read-only" : "");
}

static void
do_selftest(u32 how)
{
  u64 resets;
  int verdict = selftest(disk, number(&resets) ? resets : 2);

  if(booting)
    power_off(verdict);
}

static void
do_poweroff(u32 how)
{
  u64 verdict;

  power_off(number(&verdict) ? verdict : 0);
}

static void do_cpus(u32 how) { cpus(); }
static void do_crash(u32 how) { *(volatile u32 *)0x80000000 = 0; }
static void do_help(u32 how);

static const struct {
  const char *help;               // begins with the command's name
  void (*run)(u32);
  int numbers, how;
} commands[] = {
  { "read SECTOR                print a block: 512 bytes, on most disks", do_read, 1 },
  { "write SECTOR BYTE|TEXT     fill a block with it", do_write, 1 },
  { "iread SECTOR               read, by an indirect descriptor", do_read, 1, 1 },
  { "iwrite SECTOR BYTE|TEXT    write, by an indirect descriptor", do_write, 1, 1 },
  { "flush                      what is written stays, come what may", do_flush },
  { "discard SECTOR COUNT       the contents are needed no more", do_range, 2, BLK_DISCARD },
  { "zero SECTOR COUNT          write zeroes without sending them", do_range, 2, BLK_WRITE_ZEROES },
  { "id                         the disk's serial number", do_id },
  { "info                       features, sizes, counters", do_info },
  { "bench N QD irq|poll        time N reads of 4 KiB, QD at a time", do_bench, 2 },
  { "selftest [RESETS]          test the disk; 128 KiB at its end are put back", do_selftest },
  { "disk [N]                   list the disks; the commands above are for disk N", do_disk },
  { "cpus                       start the other processors, list all", do_cpus },
  { "crash                      touch memory that is not there: a register dump", do_crash },
  { "poweroff [VERDICT]         end; the exit status is 2 * VERDICT + 1", do_poweroff },
  { "help                       this list", do_help },
};
#define NEED_DISK 11              // so many commands from the first one on

static void
do_help(u32 how)
{
  for(u32 i = 0; i < ARRAY_LEN(commands); i++)
    printf("%s\n", commands[i].help);
}

static void
run(char *line)
{
  u32 c = 0, end = 0;

  while(*line == ' ')
    line++;
  while(line[end])
    end++;
  while(end > 0 && line[end - 1] == ' ')
    line[--end] = 0;
  if(*line == 0)
    return;
  while(c < ARRAY_LEN(commands) && !same_word(line, commands[c].help))
    c++;
  if(c == ARRAY_LEN(commands)){
    printf("%s: no such command; try help\n", line);
    return;
  }
  if(!disk && c < NEED_DISK){
    printf("%s: there is no disk\n", line);
    return;
  }
  rest = skip_word(line);
  for(int i = 0; i < commands[c].numbers; i++)
    if(!number(&arg[i])){
      printf("expected a number, found '%s'; try help\n", rest);
      return;
    }
  commands[c].run(commands[c].how);
}

// Run the commands in a line, which ';' separates.
static void
run_all(char *line)
{
  for(char *next; line; line = next){
    if((next = find(line, ";")))
      *next++ = 0;
    run(line);
  }
}

// Read a line, with its echo. Backspace takes back a character.
static void
read_line(char *line, u32 size)
{
  u32 n = 0;
  int c;

  while((c = getc()) != '\r' && c != '\n'){
    if((c == '\b' || c == 127) && n > 0){
      printf("\b \b");
      n--;
    } else if(c >= ' ' && c < 127 && n < size - 1){
      putc(line[n++] = c);
    }
  }
  line[n] = 0;
  printf("\n");
}

// What the loader left behind (PVH's hvm_start_info), as far as needed.
struct start_info {
  u32 magic, version, flags, nr_modules;
  u64 modlist;
  char *cmdline;
};

void
main(struct start_info *info)
{
  static char line[256];

  printf("miniqemu guest\n");
  trap_init();
  uart_init();
  if(info->magic != 0x336ec578)
    panic("main: not started the PVH way");
  if(info->cmdline == 0)
    info->cmdline = line;
  virtio_discover(info->cmdline, blk_found);
  disk = ndisk ? &disks[0] : 0;
  rest = "";
  do_disk(0);
  booting = 1;
  run_all(info->cmdline);
  booting = 0;
  printf("Type help for the commands.\n");
  for(;;){
    if(disk)
      printf("disk%lu> ", disk - disks);
    else
      printf("no disk> ");
    read_line(line, sizeof(line));
    run_all(line);
  }
}
