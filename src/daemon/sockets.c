/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which sockets the daemon serves: made at their paths, handed over by systemd, or left by an
 * earlier daemon in the vault. Part of main.c's way up; what goes wrong is said on the terminal. */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon.h"

static gboolean daemon_access(const Daemon *self, ServerAccess *access)
{
    const char *name = self->options.settings->socket_group;
    struct group *group;

    memset(access, 0, sizeof(*access));
    if (!name)
        return TRUE;
    group = getgrnam(name);
    if (!group) {
        fprintf(stderr,
                "%s: socket_group: there is no group '%s'; make it, or correct "
                "holdfast.conf\n",
                self->options.program, name);
        return FALSE;
    }
    access->group_may_read = TRUE;
    access->group = group->gr_gid;
    return TRUE;
}

/* Sockets of systemd are told apart by their unit's name, else by their path. Returns how many
 * of each kind there are, or a negative errno. */
static int daemon_adopt(Daemon *self, const ServerAccess *access, gboolean *ret_native,
                        gboolean *ret_virtlockd)
{
    const ServerAccess owner_only = {0};
    char **names = NULL;
    int n = sd_listen_fds_with_names(TRUE, &names);
    int r = n;

    for (int i = 0; i < n; i++) {
        int fd = SD_LISTEN_FDS_START + i;
        gboolean stored = g_str_has_prefix(names[i], "hf-"); /* the vault's, see vault.c */
        gboolean admin = strstr(names[i], "admin") != NULL;
        gboolean native = !admin && strstr(names[i], "virtlockd") == NULL &&
                          (strstr(names[i], "holdfast") || !self->options.as_virtlockd);

        if (stored) {
            free(names[i]);
            continue;
        }
        if (r < 0 || admin) {
            /* libvirt's administration protocol is not spoken here: nobody is left waiting */
            close(fd);
        } else if (native) {
            r = server_adopt(self->server, fd, FALSE, access, &native_protocol, &self->context);
            *ret_native = TRUE;
        } else {
            r = server_adopt(self->server, fd, FALSE, &owner_only, &virtlockd_protocol,
                             &self->context);
            *ret_virtlockd = TRUE;
        }
        free(names[i]);
    }
    free(names);
    return r;
}

/* Goes on with the socket of an earlier daemon, in whose backlog clients wait already. */
static gboolean daemon_listen_on(Daemon *self, const char *path, const ServerAccess *access,
                                 const ConnProtocol *protocol)
{
    g_autofree char *name = g_strconcat(VAULT_SOCKET_PREFIX, protocol->name, NULL);
    int fd = vault_take(self->vault, name);

    if (fd < 0)
        return FALSE;
    if (server_is_at(fd, path) &&
        server_adopt(self->server, fd, TRUE, access, protocol, &self->context) >= 0)
        return TRUE;
    close(fd); /* the configuration names another path now */
    vault_remove(self->vault, name);
    return FALSE;
}

static int daemon_listen_new(Daemon *self, const char *path, const ServerAccess *access,
                             const ConnProtocol *protocol)
{
    g_autofree char *name = g_strconcat(VAULT_SOCKET_PREFIX, protocol->name, NULL);
    int fd;

    if (daemon_listen_on(self, path, access, protocol))
        return 0;
    fd = server_listen(self->server, path, access, protocol, &self->context);
    if (fd >= 0)
        vault_store(self->vault, name, fd);
    return fd;
}

static int daemon_listen_at(Daemon *self, const char *path, const ServerAccess *access,
                            const ConnProtocol *protocol)
{
    int r = daemon_listen_new(self, path, access, protocol);

    if (r == -EADDRINUSE)
        fprintf(stderr, "%s: another daemon serves %s; stop it first\n", self->options.program,
                path);
    else if (r < 0)
        fprintf(stderr, "%s: cannot listen at %s: %s\n", self->options.program, path,
                g_strerror(-r));
    return r;
}

gboolean daemon_listen(Daemon *self)
{
    const Options *options = &self->options;
    const ServerAccess owner_only = {0};
    gboolean native = FALSE, virtlockd = FALSE;
    ServerAccess access;
    int r;

    if (!daemon_access(self, &access))
        return FALSE;
    r = daemon_adopt(self, &access, &native, &virtlockd);
    if (r < 0) {
        fprintf(stderr, "%s: cannot use the sockets handed over: %s\n", options->program,
                g_strerror(-r));
        return FALSE;
    }
    if (!virtlockd && options->virtlockd_socket &&
        daemon_listen_at(self, options->virtlockd_socket, &owner_only, &virtlockd_protocol) < 0)
        return FALSE;
    if (!native && options->as_virtlockd) {
        /* a guest's right to start does not depend on whether people can look */
        r = daemon_listen_new(self, options->native_socket, &access, &native_protocol);
        if (r < 0)
            g_message("not serving %s: %s", options->native_socket, g_strerror(-r));
        return TRUE;
    }
    return native || daemon_listen_at(self, options->native_socket, &access, &native_protocol) >= 0;
}
