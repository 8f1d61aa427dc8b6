// SPDX-License-Identifier: GPL-2.0-only
//
// Further processors: started as the MultiProcessor Specification (B.4) says, by the interrupts
// INIT and STARTUP from the local APIC. The page number in STARTUP says where they begin.
//
#include "kernel.h"

#define NCPU 8                    // as in boot.S
#define AP_PAGE 0x8000UL          // below 1 MiB
#define LAPIC_ID 0x20
#define LAPIC_ICR 0x300           // interrupt command; writing its low half sends
#define TO_ALL_OTHERS (3 << 18)
#define ASSERT (1 << 14)
#define INIT (5 << 8)
#define STARTUP (6 << 8)

extern const char ap_start[], ap_end[];       // boot.S
extern volatile u32 ncpu;                     // boot.S: how many have taken a number

static volatile struct { u8 apic_id, here; } cpu[NCPU];

// A further processor's whole life: say that it is here, and sleep.
void
ap_main(u32 me)
{
  cpu[me].apic_id = lapic_read(LAPIC_ID) >> 24;
  cpu[me].here = 1;
}

static void
wait_ms(u32 ms)
{
  u64 end = rdtsc() + ms * tsc_per_ms();

  while(rdtsc() < end)
    relax();
}

static void
start_others(void)
{
  u32 before;

  memcpy((void *)AP_PAGE, ap_start, ap_end - ap_start);
  lapic_write(LAPIC_ICR, TO_ALL_OTHERS | ASSERT | INIT);
  wait_ms(10);
  for(int tries = 0; tries < 2 && ncpu == 1; tries++){
    lapic_write(LAPIC_ICR, TO_ALL_OTHERS | ASSERT | STARTUP | AP_PAGE >> 12);
    wait_ms(10);
  }
  do {                            // until no more have come for a while
    before = ncpu;
    wait_ms(50);
  } while(ncpu != before);
}

// The command `cpus`: starts the others the first time, lists all.
void
cpus(void)
{
  if(ncpu == 1){
    cpu[0].apic_id = lapic_read(LAPIC_ID) >> 24;
    cpu[0].here = 1;
    start_others();
  }
  for(u32 i = 0; i < ncpu && i < NCPU; i++)
    printf("cpu %u: apic id %u, %s\n", i, cpu[i].apic_id,
           i == 0 ? "runs this shell" : cpu[i].here ? "started, now halted" : "lost on its way");
}
