// SPDX-License-Identifier: GPL-2.0-only
//
// Further processors: started as the MultiProcessor Specification (B.4) says, by the interrupts
// INIT and STARTUP from the local APIC. The page number in STARTUP says where they begin.
//
#include "kernel.h"

#define NCPU 8                    // as in boot.S
#define AP_PAGE 0x8000UL          // below 1 MiB
#define TO_ALL_OTHERS (3 << 18 | 1 << 14)
#define INIT (5 << 8)
#define STARTUP (6 << 8 | AP_PAGE >> 12)

extern const char ap_start[], ap_end[];       // boot.S
extern volatile u32 ncpu;                     // boot.S: how many have taken a number
static volatile u8 apic_id[NCPU];

// A further processor's whole life: say who it is; then it sleeps.
void ap_main(u32 me) { apic_id[me] = *lapic(LAPIC_ID) >> 24; }

static void
send(u32 what, u32 wait_ms)
{
  *lapic(LAPIC_COMMAND) = TO_ALL_OTHERS | what;
  watch_start();
  while(watch_us() < wait_ms * 1000)
    relax();
}

// The command `cpus`: starts the others the first time, lists all.
void
cpus(void)
{
  if(ncpu == 1){
    memcpy((void *)AP_PAGE, ap_start, ap_end - ap_start);
    send(INIT, 10);
    send(STARTUP, 10);
    send(STARTUP, 100);           // who runs does not hear this one
  }
  for(u32 i = 0; i < ncpu && i < NCPU; i++)
    printf("cpu %u: apic id %u, %s\n", i, apic_id[i], i ? "started, now halted" : "runs this shell");
}
