// SPDX-License-Identifier: GPL-2.0-only
//
// What the guest's files share: types, access to ports and registers, and who offers what.
//
#include <stdarg.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

struct disk;

#define KB 1024
#define SECTOR 512         // virtio-blk counts in these, whatever the disk's block size
#define PAGE 4096          // the data of a request, at most
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

static inline void
outb(u16 port, u8 value)
{
  asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8
inb(u16 port)
{
  u8 value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

static inline u64
rdtsc(void)
{
  u32 low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return (u64)high << 32 | low;
}

static inline void relax(void) { asm volatile("pause"); }
static inline void intr_on(void) { asm volatile("sti" : : : "memory"); }
static inline void intr_off(void) { asm volatile("cli" : : : "memory"); }

// Sleep until an interrupt, from interrupts off to interrupts off. `sti` works only after the
// instruction that follows it, so no interrupt can slip in between the two and be slept through.
static inline void intr_wait(void) { asm volatile("sti; hlt; cli" : : : "memory"); }

// Order what the compiler does / also what the processor does (a store before a later load).
#define barrier() asm volatile("" : : : "memory")
#define fence() asm volatile("lock; addl $0, (%%rsp)" : : : "memory", "cc")

// lib.c
void *memset(void *, int, u64);
void *memcpy(void *, const void *, u64);
int strcmp(const char *, const char *);
int starts_with(const char *, const char *);
char *next_word(char **);
int parse(const char *, u64 *);
void printf(const char *, ...) __attribute__((format(printf, 1, 2)));
void power_off(int) __attribute__((noreturn));
void panic(const char *) __attribute__((noreturn));

// trap.c
extern volatile u32 ticks;
void trap_init(void);
void irq_enable(u32 pin, void (*handler)(void *), void *arg);
void tick_start(void);
void tick_stop(void);
u32 lapic_read(u32);
void lapic_write(u32, u32);

// time.c
u64 tsc_per_ms(void);

// uart.c
void uart_init(void);
void uart_irq_init(void);
void uart_putc(int);
int uart_getc(void);

// smp.c
void cpus(void);

// shell.c
void shell_run(char *);
void shell(void) __attribute__((noreturn));

// selftest.c
int selftest(struct disk *);
int reset_under_io(struct disk *, u64 rounds);
