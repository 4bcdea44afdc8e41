/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vault's names, and the descriptors that an earlier daemon has stored under them. There may be
 * ten thousands, each for one lock, and a daemon that starts is waited for: so a name is a number,
 * and a number is 4 bytes.
 */
#include "vault-private.h"

#include <string.h>

#include "keeper/closer.h"

/* As short as possible: systemd hands all names over in one environment string of at most 128 KiB,
 * which with a mark, three letters and a colon is enough for 18,000 descriptors. */
static const char vault_letters[] = "0123456789abcdefghijklmnopqrstuvwxyz"
                                    "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
#define VAULT_BASE (sizeof(vault_letters) - 1)

/* Longest that is a number. */
#define VAULT_NUMBER_CHARS 8

static char *vault_number_name(guint number)
{
    char text[16], *p = text + sizeof(text) - 1;

    *p = '\0';
    do
        *--p = vault_letters[number % VAULT_BASE];
    while ((number /= VAULT_BASE) > 0);
    return g_strdup(p);
}

/* TRUE if the name is that of a number, written as we write it. */
static gboolean vault_name_number(const char *name, guint *ret_number)
{
    guint64 number = 0;
    gsize len = strlen(name);

    if (len == 0 || len > VAULT_NUMBER_CHARS || (len > 1 && *name == '0'))
        return FALSE;
    for (const char *p = name; *p; p++) {
        char c = *p;
        guint digit = c >= '0' && c <= '9'   ? (guint)(c - '0')
                      : c >= 'a' && c <= 'z' ? (guint)(c - 'a') + 10
                      : c >= 'A' && c <= 'Z' ? (guint)(c - 'A') + 36
                                             : VAULT_BASE;

        if (digit == VAULT_BASE)
            return FALSE;
        number = number * VAULT_BASE + digit;
    }
    *ret_number = (guint)number;
    return number < VAULT_NUMBERS;
}

/* What is known of the name. */
static int vault_names_get(const VaultNames *names, const char *name)
{
    gpointer value;
    guint number;

    if (vault_name_number(name, &number))
        return number < names->numbers->len ? g_array_index(names->numbers, int, number)
                                            : VAULT_FREE;
    if (g_hash_table_lookup_extended(names->others, name, NULL, &value))
        return GPOINTER_TO_INT(value);
    return VAULT_FREE;
}

static void vault_names_set(VaultNames *names, const char *name, int value)
{
    gboolean was_free = vault_names_get(names, name) == VAULT_FREE;
    guint number;

    if (vault_name_number(name, &number)) {
        const int none = VAULT_FREE;

        while (names->numbers->len <= number)
            g_array_append_val(names->numbers, none);
        g_array_index(names->numbers, int, number) = value;
        if (value == VAULT_FREE && !was_free && number < names->next)
            g_array_append_val(names->free, number);
    } else if (value == VAULT_FREE) {
        g_hash_table_remove(names->others, name);
    } else {
        g_hash_table_replace(names->others, g_strdup(name), GINT_TO_POINTER(value));
    }
    if (was_free && value != VAULT_FREE)
        names->in_use++;
    else if (!was_free && value == VAULT_FREE)
        names->in_use--;
}

void vault_names_init(VaultNames *names)
{
    names->numbers = g_array_new(FALSE, FALSE, sizeof(int));
    names->free = g_array_new(FALSE, FALSE, sizeof(guint));
    names->others = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

static void vault_names_close(int value)
{
    if (value >= 0)
        closer_close(value);
    else if (value <= VAULT_CLAIMED)
        closer_close(VAULT_CLAIMED - value);
}

void vault_names_clear(VaultNames *names)
{
    GHashTableIter iter;
    gpointer value;

    for (guint i = 0; i < names->numbers->len; i++)
        vault_names_close(g_array_index(names->numbers, int, i));
    g_hash_table_iter_init(&iter, names->others);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        vault_names_close(GPOINTER_TO_INT(value));
    g_array_unref(names->numbers);
    g_array_unref(names->free);
    g_hash_table_unref(names->others);
}

void vault_names_found(VaultNames *names, const char *name, int fd)
{
    vault_names_close(vault_names_get(names, name));
    vault_names_set(names, name, fd);
}

void vault_names_use(VaultNames *names, const char *name)
{
    if (vault_names_get(names, name) == VAULT_FREE)
        vault_names_set(names, name, VAULT_TAKEN);
}

void vault_names_forget(VaultNames *names, const char *name)
{
    if (vault_names_get(names, name) != VAULT_FREE)
        vault_names_set(names, name, VAULT_FREE);
}

/* ---- for the other modules ------------------------------------------------------------- */

guint vault_count(const Vault *vault)
{
    return vault->names.in_use;
}

gboolean vault_is_stored(const Vault *vault, const char *name)
{
    return vault_names_get(&vault->names, name) != VAULT_FREE;
}

gboolean vault_claim(Vault *vault, const char *name)
{
    int value = vault_names_get(&vault->names, name);

    if (value < 0)
        return FALSE;
    vault_names_set(&vault->names, name, VAULT_CLAIMED - value);
    return TRUE;
}

int vault_take(Vault *vault, const char *name)
{
    int value = vault_names_get(&vault->names, name);

    if (value == VAULT_FREE || value == VAULT_TAKEN)
        return -1;
    vault_names_set(&vault->names, name, VAULT_TAKEN);
    return value >= 0 ? value : VAULT_CLAIMED - value;
}

GPtrArray *vault_untaken(Vault *vault)
{
    GPtrArray *found = g_ptr_array_new_with_free_func(g_free);
    const VaultNames *names = &vault->names;
    GHashTableIter iter;
    gpointer name, value;

    for (guint i = 0; i < names->numbers->len; i++)
        if (g_array_index(names->numbers, int, i) >= 0)
            g_ptr_array_add(found, vault_number_name(i));
    g_hash_table_iter_init(&iter, names->others);
    while (g_hash_table_iter_next(&iter, &name, &value))
        if (GPOINTER_TO_INT(value) >= 0)
            g_ptr_array_add(found, g_strdup(name));
    return found;
}

char *vault_new_name(Vault *vault)
{
    VaultNames *names = &vault->names;
    char *name = NULL;

    while (!name && names->free->len > 0) {
        guint number = g_array_index(names->free, guint, names->free->len - 1);

        g_array_set_size(names->free, names->free->len - 1);
        name = vault_number_name(number);
        if (vault_names_get(names, name) != VAULT_FREE)
            g_clear_pointer(&name, g_free);
    }
    while (!name) {
        name = vault_number_name(names->next++);
        if (vault_names_get(names, name) != VAULT_FREE)
            g_clear_pointer(&name, g_free);
    }
    vault_names_set(names, name, VAULT_TAKEN);
    return name;
}
