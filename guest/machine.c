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
    MILLISECOND = 1000000 / 128,              // the timer counts down at 1 GHz / 128 (KVM, QEMU)
};

// Let a pin of the two IOAPICs, of 24 pins each, interrupt processor 0, edge-triggered: choose its
// register, write it. (The register's other half says which processor, and is 0 from the start.)
void irq_enable(u64 pin, u32 vector) {
    u64 ioapic = pin < 24 ? 0xfec00000 : 0xfec10000;

    REG(ioapic, 0x00) = 0x10 + 2 * (pin % 24);
    REG(ioapic, 0x10) = vector;
}

// Boot.S calls it for the serial line, too, whose interrupt has to wake up getc and nothing more.
void irq_done(void) { LAPIC(END_OF_INTERRUPT) = 0; }

extern const char vectors[];                  // boot.S

struct idtr { u16 limit; u64 base; } __attribute__((packed));

void irq_init(void) {
    static struct { u16 offset_low, selector, flags, offset_mid; u64 offset_high; } idt[NVECTOR];
    struct idtr idtr = { sizeof(idt) - 1, (u64)idt };

    for (u32 n = 0; n < NVECTOR; n++) {
        u64 entry = (u64)vectors + 16 * n;
        idt[n] = (typeof(idt[n])){ entry, 0x08, 0x8e00, entry >> 16, entry >> 32 };
    }
    asm volatile("lidt %0" : : "m"(idtr));
    outb(0x21, 0xff);                         // both old interrupt controllers stay silent
    outb(0xa1, 0xff);
    LAPIC(SPURIOUS) = 0x100 | VECTOR_SERIAL;           // and switched on
    LAPIC(TIMER_DIVIDE) = 0xa;                         // by 128
    outb(SERIAL_INTERRUPT, 1);                // when a character comes
    irq_enable(SERIAL_PIN, VECTOR_SERIAL);
}

// An exception is always a mistake here. Say all that is known, and end. For some of them the
// processor pushes an error code, below the rest.
struct trapframe { u64 reg[15]; const char *from; u64 error[]; };    // see boot.S

void exception(struct trapframe *f) {
    static const char names[][4] = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8 ",
                                     "r9 ", "r10", "r11", "r12", "r13", "r14", "r15" };
    u64 vector = (f->from - vectors) / 16, has_error = 0x227d00 >> vector & 1, cr2;
    struct { u64 rip, cs, rflags, rsp; } *cpu = (void *)(f->error + has_error);

    asm("mov %%cr2, %0" : "=r"(cr2));
    printf("\ntrap %lu, error code %lx\n", vector, has_error ? f->error[0] : 0);
    printf("rip %016lx  rsp %016lx  rflags %lx  cr2 %lx", cpu->rip, cpu->rsp, cpu->rflags, cr2);
    for (u32 i = 0; i < COUNT(names); i++)
        printf("%s%s %016lx", i % 4 ? "  " : "\n", names[i], f->reg[i]);
    panic("trap");
}

// The local APIC's timer is an alarm for those who wait for an interrupt that may never come; or,
// for 0 ms, a stop watch, which stands still after nine minutes.
void timer_start(u64 ms) {
    LAPIC(TIMER) = ms ? VECTOR_TIMER : MASKED;
    LAPIC(TIMER_FROM) = ms ? ms * MILLISECOND : 0xffffffff;
}

u64 timer_us(void) { return (0xffffffffUL - LAPIC(TIMER_NOW)) * 128 / 1000; }
void timer_interrupt(void) { panic("timer: it takes too long"); }

// The command `cpus`. Other processors are started by the interrupts INIT and STARTUP, the latter
// with the number of the page where they begin, in 16-bit mode (MultiProcessor Specification, B.4).
// There they find two instructions: to count themselves, and to halt.
#define AP_PAGE(offset) (*(volatile u64 *)(0x8000UL + (offset)))

void cpus(void) {
    AP_PAGE(0x000) = 0xf48ff006fff0;          // lock incw 0x8ff0; hlt
    AP_PAGE(0xff0) = 0;
    LAPIC(COMMAND) = 0xc4500;                 // to all others: INIT
    LAPIC(COMMAND) = 0xc4608;                 // to all others: STARTUP, page 8
    while (timer_us() < 100000)
        relax();
    printf("cpu 0 runs this shell; %lu more came up, and halted\n", AP_PAGE(0xff0));
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
