// SPDX-License-Identifier: GPL-2.0-only
//
// Memory, words, numbers, printf.
//
#include "guest.h"

// The compiler calls these two by itself. A string instruction is the cheapest there is where
// each instruction is emulated.
void *memset(void *to, int byte, u64 n) {
    void *p = to;
    asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(byte) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, u64 n) {
    void *p = to;
    asm volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(n) : : "memory");
    return to;
}

// The place behind the first `what` in the text, or 0.
char *find(char *text, const char *what) {
    for (u32 n; *text; text++) {
        for (n = 0; what[n] && text[n] == what[n]; n++)
            ;
        if (what[n] == 0)
            return text + n;
    }
    return 0;
}

// Are the words at a and b the same? A word ends at a space or at the string's end.
int same_word(const char *a, const char *b) {
    while (*a == *b && *a > ' ')
        a++, b++;
    return *a <= ' ' && *b <= ' ';
}

static u64 digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

// A number, decimal or 0x...: the place behind it, or 0 if there is none.
char *scan(char *text, u64 *number) {
    u64 base = text[0] == '0' && text[1] == 'x' ? 16 : 10;
    char *first = base == 16 ? text + 2 : text, *p = first;

    for (*number = 0; digit(*p) < base; p++)
        *number = *number * base + digit(*p);
    return p > first ? p : 0;
}

static void print_number(u64 number, u32 base, int width) {
    if (number >= base || width > 1)
        print_number(number / base, base, width - 1);
    putc("0123456789abcdef"[number % base]);
}

// %s, %u %x, and %lu %lx for 64 bits; with a width, zeros in front: %02x.
void printf(const char *f, ...) {
    va_list list;

    va_start(list, f);
    for (; *f; f++) {
        if (*f != '%') {
            putc(*f);
            continue;
        }
        int width = 0, is_long = 0;
        while (digit(*++f) < 10)
            width = width * 10 + digit(*f);
        if (*f == 'l')
            is_long = 1, f++;
        if (*f == 's')
            for (const char *s = va_arg(list, const char *); *s; s++)
                putc(*s);
        else
            print_number(is_long ? va_arg(list, u64) : va_arg(list, u32), *f == 'x' ? 16 : 10,
                         width);
    }
    va_end(list);
}
