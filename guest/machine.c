// SPDX-License-Identifier: GPL-2.0-only
//
// The machine around the processor: serial line, interrupts, exceptions, timer, the other
// processors, and the end.
//
#include "guest.h"

// The serial line, a 16550. A register that is not there reads as 0xff: sent, and never received.
enum { SERIAL_DATA = 0x3f8, SERIAL_INTERRUPT = 0x3f9, SERIAL_STATUS = 0x3fd, SERIAL_PIN = 4 };
enum { RECEIVED = 0x01, SENT = 0x20, ABSENT = 0x80 };

void putc(int c) {
    if (c == '\n')
        putc('\r');
    while ((inb(SERIAL_STATUS) & SENT) == 0)
        relax();
    outb(SERIAL_DATA, c);
}

int getc(void) {
    while ((inb(SERIAL_STATUS) & (RECEIVED | ABSENT)) != RECEIVED)
        sleep();
    return inb(SERIAL_DATA);
}

// This processor's local APIC (Intel SDM volume 3, 11.4).
#define LAPIC(reg) REG(0xfee00000UL, reg)
enum {
    END_OF_INTERRUPT = 0xb0, SPURIOUS = 0xf0, COMMAND = 0x300, TIMER = 0x320, TIMER_FROM = 0x380,
    TIMER_NOW = 0x390, TIMER_DIVIDE = 0x3e0, MASKED = 1 << 16,
};
enum { MILLISECOND = 1000000 / 128 };         // the timer counts down at 1 GHz / 128 (KVM, QEMU)

// Let a pin of the two IOAPICs, of 24 pins each, interrupt processor 0: edge-triggered.
void irq_enable(u64 pin, u32 vector) {
    u64 ioapic = pin < 24 ? 0xfec00000 : 0xfec10000, entry = 0x10 + 2 * (pin % 24);

    REG(ioapic, 0x00) = entry + 1;            // choose a register,
    REG(ioapic, 0x10) = 0;                    // write it
    REG(ioapic, 0x00) = entry;
    REG(ioapic, 0x10) = vector;
}

struct idtr { u16 limit; u64 base; } __attribute__((packed));

void irq_init(void) {
    static struct { u16 offset_low, selector, flags, offset_mid; u64 offset_high; } idt[NVECTOR];
    struct idtr idtr = { sizeof(idt) - 1, (u64)idt };
    extern const char vectors[];              // boot.S

    for (u32 n = 0; n < NVECTOR; n++) {
        u64 entry = (u64)vectors + 16 * n;
        idt[n] = (typeof(idt[n])){ entry, 0x08, 0x8e00, entry >> 16, entry >> 32 };
    }
    asm volatile("lidt %0" : : "m"(idtr));
    outb(0x21, 0xff);                         // both old interrupt controllers stay silent
    outb(0xa1, 0xff);
    LAPIC(SPURIOUS) = 0x100 | VECTOR_SPURIOUS;         // and switched on
    LAPIC(TIMER_DIVIDE) = 0xa;                         // by 128
    outb(SERIAL_INTERRUPT, 1);                // when a character comes
    irq_enable(SERIAL_PIN, VECTOR_SERIAL);
}

// An exception is always a mistake here. Say all that is known, and end.
struct trapframe { u64 reg[15], vector, error, rip, cs, rflags, rsp, ss; };    // see boot.S

void exception(struct trapframe *f) {
    static const char *const causes[32] = {
        "divide error", "debug", "NMI", "breakpoint", "overflow", "bound", "invalid opcode",
        [8] = "double fault", [12] = "stack fault", "general protection fault", "page fault",
    };
    static const char names[][4] = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8 ",
                                     "r9 ", "r10", "r11", "r12", "r13", "r14", "r15" };
    const char *cause = causes[f->vector] ? causes[f->vector] : "reserved";
    u64 cr2;

    asm("mov %%cr2, %0" : "=r"(cr2));
    printf("\ntrap %lu (%s), error code %lx\n", f->vector, cause, f->error);
    printf("rip %016lx  rsp %016lx  rflags %lx  cr2 %lx", f->rip, f->rsp, f->rflags, cr2);
    for (u32 i = 0; i < COUNT(names); i++)
        printf("%s%s %016lx", i % 4 ? "  " : "\n", names[i], f->reg[i]);
    panic("trap");
}

// From boot.S. The serial line's interrupt has nothing to do here: it wakes up getc. The timer's
// may come after the timer was started anew; then it is of no account.
int late;

void interrupt(u32 vector) {
    if (vector < VECTOR_SERIAL)
        disk_interrupt(vector - VECTOR_DISK);
    else if (vector == VECTOR_TIMER && LAPIC(TIMER_NOW) < MILLISECOND)
        late = 1;
    LAPIC(END_OF_INTERRUPT) = 0;
}

// The local APIC's timer is an alarm for those who wait for an interrupt that may never come; or,
// for 0 ms, a stop watch, which stands still after nine minutes.
void timer_start(u64 ms) {
    late = 0;
    LAPIC(TIMER) = ms ? VECTOR_TIMER : MASKED;
    LAPIC(TIMER_FROM) = ms ? ms * MILLISECOND : 0xffffffff;
}

u64 timer_us(void) { return (0xffffffffUL - LAPIC(TIMER_NOW)) * 128 / 1000; }

// Other processors are started by the interrupts INIT and STARTUP, the second one with the number
// of the page where they begin (MultiProcessor Specification, B.4).
#define AP_PAGE 0x8000UL
enum { TO_ALL_OTHERS = 3 << 18 | 1 << 14, INIT = 5 << 8, STARTUP = 6 << 8 | AP_PAGE >> 12 };

static void send(u32 what, u64 wait_ms) {
    LAPIC(COMMAND) = TO_ALL_OTHERS | what;
    timer_start(wait_ms);
    while (!late)
        sleep();
}

// The command `cpus`: starts the others the first time, lists all.
volatile u64 ncpu;                            // boot.S: how many have come so far

void cpus(void) {
    extern const char ap_start[], ap_end[];   // boot.S

    if (ncpu == 1) {
        memcpy((void *)AP_PAGE, ap_start, ap_end - ap_start);
        send(INIT, 10);
        send(STARTUP, 100);
    }
    for (u64 i = 0; i < ncpu; i++)
        printf("cpu %lu: %s\n", i, i ? "started, now halted" : "runs this shell");
}

// Port 0xf4 ends QEMU and miniqemu with status 2 * verdict + 1, if they have isa-debug-exit.
// Otherwise a fault does that cannot be delivered, nor the fault about that, nor the third.
void power_off(int verdict) {
    struct idtr none = { 0, 0 };

    outb(0xf4, verdict);
    asm volatile("lidt %0; ud2" : : "m"(none));
    __builtin_unreachable();
}

void panic(const char *why) {
    printf("\npanic: %s\n", why);
    power_off(1);
}
