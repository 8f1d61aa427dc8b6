// SPDX-License-Identifier: GPL-2.0-only
//
// Words, numbers, printf, and the two ways to end.
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

// Are the words at a and b the same? A word ends at a space or at the string's end.
int
same_word(const char *a, const char *b)
{
  while(*a == *b && *a > ' ')
    a++, b++;
  return *a <= ' ' && *b <= ' ';
}

char *
skip_word(char *s)
{
  while(*s && *s != ' ')
    s++;
  while(*s == ' ')
    s++;
  return s;
}

// The first place in s where `what` is, or 0.
char *
find(char *s, const char *what)
{
  for(u32 n; *s; s++){
    for(n = 0; what[n] && s[n] == what[n]; n++)
      ;
    if(what[n] == 0)
      return s;
  }
  return 0;
}

static u64
digit(char c)
{
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

// The number at *s, decimal or 0x...; *s moves behind it, or stays if there is none.
u64
scan(char **s)
{
  u64 value = 0, base = 10;

  if((*s)[0] == '0' && (*s)[1] == 'x' && digit((*s)[2]) < 16)
    base = 16, *s += 2;
  for(; digit(**s) < base; ++*s)
    value = value * base + digit(**s);
  return value;
}

static void
print_number(u64 value, u32 base, int width)
{
  if(value >= base || width > 1)
    print_number(value / base, base, width - 1);
  putc("0123456789abcdef"[value % base]);
}

// %s %u %x, and %lu %lx for 64 bits; with a width, zeros in front: %02x.
void
printf(const char *f, ...)
{
  va_list ap;
  int width, is_long;

  va_start(ap, f);
  for(; *f; f++){
    if(*f != '%'){
      putc(*f);
      continue;
    }
    for(width = 0, f++; digit(*f) < 10; f++)
      width = width * 10 + digit(*f);
    if((is_long = *f == 'l'))
      f++;
    if(*f == 's')
      for(const char *s = va_arg(ap, const char *); *s; s++)
        putc(*s);
    else
      print_number(is_long ? va_arg(ap, u64) : va_arg(ap, u32), *f == 'x' ? 16 : 10, width);
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
