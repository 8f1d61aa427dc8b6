// SPDX-License-Identifier: GPL-2.0-only
//
// Traps: an exception ends in a register dump; an interrupt comes by way of the IOAPIC and the
// local APIC. And the local APIC's timer.
//
#include "kernel.h"

#define NVECTOR 96                // as in trap.S
#define IRQ_BASE 32               // vector of interrupt 0, which is IOAPIC pin 0
#define NPIN 48                   // of two IOAPICs, the second one's from 24 on
#define TICK 80                   // vectors that are no pin's
#define SPURIOUS 95

#define IOAPIC(pin) ((pin) < 24 ? 0xfec00000UL : 0xfec10000UL)
#define TIMER_PERIODIC (1 << 17)
#define TIMER_MASKED (1 << 16)

struct trapframe {                // as trap.S and the processor push it
  u64 reg[15], vector, error, rip, cs, rflags, rsp, ss;
};

extern const char vectors[];      // trap.S
static struct { u16 offset_low, selector, flags, offset_mid; u32 offset_high, zero; } idt[NVECTOR];
volatile u32 ticks;

void
trap_init(void)
{
  struct { u16 limit; u64 base; } __attribute__((packed)) idtr = { sizeof(idt) - 1, (u64)idt };

  for(u32 n = 0; n < NVECTOR; n++){
    u64 entry = (u64)vectors + 16 * n;
    idt[n] = (typeof(idt[n])){ entry, 0x08, 0x8e00, entry >> 16, entry >> 32, 0 };
  }
  asm volatile("lidt %0" : : "m"(idtr));
  outb(0x21, 0xff);               // both old interrupt controllers stay silent
  outb(0xa1, 0xff);
  *lapic(LAPIC_TASK_PRIORITY) = 0;
  *lapic(LAPIC_SPURIOUS) = 0x100 | SPURIOUS;       // and switched on
  intr_on();
}

static void
ioapic_write(u32 pin, u32 reg, u32 value)
{
  *(volatile u32 *)IOAPIC(pin) = reg;
  *(volatile u32 *)(IOAPIC(pin) + 0x10) = value;
}

// Let a pin interrupt: edge-triggered, to processor 0.
void
irq_enable(u32 pin)
{
  if(pin >= NPIN)
    panic("irq_enable: the IOAPICs have 48 pins");
  ioapic_write(pin, 0x11 + 2 * (pin % 24), 0);
  ioapic_write(pin, 0x10 + 2 * (pin % 24), IRQ_BASE + pin);
}

// An exception is always a mistake here. Say all that is known, and end.
static void
dump(struct trapframe *f)
{
  static const char *const exceptions[32] = {
    "divide error", "debug", "NMI", "breakpoint", "overflow", "bound", "invalid opcode",
    [8] = "double fault", [12] = "stack fault", "general protection fault", "page fault",
  };
  static const char *const names[15] = {
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8 ",
    "r9 ", "r10", "r11", "r12", "r13", "r14", "r15",
  };
  u64 cr2;

  asm("mov %%cr2, %0" : "=r"(cr2));
  printf("\ntrap %lu (%s), error code %lx\n", f->vector,
         exceptions[f->vector] ? exceptions[f->vector] : "reserved", f->error);
  printf("rip %016lx  rsp %016lx  rflags %lx  cr2 %lx", f->rip, f->rsp, f->rflags, cr2);
  for(u32 i = 0; i < 15; i++)
    printf("%s%s %016lx", i % 4 ? "  " : "\n", names[i], f->reg[i]);
  printf("\n");
  panic("trap");
}

// From trap.S, interrupts off. The serial line's interrupt has nothing to do here: it wakes up
// uart_getc.
void
trap(struct trapframe *f)
{
  if(f->vector < IRQ_BASE)
    dump(f);
  if(f->vector == SPURIOUS)
    return;
  if(f->vector == TICK)
    ticks++;
  else
    virtio_irq(f->vector - IRQ_BASE);
  *lapic(LAPIC_END_OF_INTERRUPT) = 0;
}

// The timer counts down at 1 GHz, under KVM and QEMU.
static void
timer_set(u32 mode, u32 divide, u32 count)
{
  *lapic(LAPIC_TIMER_DIVIDE) = divide;
  *lapic(LAPIC_TIMER) = mode;
  *lapic(LAPIC_TIMER_COUNT) = count;
}

// A tick each 100 ms, for those who wait for an interrupt that may never come. Off otherwise: an
// idle guest is really idle.
void tick_start(void) { timer_set(TIMER_PERIODIC | TICK, 0xb, 100 * 1000 * 1000); }
void tick_stop(void) { timer_set(TIMER_MASKED, 0xb, 0); }

// Start a stop watch, and look at it. It stands still after nine minutes, and has no ticks.
void watch_start(void) { timer_set(TIMER_MASKED, 0xa, 0xffffffff); }
u64 watch_us(void) { return (0xffffffffUL - *lapic(LAPIC_TIMER_NOW)) * 128 / 1000; }
