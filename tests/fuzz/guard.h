/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A copy of an input that ends where memory ends: who reads beyond it is noticed, also in a
 * library that no sanitizer has seen. What is before it is poisoned.
 */
#pragma once

#include <glib.h>
#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define GUARD_SIZE 65536 /* of whole pages; no input is longer */

/** The copy; valid until the next one. There is one at a time. */
static inline char *guard_copy(const void *data, gsize len)
{
    static char *area;
    char *copy;

    if (!area) {
        area = mmap(NULL, GUARD_SIZE + 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED || mprotect(area, GUARD_SIZE, PROT_READ | PROT_WRITE) < 0)
            abort();
    }
    ASAN_UNPOISON_MEMORY_REGION(area, GUARD_SIZE);
    copy = area + GUARD_SIZE - len;
    if (len > GUARD_SIZE)
        abort();
    if (len > 0)
        memcpy(copy, data, len);
    ASAN_POISON_MEMORY_REGION(area, (gsize)(copy - area));
    return copy;
}
