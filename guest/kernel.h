// SPDX-License-Identifier: GPL-2.0-only
//
// What the guest's files share: types, access to the machine, and who offers what.
//
#include <stdarg.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

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

static inline void relax(void) { asm volatile("pause"); }
static inline void intr_on(void) { asm volatile("sti" : : : "memory"); }
static inline void intr_off(void) { asm volatile("cli" : : : "memory"); }

// Sleep until an interrupt, from interrupts off to interrupts off. `sti` works only after the
// instruction that follows it, so no interrupt can slip in between the two and be slept through.
static inline void intr_wait(void) { asm volatile("sti; hlt; cli" : : : "memory"); }

// Order what the compiler does / also what the processor does (a store before a later load).
#define barrier() asm volatile("" : : : "memory")
#define fence() asm volatile("lock; addl $0, (%%rsp)" : : : "memory", "cc")

// Each processor's local APIC (Intel SDM volume 3, 11.4).
static inline volatile u32 *lapic(u32 reg) { return (volatile u32 *)(0xfee00000UL + reg); }
#define LAPIC_ID 0x20
#define LAPIC_TASK_PRIORITY 0x80
#define LAPIC_END_OF_INTERRUPT 0xb0
#define LAPIC_SPURIOUS 0xf0
#define LAPIC_COMMAND 0x300       // interrupts another processor
#define LAPIC_TIMER 0x320
#define LAPIC_TIMER_COUNT 0x380
#define LAPIC_TIMER_NOW 0x390
#define LAPIC_TIMER_DIVIDE 0x3e0

// lib.c
void *memset(void *, int, u64);
void *memcpy(void *, const void *, u64);
int same_word(const char *, const char *);
char *skip_word(char *);
char *find(char *, const char *);
u64 scan(char **);
void printf(const char *, ...) __attribute__((format(printf, 1, 2)));
void power_off(int) __attribute__((noreturn));
void panic(const char *) __attribute__((noreturn));

// trap.c
extern volatile u32 ticks;
void trap_init(void);
void irq_enable(u32 pin);
void tick_start(void);
void tick_stop(void);
void watch_start(void);
u64 watch_us(void);

// uart.c, smp.c
void uart_init(void);
void putc(int);
int getc(void);
void cpus(void);

// virtio_mmio.c
void virtio_irq(u32 pin);
