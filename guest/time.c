// SPDX-License-Identifier: GPL-2.0-only
//
// How fast the time stamp counter counts, measured against the PIT when someone first asks.
//
#include "kernel.h"

#define PIT_HZ 1193182
#define PIT_CHANNEL0 0x40
#define PIT_COMMAND 0x43
#define WINDOW (PIT_HZ / 50)      // 20 ms

// The PIT's count, which falls, and the TSC just before it was latched. Reading a port takes
// long in a virtual machine, but about equally long at both ends of the window.
static u16
pit_latch(u64 *tsc)
{
  u16 low;

  *tsc = rdtsc();
  outb(PIT_COMMAND, 0x00);
  low = inb(PIT_CHANNEL0);
  return inb(PIT_CHANNEL0) << 8 | low;
}

u64
tsc_per_ms(void)
{
  static u64 rate;
  u64 start, now;
  u16 first, passed = 0;

  if(rate)
    return rate;
  outb(PIT_COMMAND, 0x34);        // channel 0, mode 2: counts round and round
  outb(PIT_CHANNEL0, 0);          // from 65,536
  outb(PIT_CHANNEL0, 0);
  first = pit_latch(&start);
  for(int tries = 0; passed < WINDOW; tries++){
    passed = first - pit_latch(&now);
    if(tries > 1000 && passed == 0)
      panic("tsc_per_ms: the PIT does not count");
  }
  rate = (now - start) * (PIT_HZ / 1000) / passed;
  return rate;
}
