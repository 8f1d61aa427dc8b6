// SPDX-License-Identifier: GPL-2.0-only
//
// Memory, words, numbers, printf.
//
#include <stdarg.h>
#include "guest.h"

// The compiler calls these two by itself. A string instruction is the cheapest there is where
// each instruction is emulated.
void *memset(void *to, int byte, u64 n) {
    void *p = to;
    asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(byte) : "memory");
    return to;
}

// The place behind the word that the text begins with; 0 if it begins otherwise.
char *behind(const char *text, const char *word) {
    for (; *word && *text == *word; word++)
        text++;
    return *word ? 0 : (char *)text;
}

static u64 digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

// A number, decimal or 0x...: the place behind it, or the text itself if there is none.
char *scan(const char *text, u64 *number) {
    char *hex = behind(text, "0x"), *first = hex ? hex : (char *)text, *p = first;
    u64 base = hex ? 16 : 10;

    for (*number = 0; digit(*p) < base; p++)
        *number = *number * base + digit(*p);
    return p > first ? p : (char *)text;
}

static void print_number(u64 number, u64 base, int width) {
    if (number >= base || width > 1)
        print_number(number / base, base, width - 1);
    putc("0123456789abcdef"[number % base]);
}

// %s, and %lu or %lx with the width that zeros in front make up: %02lx.
void printf(const char *f, ...) {
    va_list list;
    u64 width;

    va_start(list, f);
    for (; *f; f++) {
        if (*f != '%') {
            putc(*f);
        } else if (*(f = scan(f + 1, &width)) == 'l') {
            print_number(va_arg(list, u64), *++f == 'x' ? 16 : 10, width);
        } else {
            for (const char *s = va_arg(list, const char *); *s; s++)
                putc(*s);
        }
    }
    va_end(list);
}
