/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asking devices about persistent reservations; see pr-scan.h. */
#include "pr-scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "prhelper/mpath/map.h"

/* ---- memory -------------------------------------------------------------------------------- */

static void scan_registration_free(gpointer data)
{
    PrScanRegistration *registration = data;

    g_free(registration->initiator);
    g_free(registration);
}

static void scan_path_free(gpointer data)
{
    PrScanPath *path = data;

    g_free(path->name);
    g_free(path->state);
    g_free(path->initiator);
    g_free(path);
}

void pr_scan_free(PrScan *scan)
{
    if (!scan)
        return;
    g_free(scan->disk);
    g_free(scan->wwid);
    g_ptr_array_unref(scan->registrations);
    g_ptr_array_unref(scan->paths);
    g_free(scan);
}

/* ---- /sys ---------------------------------------------------------------------------------- */

static char *scan_attribute(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return NULL;
    g_strstrip(text);
    if (*text)
        return text;
    g_free(text);
    return NULL;
}

guint16 pr_scan_port_of_page(const guint8 *page, gsize len)
{
    gsize at = 4;

    if (len < 4 || page[1] != 0x83)
        return 0;
    len = MIN(len, 4u + spc_get16(page + 2));
    while (at + 4 <= len) {
        gsize size = page[at + 3];
        guint association = page[at + 1] >> 4 & 0x03, type = page[at + 1] & 0x0f;

        if (at + 4 + size > len)
            return 0;
        if (association == 1 && type == 4 && size == 4) /* relative target port */
            return spc_get16(page + at + 6);
        at += 4 + size;
    }
    return 0;
}

gboolean pr_scan_is_initiator(const char *transport_id, const char *initiator)
{
    gsize len = strlen(initiator);

    return g_ascii_strncasecmp(transport_id, initiator, len) == 0 &&
           (transport_id[len] == '\0' || transport_id[len] == ',');
}

/* The initiator in /sys/class/CLASS/NAME, as TransportIDs are described. */
static char *scan_initiator(const char *class, const char *name)
{
    g_autofree char *dir = g_build_filename("/sys/class", class, name, NULL);
    g_autofree char *port = NULL;

    if (strcmp(class, "fc_host") != 0)
        return scan_attribute(dir, "initiatorname");
    port = scan_attribute(dir, "port_name");
    return port && g_str_has_prefix(port, "0x") ? g_strconcat("fc ", port + 2, NULL) : NULL;
}

/* All names of this host. */
static GPtrArray *scan_initiators(void)
{
    static const char *const classes[] = {"iscsi_session", "iscsi_host", "fc_host"};
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);

    for (gsize i = 0; i < G_N_ELEMENTS(classes); i++) {
        g_autofree char *path = g_build_filename("/sys/class", classes[i], NULL);
        g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
        const char *name;

        while (dir && (name = g_dir_read_name(dir))) {
            char *initiator = scan_initiator(classes[i], name);

            if (initiator && g_ascii_strcasecmp(initiator, "<NULL>") != 0)
                g_ptr_array_add(names, initiator);
            else
                g_free(initiator);
        }
    }
    return names;
}

/* By which initiator a path goes: its place in /sys names the session or the host adapter. */
static char *scan_path_initiator(const char *disk)
{
    g_autofree char *link = g_build_filename("/sys/block", disk, "device", NULL);
    char *real = realpath(link, NULL);
    g_auto(GStrv) parts = g_strsplit(real ? real : "", "/", -1);
    char *found = NULL;

    free(real);
    for (char **part = parts; *part && !found; part++) {
        if (g_str_has_prefix(*part, "session"))
            found = scan_initiator("iscsi_session", *part);
        else if (g_str_has_prefix(*part, "host"))
            found = scan_initiator("fc_host", *part);
    }
    return found;
}

static guint16 scan_path_port(const char *disk)
{
    g_autofree char *path = g_build_filename("/sys/block", disk, "device/vpd_pg83", NULL);
    g_autofree char *page = NULL;
    gsize len = 0;

    if (!g_file_get_contents(path, &page, &len, NULL))
        return 0;
    return pr_scan_port_of_page((const guint8 *)page, len);
}

static char *scan_wwid(const char *disk)
{
    g_autofree char *dir = g_build_filename("/sys/block", disk, NULL);
    char *wwid = scan_attribute(dir, "device/wwid");

    return wwid ? wwid : scan_attribute(dir, "wwid");
}

/* ---- asking -------------------------------------------------------------------------------- */

typedef struct Scan {
    int fd;
    Map map; /* without paths: not one */
    PathOps ops;
    guint8 data[SPC_LIST_MAX];
    gsize len;
    PathResult result;
} Scan;

static gboolean scan_is_attention(const PathResult *result)
{
    SpcSense sense;

    return result->answered && result->status == SPC_STATUS_CHECK_CONDITION &&
           spc_sense_read(result->sense, sizeof(result->sense), &sense) == 0 && sense.key == 6;
}

static gboolean scan_ask(Scan *self, SpcInAction action)
{
    guint8 cdb[16];

    spc_in_build(action, sizeof(self->data), cdb);
    for (int tries = 0; tries < 5; tries++) {
        if (self->map.count > 0)
            paths_read(&self->ops, cdb, self->data, sizeof(self->data), &self->len, &self->result);
        else
            map_command(self->fd, cdb, true, self->data, sizeof(self->data), &self->len,
                        &self->result);
        if (!scan_is_attention(&self->result))
            break;
    }
    return self->result.answered && self->result.status == SPC_STATUS_GOOD;
}

static char *scan_error(const Scan *self)
{
    char text[64];
    SpcSense sense;

    if (!self->result.answered)
        return g_strdup("it does not answer SCSI commands; be root, and name a SCSI disk, a "
                        "multipath device or an NVMe namespace");
    if (self->result.status == SPC_STATUS_CHECK_CONDITION &&
        spc_sense_read(self->result.sense, sizeof(self->result.sense), &sense) == 0)
        return g_strdup_printf("it has no persistent reservations: %s",
                               spc_sense_describe(sense, text, sizeof(text)));
    return g_strdup_printf("it answers with status 0x%02x", self->result.status);
}

static void scan_add(PrScan *scan, const SpcRegistration *found, const char *initiator,
                     const GPtrArray *own)
{
    PrScanRegistration *registration = g_new0(PrScanRegistration, 1);

    registration->key = found->key;
    registration->target_port = found->target_port;
    registration->holder = found->holder;
    registration->initiator = g_strdup(initiator);
    registration->this_host = initiator && own->len > 0 ? PR_NO : PR_UNKNOWN;
    for (guint i = 0; initiator && i < own->len; i++) {
        if (pr_scan_is_initiator(initiator, g_ptr_array_index(own, i)))
            registration->this_host = PR_YES;
    }
    g_ptr_array_add(scan->registrations, registration);
}

static gboolean scan_full_status(Scan *self, PrScan *scan)
{
    g_autoptr(GPtrArray) own = scan_initiators();
    SpcFullStatus status;
    SpcRegistration found;
    char text[300];

    if (!scan_ask(self, SPC_IN_FULL_STATUS) ||
        spc_in_parse_full_status(self->data, self->len, &status) < 0)
        return FALSE;
    scan->generation = status.generation;
    while (spc_full_status_next(&status, &found) > 0) {
        const char *initiator =
            found.transport_id_len > 0
                ? spc_transport_id_describe(found.transport_id, found.transport_id_len, text,
                                            sizeof(text))
                : NULL;

        scan_add(scan, &found, initiator, own);
    }
    return TRUE;
}

/* A device that does not know READ FULL STATUS tells the keys alone. */
static gboolean scan_keys(Scan *self, PrScan *scan)
{
    g_autoptr(GPtrArray) nobody = g_ptr_array_new();
    SpcKeys keys;

    if (!scan_ask(self, SPC_IN_KEYS) || spc_in_parse_keys(self->data, self->len, &keys) < 0)
        return FALSE;
    scan->generation = keys.generation;
    for (gsize i = 0; i < keys.count; i++) {
        const SpcRegistration found = {
            .key = spc_keys_at(&keys, i),
            .holder = scan->held && (spc_type_all_registrants(scan->type) ||
                                     scan->holder == spc_keys_at(&keys, i)),
        };

        scan_add(scan, &found, NULL, nobody);
    }
    return TRUE;
}

static gboolean scan_reservation(Scan *self, PrScan *scan)
{
    SpcReservation reservation;

    if (!scan_ask(self, SPC_IN_RESERVATION) ||
        spc_in_parse_reservation(self->data, self->len, &reservation) < 0)
        return FALSE;
    scan->held = reservation.held;
    scan->type = reservation.type;
    scan->holder = reservation.key;
    return TRUE;
}

static void scan_add_path(PrScan *scan, const char *name)
{
    g_autofree char *dir = g_build_filename("/sys/block", name, NULL);
    PrScanPath *path = g_new0(PrScanPath, 1);

    path->name = g_strdup(name);
    path->state = scan_attribute(dir, "device/state");
    if (!path->state)
        path->state = g_strdup("?");
    path->initiator = scan_path_initiator(name);
    path->target_port = scan_path_port(name);
    if (path->initiator && path->target_port)
        path->registered = PR_NO;
    for (guint i = 0; path->registered == PR_NO && i < scan->registrations->len; i++) {
        const PrScanRegistration *registration = g_ptr_array_index(scan->registrations, i);

        if (registration->initiator && registration->target_port == path->target_port &&
            pr_scan_is_initiator(registration->initiator, path->initiator)) {
            path->registered = PR_YES;
            path->key = registration->key;
        }
    }
    g_ptr_array_add(scan->paths, path);
}

static PrScan *scan_device(Scan *self, dev_t dev, char **ret_error)
{
    g_autoptr(PrScan) scan = g_new0(PrScan, 1);
    g_autofree char *link = g_strdup_printf("/sys/dev/block/%u:%u", major(dev), minor(dev));
    char *real = realpath(link, NULL);

    scan->registrations = g_ptr_array_new_with_free_func(scan_registration_free);
    scan->paths = g_ptr_array_new_with_free_func(scan_path_free);
    scan->disk = real ? g_path_get_basename(real) : g_strdup("?");
    free(real);
    if (map_read(dev, &self->map) == 0)
        map_ops(&self->map, &self->ops);
    scan->wwid = scan_wwid(self->map.count > 0 ? self->map.paths[0].name : scan->disk);
    if (!scan_reservation(self, scan) || !(scan_full_status(self, scan) || scan_keys(self, scan))) {
        *ret_error = scan_error(self);
        return NULL;
    }
    for (gsize i = 0; i < self->map.count; i++)
        scan_add_path(scan, self->map.paths[i].name);
    return g_steal_pointer(&scan);
}

PrScan *pr_scan(const char *device, char **ret_error)
{
    g_autofree Scan *self = g_new0(Scan, 1);
    PrScan *scan;
    struct stat st;

    self->fd = open(device, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (self->fd < 0 || fstat(self->fd, &st) < 0) {
        *ret_error = g_strdup(g_strerror(errno));
        return NULL;
    }
    if (!S_ISBLK(st.st_mode)) {
        *ret_error = g_strdup("not a block device");
        close(self->fd);
        return NULL;
    }
    scan = scan_device(self, st.st_rdev, ret_error);
    close(self->fd);
    return scan;
}
