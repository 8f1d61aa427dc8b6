# SPDX-License-Identifier: GPL-2.0-only
#
# The way into trap() in C and back, for exceptions (vectors 0-31) and interrupts (from 32).
# Vector n enters at vectors + 16 * n.

#define NVECTOR 96

.text
.code64
.globl vectors
.balign 16
vectors:
.set n, 0
.rept NVECTOR
  .balign 16
  # for 8, 10-14, 17 and 21 the processor has pushed an error code
  .if n >= 32 || ((0x227d00 >> (n & 31)) & 1) == 0
    push $0
  .endif
  push $n
  jmp save
  .set n, n + 1
.endr

# Save the registers as struct trapframe has them, and put them back.
save:
.irp register, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax
  push %\register
.endr
  mov %rsp, %rdi
  cld
  call trap
.irp register, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
  pop %\register
.endr
  add $16, %rsp                 # the vector and the error code
  iretq
.section .note.GNU-stack, "", @progbits
