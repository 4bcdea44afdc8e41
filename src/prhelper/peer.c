/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See peer.h. What a process says of itself (its command line) is for people who read the log; the
 * kernel's word (uid, cgroup, label) is what rules go by.
 */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* QEMU's command line by libvirt has some 10 KB, and -name is near its beginning. */
#define PEER_FILE_MAX 4096
/* Linux 6.5; the number is the same on all architectures but parisc and sparc. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* Up to PEER_FILE_MAX bytes of /proc/PID/NAME; NULL when it cannot be read. */
static char *peer_read_file(pid_t pid, const char *name, gsize *ret_len)
{
    char path[64];
    char *text;
    ssize_t n;
    int fd;

    g_snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    text = g_malloc(PEER_FILE_MAX + 1);
    n = read(fd, text, PEER_FILE_MAX);
    close(fd);
    if (n <= 0) {
        g_free(text);
        return NULL;
    }
    text[n] = '\0';
    *ret_len = (gsize)n;
    return text;
}

/* The next argument after `arg`, or NULL at the end. */
static const char *peer_next_argument(const char *arg, const char *end)
{
    const char *next = arg + strlen(arg) + 1;

    return next < end ? next : NULL;
}

/* The value of -name: "web1", "guest=web1,debug-threads=on"; a comma is doubled in it. */
static char *peer_name_of_option(const char *value)
{
    GString *name = g_string_new(NULL);

    if (g_str_has_prefix(value, "guest="))
        value += strlen("guest=");
    for (; *value && (*value != ',' || value[1] == ','); value++) {
        g_string_append_c(name, *value);
        if (*value == ',')
            value++;
    }
    if (name->len > 0 && g_utf8_validate(name->str, (gssize)name->len, NULL))
        return g_string_free(name, FALSE);
    g_string_free(name, TRUE);
    return NULL;
}

char *pr_peer_vm_of_cmdline(const char *cmdline, gsize len)
{
    const char *end = cmdline + len;
    const char *arg = len > 0 ? cmdline : NULL;

    while (arg && strcmp(arg, "-name") != 0 && strcmp(arg, "--name") != 0)
        arg = peer_next_argument(arg, end);
    arg = arg ? peer_next_argument(arg, end) : NULL;
    return arg ? peer_name_of_option(arg) : NULL;
}

/* libvirt's machine: "machine-qemu\x2dID\x2dNAME.scope", in which systemd has escaped bytes. */
char *pr_peer_vm_of_cgroup(const char *cgroup)
{
    static const char begin[] = "machine-qemu\\x2d";
    const char *at = strstr(cgroup, begin);
    const char *stop = at ? strstr(at, ".scope") : NULL;
    g_autofree char *escaped =
        stop ? g_strndup(at + strlen(begin), (gsize)(stop - at) - strlen(begin)) : NULL;
    const char *name = escaped ? strstr(escaped, "\\x2d") : NULL;
    g_autofree char *plain = NULL;

    if (!name)
        return NULL;
    name += strlen("\\x2d");
    plain = g_malloc(strlen(name) + 1);
    for (char *to = plain;;) {
        int high = -1, low = -1;

        if (name[0] == '\\' && name[1] == 'x') {
            high = g_ascii_xdigit_value(name[2]);
            low = high >= 0 ? g_ascii_xdigit_value(name[3]) : -1;
        }
        if (low >= 0) {
            *to++ = (char)(high << 4 | low);
            name += 4;
        } else if ((*to++ = *name++) == '\0') {
            break;
        }
    }
    return *plain && g_utf8_validate(plain, -1, NULL) ? g_steal_pointer(&plain) : NULL;
}

/* "0::/path" is the unified hierarchy's line (cgroups(7)). */
static char *peer_cgroup(pid_t pid)
{
    gsize len = 0;
    g_autofree char *text = peer_read_file(pid, "cgroup", &len);
    char *line = text;

    while (line && !g_str_has_prefix(line, "0::")) {
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    if (!line)
        return NULL;
    line += strlen("0::");
    line[strcspn(line, "\n")] = '\0';
    return g_utf8_make_valid(line, -1);
}

static char *peer_label(int socket)
{
    char label[512];
    socklen_t len = sizeof(label) - 1;

    if (getsockopt(socket, SOL_SOCKET, SO_PEERSEC, label, &len) < 0 || len == 0)
        return NULL;
    label[len] = '\0';
    label[strcspn(label, "\n")] = '\0';
    return *label ? g_utf8_make_valid(label, -1) : NULL;
}

static int peer_pidfd(int socket, pid_t pid)
{
    int fd = -1;
    socklen_t len = sizeof(fd);

    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0)
        return fd;
    /* before Linux 6.5: between connect() and here the pid may have passed on to another process */
    return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

static gboolean peer_lives(int pidfd)
{
    struct pollfd ready = {.fd = pidfd, .events = POLLIN};

    return pidfd >= 0 && poll(&ready, 1, 0) == 0;
}

int pr_peer_read(int socket, PrPeer *ret_peer)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    g_autofree char *cmdline = NULL;
    gsize cmdline_len = 0;

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return -errno;
    *ret_peer = (PrPeer){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid};
    ret_peer->pidfd = peer_pidfd(socket, cred.pid);
    ret_peer->label = peer_label(socket);
    if (cred.pid <= 0)
        return 0;
    ret_peer->cgroup = peer_cgroup(cred.pid);
    ret_peer->vm = ret_peer->cgroup ? pr_peer_vm_of_cgroup(ret_peer->cgroup) : NULL;
    if (!ret_peer->vm) {
        cmdline = peer_read_file(cred.pid, "cmdline", &cmdline_len);
        ret_peer->vm = cmdline ? pr_peer_vm_of_cmdline(cmdline, cmdline_len) : NULL;
    }
    /* what was read of one that has ended may be another's, who has its number now */
    if (!peer_lives(ret_peer->pidfd)) {
        g_clear_pointer(&ret_peer->cgroup, g_free);
        g_clear_pointer(&ret_peer->vm, g_free);
    }
    return 0;
}

void pr_peer_clear(PrPeer *peer)
{
    if (peer->pidfd >= 0)
        close(peer->pidfd);
    peer->pidfd = -1;
    g_clear_pointer(&peer->cgroup, g_free);
    g_clear_pointer(&peer->label, g_free);
    g_clear_pointer(&peer->vm, g_free);
}
