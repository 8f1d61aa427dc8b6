// SPDX-License-Identifier: GPL-2.0-only
//
// The serial line: a 16550 at COM1. Output waits for room. Input waits in the device, which
// interrupts when there is some: a shell without work sleeps instead of asking again and again.
//
#include "kernel.h"

#define COM1 0x3f8
#define PIN 4
#define DATA (COM1 + 0)
#define INTERRUPT_ENABLE (COM1 + 1)
#define LINE_CONTROL (COM1 + 3)
#define MODEM_CONTROL (COM1 + 4)
#define LINE_STATUS (COM1 + 5)
#define RECEIVED 0x01
#define SENT 0x20

void
uart_init(void)
{
  outb(LINE_CONTROL, 0x03);       // 8 bits, no parity
  outb(MODEM_CONTROL, 0x0b);      // DTR, RTS, and OUT2, which lets the interrupt out
  outb(INTERRUPT_ENABLE, 1);      // when a character comes
  irq_enable(PIN);
}

void
putc(int c)
{
  if(c == '\n')
    putc('\r');
  while((inb(LINE_STATUS) & SENT) == 0)
    ;
  outb(DATA, c);
}

// The next character; sleeps until there is one. Called with interrupts on.
int
getc(void)
{
  intr_off();
  while((inb(LINE_STATUS) & RECEIVED) == 0)
    intr_wait();
  intr_on();
  return inb(DATA);
}
