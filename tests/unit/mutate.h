/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random damage to a text, for tests of parsers. Randomness is GLib's own for tests: the seed is
 * printed at the start, and --seed runs the same damage again.
 */
#pragma once

#include <glib.h>
#include <string.h>

/**
 * A copy of `text` with up to `changes` bytes changed, taken out, put in, or pieces of it doubled.
 * It is exactly `ret_len` bytes long, without a NUL behind it, so that the address sanitizer sees
 * a parser that reads too far. Free it with g_free().
 */
static inline char *mutate_text(const char *text, int changes, gsize *ret_len)
{
    static const char favourites[] = "\"'[],=#;\n\r\t -+019azAZ_.:/\xff\xc3\x80\x00\x01";
    g_autoptr(GString) damaged = g_string_new(text);
    char *exact;

    for (int i = g_test_rand_int_range(0, changes + 1); i > 0; i--) {
        gssize at = g_test_rand_int_range(0, (gint32)damaged->len + 1);
        char byte = favourites[g_test_rand_int_range(0, (gint32)sizeof(favourites))];
        gssize room = (gssize)damaged->len - at;
        gint32 wanted = g_test_rand_int_range(0, 40);
        gssize size = MIN(room, wanted);

        switch (g_test_rand_int_range(0, 4)) {
        case 0:
            if (room > 0)
                damaged->str[at] = byte;
            break;
        case 1:
            g_string_erase(damaged, at, size / 4);
            break;
        case 2:
            g_string_insert_c(damaged, at, byte);
            break;
        default: {
            g_autofree char *piece = g_strndup(damaged->str + at, (gsize)size);

            g_string_insert(damaged, g_test_rand_int_range(0, (gint32)damaged->len + 1), piece);
            break;
        }
        }
    }
    *ret_len = damaged->len;
    exact = g_malloc(MAX(damaged->len, 1));
    memcpy(exact, damaged->str, damaged->len);
    return exact;
}
