// SPDX-License-Identifier: GPL-2.0-only
//
// The shell on the serial line, its commands, and main.
//
#include "kernel.h"
#include "virtio.h"

#define BENCH_STRIDE (127 * 8)    // neighbours could be merged by the device; these are none

static struct disk *disk;         // the current one; 0 if there is none
static int booting;               // commands come from the kernel's command line

static const char *
status_name(int status)
{
  switch(status){
  case BLK_OK: return "ok";
  case BLK_IOERR: return "I/O error";
  case BLK_UNSUPP: return "not supported";
  case TIMED_OUT: return "timed out";
  default: return "no status";
  }
}

static void
report(const char *what, int status)
{
  printf("%s: %s\n", what, status_name(status));
}

// The next word of a command as a number; 0, and a word about it, if it is none.
static int
number(char **args, const char *name, u64 *value)
{
  char *word = next_word(args);

  if(parse(word, value))
    return 1;
  printf("%s: expected a number, found '%s'\n", name, word);
  return 0;
}

static void
hex_dump(const u8 *p, u32 n)
{
  for(u32 line = 0; line < n; line += 16, p += 16){
    printf("%03x ", line);
    for(u32 i = 0; i < 16; i++)
      printf(" %02x", p[i]);
    printf("  ");
    for(u32 i = 0; i < 16; i++)
      uart_putc(p[i] >= ' ' && p[i] < 127 ? p[i] : '.');
    printf("\n");
  }
}

// A command gets the rest of its line and, from the table below, `how`: a layout or a type.
static void
do_read(char *args, u32 how)
{
  u64 sector;
  int status;

  if(!number(&args, "SECTOR", &sector))
    return;
  status = blk_do(disk, BLK_IN, sector, disk->block * SECTOR, how);
  if(status == BLK_OK)
    hex_dump(data[0], disk->block * SECTOR);
  else
    report("read", status);
}

// The block is filled with the byte, or with lines of the text.
static void
do_write(char *args, u32 how)
{
  u64 sector, byte;
  u32 n, nbytes = disk->block * SECTOR;

  if(!number(&args, "SECTOR", &sector))
    return;
  if(parse(args, &byte)){
    memset(data[0], byte, nbytes);
  } else {
    for(n = 0; args[n] && n < nbytes - 1; n++)
      data[0][n] = args[n];
    data[0][n] = '\n';
    for(u32 i = n + 1; i < nbytes; i++)
      data[0][i] = data[0][i - n - 1];
  }
  report("write", blk_do(disk, BLK_OUT, sector, nbytes, how));
}

static void
do_fill(char *args, u32 how)
{
  u64 sector, count, byte;
  int status = BLK_OK;

  if(!number(&args, "SECTOR", &sector) || !number(&args, "COUNT", &count) ||
     !number(&args, "BYTE", &byte))
    return;
  memset(data[0], byte, PAGE);
  while(count > 0 && status == BLK_OK){
    u32 n = count < PAGE / SECTOR ? count : PAGE / SECTOR;
    status = blk_do(disk, BLK_OUT, sector, n * SECTOR, DIRECT);
    sector += n;
    count -= n;
  }
  report("fill", status);
}

static void
do_flush(char *args, u32 how)
{
  report("flush", blk_do(disk, BLK_FLUSH, 0, 0, DIRECT));
}

static void
do_range(char *args, u32 how)
{
  u64 sector, count;

  if(number(&args, "SECTOR", &sector) && number(&args, "COUNT", &count))
    report(how == BLK_DISCARD ? "discard" : "zero", blk_range(disk, how, sector, count, 0));
}

static void
do_id(char *args, u32 how)
{
  int status;

  memset(data[0], 0, 21);
  status = blk_do(disk, BLK_GET_ID, 0, 20, DIRECT);
  if(status == BLK_OK)
    printf("id: '%s'\n", (char *)data[0]);
  else
    report("id", status);
}

static void
do_info(char *args, u32 how)
{
  static const struct { u64 bit; const char *name; } names[] = {
    { F_SIZE_MAX, "SIZE_MAX" }, { F_SEG_MAX, "SEG_MAX" }, { F_RO, "RO" },
    { F_BLK_SIZE, "BLK_SIZE" }, { F_FLUSH, "FLUSH" }, { F_TOPOLOGY, "TOPOLOGY" },
    { F_CONFIG_WCE, "CONFIG_WCE" }, { F_MQ, "MQ" }, { F_DISCARD, "DISCARD" },
    { F_WRITE_ZEROES, "WRITE_ZEROES" }, { F_INDIRECT_DESC, "INDIRECT_DESC" },
    { F_EVENT_IDX, "EVENT_IDX" }, { F_VERSION_1, "VERSION_1" },
  };
  struct virtio *v = &disk->v;

  printf("registers %lx, pin %u, %u queue%s of %u\n", v->base, v->pin, v->nqueue,
         v->nqueue == 1 ? "" : "s", disk->queue[0].size);
  printf("capacity %lu sectors (%lu KiB)\n", disk->capacity, disk->capacity / 2);
  printf("features");
  for(u32 i = 0; i < ARRAY_LEN(names); i++)
    if(v->features & names[i].bit)
      printf(" %s", names[i].name);
  printf("\n");
  if(v->features & F_BLK_SIZE)
    printf("block size %u\n", CONFIG32(disk, CONFIG_BLK_SIZE));
  if(v->features & F_SEG_MAX)
    printf("segments in a request: at most %u\n", CONFIG32(disk, CONFIG_SEG_MAX));
  if(v->features & F_CONFIG_WCE)
    printf("write cache %s\n", CONFIG8(disk, CONFIG_WRITEBACK) ? "on" : "off");
  printf("so far %u doorbells, %u interrupts\n", v->doorbells, v->interrupts);
}

// N reads of 4 KiB, at most QD of them in flight.
static void
bench(u64 n, u64 depth)
{
  u64 end = disk->capacity & ~7UL, sector = 0, started, finished = 0, failed = 0;
  u64 ticks_per_ms = tsc_per_ms(), start = rdtsc(), us;
  u32 doorbells = disk->v.doorbells, interrupts = disk->v.interrupts;
  int i;

  for(started = 0; started < depth; started++, sector += 8)
    blk_prepare(disk, started, BLK_IN, sector % end, PAGE, DIRECT), blk_add(disk, started);
  blk_kick(disk);
  while(finished < n){
    if((i = blk_take(disk)) < 0){
      blk_kick(disk);
      i = blk_wait(disk);
    }
    finished++;
    failed += disk->request[i].status != BLK_OK;
    if(started < n){
      sector += BENCH_STRIDE;
      if(sector >= end)
        sector -= end;
      disk->request[i].header.sector = sector;
      blk_add(disk, i);
      started++;
    }
  }
  us = (rdtsc() - start) * 1000 / ticks_per_ms;
  printf("bench: %lu reads of %d bytes, depth %lu, %s: %lu reads/s (%lu us, %u doorbells, "
         "%u interrupts, %lu failed)\n", n, PAGE, depth, disk->polling ? "poll" : "irq",
         n * 1000000 / (us + !us), us, disk->v.doorbells - doorbells,
         disk->v.interrupts - interrupts, failed);
}

static void
do_bench(char *args, u32 how)
{
  u64 n, depth;
  char *mode;

  if(!number(&args, "N", &n) || !number(&args, "QD", &depth))
    return;
  mode = next_word(&args);
  if(depth < 1 || depth > NREQ || n < depth || disk->capacity < 8 ||
     (strcmp(mode, "irq") && strcmp(mode, "poll"))){
    printf("bench N QD irq|poll: QD is 1 to %d, N is at least QD\n", NREQ);
    return;
  }
  blk_set_polling(disk, mode[0] == 'p');
  bench(n, depth);
  blk_set_polling(disk, 0);
}

static void
do_disk(char *args, u32 how)
{
  u64 n;

  if(*args){
    if(!number(&args, "N", &n))
      return;
    if(n >= ndisk)
      printf("disk: there is no disk %lu\n", n);
    else
      disk = &disks[n];
  }
  for(u32 i = 0; i < ndisk; i++)
    printf("%c disk %u: %lu sectors, registers %lx, pin %u%s\n", &disks[i] == disk ? '*' : ' ', i,
           disks[i].capacity, disks[i].v.base, disks[i].v.pin,
           disks[i].v.features & F_RO ? ", read-only" : "");
}

static void
do_reset(char *args, u32 how)
{
  u64 rounds = 1;

  if(*args && !number(&args, "ROUNDS", &rounds))
    return;
  printf("reset: %s\n", reset_under_io(disk, rounds) ? "ok" : "FAILED");
}

static void
do_selftest(char *args, u32 how)
{
  int verdict = selftest(disk);

  if(booting)
    power_off(verdict);
}

static void
do_poweroff(char *args, u32 how)
{
  u64 verdict = 0;

  parse(args, &verdict);
  power_off(verdict);
}

static void
do_cpus(char *args, u32 how)
{
  cpus();
}

static void
do_crash(char *args, u32 how)
{
  *(volatile u32 *)0x80000000 = 0;
}

static void do_help(char *args, u32 how);

static const struct {
  const char *name, *args, *help;
  void (*run)(char *, u32);
  u32 how, needs_disk;
} commands[] = {
  { "help", "", "this list", do_help, 0, 0 },
  { "disk", "[N]", "list the disks; from now on the commands below are for disk N", do_disk, 0, 0 },
  { "read", "SECTOR", "print a block: 512 bytes, on most disks", do_read, DIRECT, 1 },
  { "write", "SECTOR BYTE|TEXT", "fill a block with it", do_write, DIRECT, 1 },
  { "iread", "SECTOR", "read, by an indirect descriptor", do_read, INDIRECT, 1 },
  { "iwrite", "SECTOR BYTE|TEXT", "write, by an indirect descriptor", do_write, INDIRECT, 1 },
  { "fill", "SECTOR COUNT BYTE", "write COUNT sectors", do_fill, 0, 1 },
  { "flush", "", "what is written stays, come what may", do_flush, 0, 1 },
  { "discard", "SECTOR COUNT", "the contents are needed no more", do_range, BLK_DISCARD, 1 },
  { "zero", "SECTOR COUNT", "write zeroes without sending them", do_range, BLK_WRITE_ZEROES, 1 },
  { "id", "", "the disk's serial number", do_id, 0, 1 },
  { "info", "", "features, sizes, counters", do_info, 0, 1 },
  { "bench", "N QD irq|poll", "time N reads of 4 KiB, QD at a time", do_bench, 0, 1 },
  { "reset", "[ROUNDS]", "reset the disk while it writes; look for losses", do_reset, 0, 1 },
  { "selftest", "", "test the disk; 32 blocks at its end are used and put back", do_selftest, 0, 1 },
  { "cpus", "", "start the other processors, list all", do_cpus, 0, 0 },
  { "crash", "", "touch memory that is not there, to see a register dump", do_crash, 0, 0 },
  { "poweroff", "[VERDICT]", "end; the exit status is 2 * VERDICT + 1", do_poweroff, 0, 0 },
};

static void
do_help(char *args, u32 how)
{
  for(u32 i = 0; i < ARRAY_LEN(commands); i++){
    int n = 0;
    printf("%s %s", commands[i].name, commands[i].args);
    for(const char *s = commands[i].name; *s; s++)
      n++;
    for(const char *s = commands[i].args; *s; s++)
      n++;
    for(; n < 26; n++)
      uart_putc(' ');
    printf("%s\n", commands[i].help);
  }
}

static void
run(char *line)
{
  char *name = next_word(&line);

  if(*name == 0)
    return;
  for(u32 i = 0; i < ARRAY_LEN(commands); i++)
    if(strcmp(name, commands[i].name) == 0){
      if(commands[i].needs_disk && !disk)
        printf("%s: there is no disk\n", name);
      else
        commands[i].run(line, commands[i].how);
      return;
    }
  printf("%s: no such command; try help\n", name);
}

static void
prompt(void)
{
  if(disk)
    printf("disk%lu> ", (u64)(disk - disks));
  else
    printf("no disk> ");
}

// Run the commands in a line, which ';' separates.
void
shell_run(char *line)
{
  char *command, *end;

  while(*line){
    for(command = line; *line && *line != ';'; line++)
      ;
    end = line;
    if(*line)
      line++;
    while(end > command && end[-1] == ' ')
      end--;
    *end = 0;
    run(command);
  }
}

// Read a line, with its echo. Backspace takes back a character, Ctrl-U all.
static void
read_line(char *line, u32 size)
{
  u32 n = 0;
  int c;

  while((c = uart_getc()) != '\r' && c != '\n'){
    if(c == '\b' || c == 127 || c == 'U' - '@'){
      do {
        if(n == 0)
          break;
        printf("\b \b");
        n--;
      } while(c == 'U' - '@');
    } else if(c >= ' ' && c < 127 && n < size - 1){
      uart_putc(line[n++] = c);
    }
  }
  line[n] = 0;
  printf("\n");
}

void
shell(void)
{
  static char line[256];

  for(;;){
    prompt();
    read_line(line, sizeof(line));
    shell_run(line);
  }
}

// What the loader left behind (PVH's hvm_start_info), as far as needed.
struct start_info {
  u32 magic, version, flags, nr_modules;
  u64 modlist, cmdline;
};
#define START_MAGIC 0x336ec578

void
main(struct start_info *info)
{
  static char none[1];
  char *cmdline = none;

  uart_init();
  printf("miniqemu guest\n");
  trap_init();
  uart_irq_init();
  if(info->magic != START_MAGIC)
    panic("main: not started the PVH way");
  if(info->cmdline)
    cmdline = (char *)info->cmdline;
  virtio_discover(cmdline, blk_found);
  disk = ndisk ? &disks[0] : 0;
  do_disk("", 0);
  booting = 1;
  shell_run(cmdline);
  booting = 0;
  printf("Type help for the commands.\n");
  shell();
}
