// SPDX-License-Identifier: GPL-2.0-only
//
// The serial line: a 16550 at COM1. Output waits for room; input comes by interrupt, so that a
// shell without work to do sleeps instead of asking again and again.
//
// The interrupt handler writes `head`, uart_getc writes `tail`: neither needs a lock.
//
#include "kernel.h"

#define COM1 0x3f8
#define IRQ 4
#define DATA (COM1 + 0)
#define IER (COM1 + 1)      // interrupt enable
#define FCR (COM1 + 2)      // FIFO control
#define LCR (COM1 + 3)      // line control
#define MCR (COM1 + 4)      // modem control
#define LSR (COM1 + 5)      // line status
#define IER_RECEIVE 1
#define LSR_RECEIVED 0x01
#define LSR_EMPTY 0x20      // the output FIFO is empty: FIFO more bytes fit
#define FIFO 16

static volatile u8 input[256];
static volatile u8 head, tail;      // u8: they wrap where the array does
static int room;                    // what the output FIFO takes without a look at LSR

void
uart_init(void)
{
  outb(IER, 0);
  outb(LCR, 0x03);          // 8 bits, no parity
  while(inb(LSR) & LSR_RECEIVED)
    input[head++] = inb(DATA);      // typed before we were up; the next line would lose it
  outb(FCR, 0x07);          // FIFOs on and empty
  outb(MCR, 0x0b);          // DTR, RTS, and OUT2: lets the interrupt out
}

static void
send(int c)
{
  if(room == 0){
    while((inb(LSR) & LSR_EMPTY) == 0)
      ;
    room = FIFO;
  }
  room--;
  outb(DATA, c);
}

void
uart_putc(int c)
{
  if(c == '\n')
    send('\r');
  send(c);
}

// Takes what has arrived. When `input` is full the rest stays in the device, which then holds
// back the sender; uart_getc opens the tap again.
static void
uart_irq(void *arg)
{
  while(inb(LSR) & LSR_RECEIVED){
    if((u8)(head + 1) == tail){
      outb(IER, 0);
      return;
    }
    input[head] = inb(DATA);
    head++;
  }
}

void
uart_irq_init(void)
{
  irq_enable(IRQ, uart_irq, 0);
  outb(IER, IER_RECEIVE);
}

// The next character; sleeps until there is one. Called with interrupts on.
int
uart_getc(void)
{
  int c;

  intr_off();
  if(head == tail)
    outb(IER, IER_RECEIVE);
  while(head == tail)
    intr_wait();
  intr_on();
  c = input[tail];
  tail++;
  return c;
}
