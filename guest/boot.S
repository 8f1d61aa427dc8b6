# SPDX-License-Identifier: GPL-2.0-only
#
# The two ways in:
#
#   pvh_start   where a loader jumps to: 32 bits, no paging, %ebx = the start info (PVH)
#   vectors     where the processor goes for an exception (0-31) or an interrupt (from 32)
#
# An instruction may cost 2 us where a hypervisor has to emulate this code, so the page tables
# lie ready in .data.

.section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18                # lengths of name and value; XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start

.text
.code32
.globl pvh_start, vectors
pvh_start:
    cld
    lgdt gdt_register
    mov $0x10, %eax               # the data segment
    mov %eax, %ss
    mov $0x20, %eax               # CR4: PAE
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx         # EFER: long mode
    mov $0x100, %eax
    xor %edx, %edx
    wrmsr
    mov $0x80000011, %eax         # CR0: paging, protected mode
    mov %eax, %cr0
    ljmp $0x08, $long_mode

.code64
long_mode:
    mov $stack + 16384, %esp
    mov %ebx, %edi                # main's argument
    call main                     # and no way back

.balign 16
vectors:                          # vector n is at vectors + 16 * n
.rept 32
    call to_exception             # the address that it leaves says which one it was
    .balign 16
.endr
.irp handler, disk_interrupt, timer_interrupt, irq_done
    call \handler                 # no register is saved: see sleep() in guest.h
    iretq
    .balign 16
.endr

to_exception:                     # the registers, as struct trapframe has them
.irp register, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax
    push %\register
.endr
    mov %rsp, %rdi
    call exception                # nor here

.data
gdt:
    .quad 0
    .quad 0x00af9a000000ffff      # 0x08: 64-bit code
    .quad 0x00cf92000000ffff      # 0x10: data
gdt_register:
    .word . - gdt - 1
    .long gdt

# The fourth GiB (device registers) and the first, each at its own address, in pages of 2 MiB.
# Anything else, and that is most wild pointers, faults.
.balign 4096
pml4:
    .quad pdpt + 3
.balign 4096
pdpt:
    .quad pages + 4096 + 3, 0, 0, pages + 3
.balign 4096
pages:
.set page, 0xc0000000             # and after 512 of them, modulo 2^32, 0
.rept 1024
    .quad (page & 0xffffffff) + 0x83         # present, writable, 2 MiB
    .set page, page + 0x200000
.endr

.comm stack, 16384, 16
