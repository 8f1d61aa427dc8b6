// SPDX-License-Identifier: GPL-2.0-only
//
// Strings, numbers, printf, and the two ways to end.
//
#include "kernel.h"

// The compiler calls these two by itself. One string instruction is the cheapest there is where
// each instruction is emulated.
void *
memset(void *to, int byte, u64 n)
{
  void *p = to;
  asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(byte) : "memory");
  return to;
}

void *
memcpy(void *to, const void *from, u64 n)
{
  void *p = to;
  asm volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(n) : : "memory");
  return to;
}

int
strcmp(const char *a, const char *b)
{
  while(*a && *a == *b)
    a++, b++;
  return (u8)*a - (u8)*b;
}

int
starts_with(const char *s, const char *prefix)
{
  while(*prefix)
    if(*s++ != *prefix++)
      return 0;
  return 1;
}

// Cut the next word off *line: returns it, terminated; *line is what follows. "" at the end.
char *
next_word(char **line)
{
  char *p = *line, *word;

  while(*p == ' ')
    p++;
  word = p;
  while(*p && *p != ' ')
    p++;
  if(*p)
    *p++ = 0;
  while(*p == ' ')
    p++;
  *line = p;
  return word;
}

// A whole word as a number, decimal or 0x...; returns 0 if it is none.
int
parse(const char *s, u64 *value)
{
  u64 base = 10, v = 0, digit;

  if(s[0] == '0' && s[1] == 'x')
    base = 16, s += 2;
  if(*s == 0)
    return 0;
  for(; *s; s++){
    digit = *s <= '9' ? *s - '0' : (*s | 32) - 'a' + 10;
    if(digit >= base)
      return 0;
    v = v * base + digit;
  }
  *value = v;
  return 1;
}

static void
print_number(u64 v, u32 base, int width, int pad)
{
  char digits[24];
  int n = 0;

  do
    digits[n++] = "0123456789abcdef"[v % base];
  while(v /= base);
  for(; width > n; width--)
    uart_putc(pad);
  while(n > 0)
    uart_putc(digits[--n]);
}

// %c %s %d %u %x, and %ld %lu %lx for 64 bits; a width, with 0 in front of it: padded with zeros.
void
printf(const char *f, ...)
{
  va_list ap;
  long v;
  int width, pad, is_long;

  va_start(ap, f);
  for(; *f; f++){
    if(*f != '%'){
      uart_putc(*f);
      continue;
    }
    f++;
    pad = *f == '0' ? '0' : ' ';
    for(width = 0; *f >= '0' && *f <= '9'; f++)
      width = width * 10 + *f - '0';
    if((is_long = *f == 'l'))
      f++;
    if(*f == 's'){
      for(const char *s = va_arg(ap, const char *); *s; s++)
        uart_putc(*s);
    } else if(*f == 'c'){
      uart_putc(va_arg(ap, int));
    } else {
      v = is_long ? va_arg(ap, long) : *f == 'd' ? va_arg(ap, int) : (long)va_arg(ap, u32);
      if(*f == 'd' && v < 0){
        uart_putc('-');
        v = -v;
      }
      print_number(v, *f == 'x' ? 16 : 10, width, pad);
    }
  }
  va_end(ap);
}

// Port 0xf4 ends QEMU and miniqemu with status 2 * verdict + 1, if they have isa-debug-exit.
// Otherwise a fault does that cannot be delivered, nor the fault about that, nor the third.
void
power_off(int verdict)
{
  struct { u16 limit; u64 base; } __attribute__((packed)) none = { 0, 0 };

  outb(0xf4, verdict);
  asm volatile("lidt %0; ud2" : : "m"(none));
  for(;;)
    ;
}

void
panic(const char *why)
{
  printf("panic: %s\n", why);
  power_off(1);
}
