# SPDX-License-Identifier: GPL-2.0-only
#
# From the loader's jump to C, for every processor.
#
# The boot processor is started the PVH way: the ELF note below names a 32-bit entry; the loader
# jumps there in protected mode without paging, interrupts off, %ebx = the start info.
# Another processor is started by an interrupt (smp.c), in 16-bit mode, at ap_start's copy.
# Both meet at long_mode; there each takes a number, and with it a stack.
#
# An instruction may cost 2 us where a hypervisor has to emulate this code, so the page tables
# lie ready in .data, and the loader zeroes .bss.

#define NCPU 8
#define STACK 8192

.section .note.pvh, "a", @note
  .balign 4
  .long 4                       # length of the name
  .long 8                       # length of what follows it
  .long 18                      # XEN_ELFNOTE_PHYS32_ENTRY
  .asciz "Xen"
  .quad pvh_start

.text
.code32
.globl pvh_start
pvh_start:
  cld
  lgdt gdt_register
  mov %ebx, %edi                # main's argument
long_mode:
  mov $0x10, %eax               # the data segment
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $0x20, %eax               # CR4: PAE
  mov %eax, %cr4
  mov $pml4, %eax
  mov %eax, %cr3
  mov $0xc0000080, %ecx         # EFER: long mode
  rdmsr
  or $0x100, %eax
  wrmsr
  mov $0x80000011, %eax         # CR0: paging, protected mode
  mov %eax, %cr0
  ljmp $0x08, $numbered

.code64
numbered:
  mov $1, %eax
  lock xadd %eax, ncpu(%rip)    # mine: 0, 1, ...
  cmp $NCPU, %eax
  jae halt
  imul $STACK, %eax, %ecx
  lea stacks + STACK(%rcx), %rsp
  mov %edi, %edi                # the upper half was not promised to be zero
  test %eax, %eax
  jnz ap
  call main
ap:
  mov %eax, %edi
  call ap_main
halt:
  cli
  hlt
  jmp halt

# What a further processor runs first, copied to a page below 1 MiB; its %cs is that page's.
.code16
.globl ap_start, ap_end
ap_start:
  cli
  cld
  mov %cs, %ax
  mov %ax, %ds
  lgdtl ap_gdt_register - ap_start
  mov $0x11, %eax               # protected mode
  mov %eax, %cr0
  ljmpl $0x18, $long_mode
  .balign 4
ap_gdt_register:
  .word gdt_end - gdt - 1
  .long gdt
ap_end:

.data
.balign 8
gdt:
  .quad 0
  .quad 0x00af9a000000ffff      # 0x08: 64-bit code
  .quad 0x00cf92000000ffff      # 0x10: data
  .quad 0x00cf9a000000ffff      # 0x18: 32-bit code, on the way from 16 to 64
gdt_end:
gdt_register:
  .word gdt_end - gdt - 1
  .long gdt

.globl ncpu
.balign 4
ncpu:
  .long 0

# The first GiB and the fourth (device registers: not cached), each at its own address, in
# pages of 2 MiB. Anything else, and that is most wild pointers, faults.
.macro map_gib from, flags
  .set page, \from
  .rept 512
  .quad page + \flags
  .set page, page + 0x200000
  .endr
.endm
.balign 4096
pml4:
  .quad pdpt + 3
  .fill 511, 8, 0
pdpt:
  .quad ram + 3, 0, 0, registers + 3
  .fill 508, 8, 0
ram:
  map_gib 0, 0x83               # present, writable, 2 MiB
registers:
  map_gib 0xc0000000, 0x9b      # the same, not cached

.bss
.balign 16
stacks:
  .skip NCPU * STACK
.section .note.GNU-stack, "", @progbits
