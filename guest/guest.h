// SPDX-License-Identifier: GPL-2.0-only
//
// What the files share: types, instructions that C does not know, and who offers what.
//
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define REG(base, offset) (*(volatile u32 *)((base) + (offset)))       // a device's register

static inline void outb(u16 port, u8 v) { asm volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static inline u8 inb(u16 port) {
    u8 value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline void relax(void) { asm volatile("pause"); }

// Order what the compiler does / also what the processor does (a store before a later load).
static inline void barrier(void) { asm volatile("" : : : "memory"); }
static inline void fence(void) { asm volatile("lock; addl $0, (%%rsp)" : : : "memory", "cc"); }

// Sleep until an interrupt. `sti` works only after the instruction that follows it, so one that
// came since we looked for the last time is not slept through. Interrupts come in nowhere else: no
// handler runs in the middle of anything, and for the compiler this is a call of one.
static inline void sleep(void) {
    asm volatile("sti; hlt; cli" : : : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11",
                 "memory", "cc");
}

// machine.c
enum { VECTOR_DISK = 32, VECTOR_TIMER, VECTOR_SERIAL, NVECTOR };       // see boot.S
void putc(int c);
int getc(void);
void irq_init(void);
void irq_enable(u64 pin, u32 vector);
void irq_done(void);
void timer_start(u64 ms);
u64 timer_us(void);
void cpus(void);
_Noreturn void power_off(int verdict);
_Noreturn void panic(const char *why);

// lib.c
void *memset(void *to, int byte, u64 n);
char *behind(const char *text, const char *word);
char *scan(const char *text, u64 *number);
void printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
