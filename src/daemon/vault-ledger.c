/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The vault's file, of whose contents it knows nothing: see protocol/ledger.h. */
#define G_LOG_DOMAIN "holdfast.vault"

#include "vault-private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

void vault_write(Vault *vault, const char *text, gsize len)
{
    ssize_t n = vault->ledger < 0 || len == 0 ? (ssize_t)len : write(vault->ledger, text, len);
    int err = n < 0 ? errno : ENOSPC;

    if (n == (ssize_t)len) {
        vault->size += len;
        return;
    }
    vault->torn = TRUE;
    g_critical("cannot write %s: %s; leases made now will not survive this process", vault->path,
               g_strerror(err));
    /* half a line would spoil the next one as well */
    if (n > 0 && ftruncate(vault->ledger, (off_t)vault->size) < 0)
        g_critical("cannot cut %s: %s", vault->path, g_strerror(errno));
}

/* All of it, with a NUL behind; NULL with an errno. */
static char *vault_read_all(int fd, gsize *ret_len)
{
    struct stat st;
    gsize len = 0;
    char *text;

    if (fstat(fd, &st) < 0)
        return NULL;
    text = g_malloc((gsize)st.st_size + 1);
    while (len < (gsize)st.st_size) {
        ssize_t n = pread(fd, text + len, (gsize)st.st_size - len, (off_t)len);

        if (n < 0 && errno != EINTR) {
            g_free(text);
            return NULL;
        }
        if (n == 0)
            break;
        len += n > 0 ? (gsize)n : 0;
    }
    text[len] = '\0';
    *ret_len = len;
    return text;
}

char *vault_read(Vault *vault, gsize *ret_len)
{
    int fd = open(vault->path, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
    char *text = fd < 0 ? NULL : vault_read_all(fd, ret_len);

    if (!text) {
        if (errno != ENOENT)
            g_critical("cannot read %s: %s", vault->path, g_strerror(errno));
        if (fd >= 0)
            close(fd);
        *ret_len = 0;
        return g_strdup("");
    }
    vault_ledger_close(vault);
    vault->ledger = fd;
    vault->size = *ret_len;
    return text;
}

gboolean vault_cut(Vault *vault, gsize len)
{
    if (vault->ledger < 0 || len == 0)
        return FALSE;
    if (len < vault->size && ftruncate(vault->ledger, (off_t)len) < 0)
        return FALSE;
    vault->size = len;
    return TRUE;
}

void vault_rewrite(Vault *vault, const char *text, gsize len)
{
    g_autofree char *fresh = g_strconcat(vault->path, ".new", NULL);
    g_autofree char *dir = g_path_get_dirname(vault->path);
    int fd;

    g_mkdir_with_parents(dir, 0755); /* if that fails, so does what follows, and says why */
    fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0 || write(fd, text, len) != (ssize_t)len || rename(fresh, vault->path) < 0) {
        vault->torn = TRUE;
        g_critical("cannot write %s: %s; leases will not survive this process", vault->path,
                   g_strerror(errno));
        if (fd >= 0)
            close(fd);
        return;
    }
    vault_ledger_close(vault);
    vault->ledger = fd;
    vault->size = len;
    vault->torn = FALSE;
}

gboolean vault_ledger_is_whole(const Vault *vault)
{
    return !vault->torn;
}

gsize vault_ledger_size(const Vault *vault)
{
    return vault->size;
}

void vault_remove_ledger(Vault *vault)
{
    unlink(vault->path);
}

void vault_ledger_close(Vault *vault)
{
    if (vault->ledger >= 0)
        close(vault->ledger);
    vault->ledger = -1;
}
