# SPDX-License-Identifier: GPL-2.0-only
#
# The way into C for the processor's exceptions (vectors 0-31) and for interrupts (from 32).
# Stub n is at vectors + 16 * n.

#define NVECTOR 96

.text
.code64
.globl vectors
.balign 16
vectors:
.set n, 0
.rept NVECTOR
  .balign 16
  .if n >= 32
    push $(n - 32)
    jmp interrupt
  .else
    # 8, 10-14, 17 and 21: the processor has pushed an error code
    .if ((0x227d00 >> n) & 1) == 0
      push $0
    .endif
    push $n
    jmp exception
  .endif
  .set n, n + 1
.endr

# Save what a C function may change; a handler is called and the interrupted code goes on.
interrupt:
  push %rax
  push %rcx
  push %rdx
  push %rsi
  push %rdi
  push %r8
  push %r9
  push %r10
  push %r11
  mov 72(%rsp), %edi
  cld
  call irq
  pop %r11
  pop %r10
  pop %r9
  pop %r8
  pop %rdi
  pop %rsi
  pop %rdx
  pop %rcx
  pop %rax
  add $8, %rsp                  # the number
  iretq

# Save everything, in struct trapframe's order, to be printed. There is no way back.
exception:
  push %rax
  push %rbx
  push %rcx
  push %rdx
  push %rsi
  push %rdi
  push %rbp
  push %r8
  push %r9
  push %r10
  push %r11
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, %rdi
  cld
  call trap
.section .note.GNU-stack, "", @progbits
