/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See store.h. A descriptor costs 40 bytes, however many there are. */
#include "store.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "closer.h"

/* Chains in the beginning; a power of 2. */
#define STORE_CHAINS 64
/* Descriptors that are not for the daemon's locks: to start it takes five. */
#define STORE_RESERVE 16

struct kept {
    struct kept *next;
    int fd;
    char name[]; /* the usual ones fit into what malloc(3) gives at least */
};

static struct {
    struct kept **chains;
    size_t n_chains;
    size_t n;
} store;

static struct kept **store_chain(const char *name)
{
    uint32_t hash = 2166136261U; /* FNV-1a, which draft-eastlake-fnv describes */

    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 16777619U;
    return &store.chains[hash & (store.n_chains - 1)];
}

/* Where the one of that name hangs, or would. */
static struct kept **store_find(const char *name)
{
    struct kept **at = store_chain(name);

    while (*at && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    return at;
}

/* Without memory for more chains those that there are get longer. */
static void store_grow(void)
{
    struct kept **before = store.chains;
    size_t n_before = store.n_chains, n = n_before ? n_before * 2 : STORE_CHAINS;
    struct kept **chains = calloc(n, sizeof(struct kept *));

    if (!chains)
        return;
    store.chains = chains;
    store.n_chains = n;
    for (size_t i = 0; i < n_before; i++) {
        struct kept *kept = before[i], *next;

        for (; kept; kept = next) {
            struct kept **chain = store_chain(kept->name);

            next = kept->next;
            kept->next = *chain;
            *chain = kept;
        }
    }
    free(before);
}

static int store_has_room(int fd)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY ||
           (rlim_t)fd + STORE_RESERVE < limit.rlim_cur;
}

int store_keep(const char *name, int fd)
{
    size_t size = strlen(name) + 1;
    int room = *name && store_has_room(fd);
    struct kept **at, *kept;

    if (store.n >= store.n_chains)
        store_grow();
    kept = room && store.n_chains ? malloc(sizeof(*kept) + size) : NULL;
    if (!kept) {
        closer_close(fd);
        return !*name ? -EINVAL : room ? -ENOMEM : -EMFILE;
    }
    store_drop(name);
    memcpy(kept->name, name, size);
    kept->fd = fd;
    at = store_chain(name);
    kept->next = *at;
    *at = kept;
    store.n++;
    return 0;
}

void store_drop(const char *name)
{
    struct kept **at, *kept;

    if (store.n == 0)
        return;
    at = store_find(name);
    kept = *at;
    if (!kept)
        return;
    *at = kept->next;
    closer_close(kept->fd);
    free(kept);
    store.n--;
}

size_t store_count(void)
{
    return store.n;
}

void store_list(FILE *file)
{
    for (size_t i = 0; i < store.n_chains; i++)
        for (const struct kept *kept = store.chains[i]; kept; kept = kept->next)
            fprintf(file, "%s %d\n", kept->name, kept->fd);
}
