// SPDX-License-Identifier: GPL-2.0-only
//
// Traps: exceptions end in a register dump; interrupts go by way of the IOAPIC and the local
// APIC to the handler that a driver has enabled for its pin.
//
#include "kernel.h"

#define NVECTOR 96                // as in trap.S
#define IRQ_BASE 32               // vector of interrupt 0, which is IOAPIC pin 0
#define NPIN 48                   // of two IOAPICs, the second one's from 24 on
#define TICK 48                   // the local timer's interrupt
#define SPURIOUS 63

// Local APIC (Intel SDM volume 3, 11.4) and IOAPIC registers.
#define LAPIC 0xfee00000UL
#define LAPIC_TPR 0x80            // lowest priority taken
#define LAPIC_EOI 0xb0
#define LAPIC_SVR 0xf0            // on/off, and the vector of spurious interrupts
#define LAPIC_TIMER 0x320
#define LAPIC_TIMER_COUNT 0x380
#define LAPIC_TIMER_DIVIDE 0x3e0
#define TIMER_PERIODIC (1 << 17)
#define MASKED (1 << 16)
#define IOAPIC(pin) ((pin) < 24 ? 0xfec00000UL : 0xfec10000UL)

struct trapframe {                // as trap.S and the processor push it
  u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
  u64 vector, error, rip, cs, rflags, rsp, ss;
};

struct gate {
  u16 offset_low, selector, flags, offset_mid;
  u32 offset_high, reserved;
};

extern const char vectors[];      // trap.S

static struct gate idt[NVECTOR];
static struct { void (*handler)(void *); void *arg; } irqs[NPIN];
volatile u32 ticks;

u32 lapic_read(u32 reg) { return *(volatile u32 *)(LAPIC + reg); }
void lapic_write(u32 reg, u32 value) { *(volatile u32 *)(LAPIC + reg) = value; }

static void
ioapic_write(u64 ioapic, u32 reg, u32 value)
{
  *(volatile u32 *)ioapic = reg;
  *(volatile u32 *)(ioapic + 0x10) = value;
}

void
trap_init(void)
{
  struct { u16 limit; u64 base; } __attribute__((packed)) idtr = { sizeof(idt) - 1, (u64)idt };

  for(u32 n = 0; n < NVECTOR; n++){
    u64 stub = (u64)vectors + 16 * n;
    idt[n] = (struct gate){ stub, 0x08, 0x8e00, stub >> 16, stub >> 32, 0 };
  }
  asm volatile("lidt %0" : : "m"(idtr));
  outb(0x21, 0xff);               // both old interrupt controllers stay silent
  outb(0xa1, 0xff);
  lapic_write(LAPIC_TPR, 0);
  lapic_write(LAPIC_SVR, 0x100 | (IRQ_BASE + SPURIOUS));
  intr_on();
}

// Let pin interrupt: edge-triggered, to processor 0.
void
irq_enable(u32 pin, void (*handler)(void *), void *arg)
{
  if(pin >= NPIN)
    panic("irq_enable: the IOAPICs have 48 pins");
  irqs[pin].arg = arg;
  irqs[pin].handler = handler;
  ioapic_write(IOAPIC(pin), 0x11 + 2 * (pin % 24), 0);
  ioapic_write(IOAPIC(pin), 0x10 + 2 * (pin % 24), IRQ_BASE + pin);
}

// From trap.S, interrupts off.
void
irq(u32 n)
{
  if(n == SPURIOUS)
    return;
  if(n == TICK)
    ticks++;
  else if(n < NPIN && irqs[n].handler)
    irqs[n].handler(irqs[n].arg);
  lapic_write(LAPIC_EOI, 0);
}

// A tick about every 100 ms (the local timer counts at 1 GHz under KVM and QEMU), for those who
// wait for an interrupt that may never come. Off otherwise: an idle guest is really idle.
void
tick_start(void)
{
  lapic_write(LAPIC_TIMER_DIVIDE, 0xb);           // by 1
  lapic_write(LAPIC_TIMER, TIMER_PERIODIC | (IRQ_BASE + TICK));
  lapic_write(LAPIC_TIMER_COUNT, 100 * 1000 * 1000);
}

void
tick_stop(void)
{
  lapic_write(LAPIC_TIMER, MASKED);
  lapic_write(LAPIC_TIMER_COUNT, 0);
}

// From trap.S: an exception, which here is always a mistake. Say all that is known and end.
void
trap(struct trapframe *f)
{
  static const char *const names[] = {
    "divide error", "debug", "NMI", "breakpoint", "overflow", "bound", "invalid opcode",
    "no coprocessor", "double fault", "", "invalid TSS", "segment not present", "stack fault",
    "general protection fault", "page fault",
  };
  u64 cr2, cr3;

  asm("mov %%cr2, %0; mov %%cr3, %1" : "=r"(cr2), "=r"(cr3));
  printf("\ntrap %lu (%s), error code %lx\n", f->vector,
         f->vector < ARRAY_LEN(names) ? names[f->vector] : "", f->error);
  printf("rip %016lx  rsp %016lx  rflags %lx  cr2 %lx  cr3 %lx\n", f->rip, f->rsp, f->rflags,
         cr2, cr3);
  printf("rax %016lx  rbx %016lx  rcx %016lx  rdx %016lx\n", f->rax, f->rbx, f->rcx, f->rdx);
  printf("rsi %016lx  rdi %016lx  rbp %016lx  r8  %016lx\n", f->rsi, f->rdi, f->rbp, f->r8);
  printf("r9  %016lx  r10 %016lx  r11 %016lx  r12 %016lx\n", f->r9, f->r10, f->r11, f->r12);
  printf("r13 %016lx  r14 %016lx  r15 %016lx\n", f->r13, f->r14, f->r15);
  panic("trap");
}
