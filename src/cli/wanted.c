/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See wanted.h: the data, what people write for it, and its JSON. Needs nothing of the rest. */
#include "wanted.h"

#include <string.h>

static void wanted_disk_free(gpointer data)
{
    WantedDisk *disk = data;

    g_free(disk->path);
    g_free(disk);
}

static void wanted_lease_free(gpointer data)
{
    WantedLease *lease = data;

    g_free(lease->lockspace);
    g_free(lease->key);
    g_free(lease);
}

static void wanted_image_free(gpointer data)
{
    WantedImage *image = data;

    g_free(image->path);
    g_free(image->format);
    g_free(image);
}

Wanted *wanted_new(void)
{
    Wanted *wanted = g_new0(Wanted, 1);

    wanted->disks = g_ptr_array_new_with_free_func(wanted_disk_free);
    wanted->leases = g_ptr_array_new_with_free_func(wanted_lease_free);
    wanted->images = g_ptr_array_new_with_free_func(wanted_image_free);
    wanted->warnings = g_ptr_array_new_with_free_func(g_free);
    return wanted;
}

void wanted_free(Wanted *wanted)
{
    if (!wanted)
        return;
    g_ptr_array_unref(wanted->disks);
    g_ptr_array_unref(wanted->leases);
    g_ptr_array_unref(wanted->images);
    g_ptr_array_unref(wanted->warnings);
    g_free(wanted->name);
    g_free(wanted->uuid);
    g_free(wanted->uri);
    g_free(wanted->domain);
    g_free(wanted);
}

void wanted_take_disk(Wanted *wanted, char *path, hf_mode mode)
{
    WantedDisk *disk = g_new0(WantedDisk, 1);

    disk->path = path;
    disk->mode = mode;
    g_ptr_array_add(wanted->disks, disk);
}

void wanted_take_lease(Wanted *wanted, char *lockspace, char *key, hf_mode mode)
{
    WantedLease *lease = g_new0(WantedLease, 1);

    lease->lockspace = lockspace;
    lease->key = key;
    lease->mode = mode;
    g_ptr_array_add(wanted->leases, lease);
}

WantedImage *wanted_take_image(Wanted *wanted, char *path, char *format)
{
    WantedImage *image = g_new0(WantedImage, 1);

    image->path = path;
    image->format = format ? format : g_strdup("raw");
    g_ptr_array_add(wanted->images, image);
    return image;
}

/* ---- reading what people write -------------------------------------------------------------- */

static const char *wanted_mode_name(hf_mode mode)
{
    static const char *const names[] = {"exclusive", "shared", "readonly"};

    return names[mode];
}

/* Cuts a known ",MODE" off the end of `text`. Any other comma belongs to the name. */
static hf_mode wanted_cut_mode(char *text)
{
    static const struct {
        const char *suffix;
        hf_mode mode;
    } suffixes[] = {
        {",exclusive", HF_MODE_EXCLUSIVE},
        {",shared", HF_MODE_SHARED},
        {",ro", HF_MODE_READONLY},
        {",readonly", HF_MODE_READONLY},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(suffixes); i++) {
        if (g_str_has_suffix(text, suffixes[i].suffix)) {
            text[strlen(text) - strlen(suffixes[i].suffix)] = '\0';
            return suffixes[i].mode;
        }
    }
    return HF_MODE_EXCLUSIVE;
}

char *wanted_absolute(const char *path)
{
    g_autofree char *here = NULL;

    if (path[0] == '/')
        return g_strdup(path);
    /* "./" says nothing; ".." stays, for what it means depends on the links before it. */
    while (path[0] == '.' && path[1] == '/') {
        path += 2;
        path += strspn(path, "/");
    }
    here = g_get_current_dir();
    return g_build_filename(here, path, NULL);
}

/* rbd:pool/image, nbd://host/..., nvme://...: known to QEMU, no path. */
static gboolean wanted_is_uri(const char *text)
{
    g_autofree char *scheme = g_uri_parse_scheme(text);

    return scheme && (g_str_has_prefix(text + strlen(scheme), "://") || strcmp(scheme, "rbd") == 0);
}

gboolean wanted_add_disk(Wanted *wanted, const char *text, GError **error)
{
    g_autofree char *path = g_strdup(text);
    hf_mode mode = wanted_cut_mode(path);

    if (!*path || !g_utf8_validate(path, -1, NULL)) {
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                    "'%s' is no disk: a path is needed, in UTF-8", text);
        return FALSE;
    }
    if (wanted_is_uri(path)) {
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                    "'%s' is a network disk, which cannot be locked by its address; use a lease "
                    "(--lease) for it, or write ./%s if it is a file",
                    path, path);
        return FALSE;
    }
    wanted_take_disk(wanted, wanted_absolute(path), mode);
    return TRUE;
}

gboolean wanted_add_lease(Wanted *wanted, const char *text, GError **error)
{
    g_autofree char *lockspace = g_strdup(text);
    hf_mode mode = wanted_cut_mode(lockspace);
    char *slash = strrchr(lockspace, '/');
    char *border = strchr(slash ? slash : lockspace, ':');

    if (!border)
        border = slash;
    if (!border || border == lockspace || !border[1] || !g_utf8_validate(text, -1, NULL)) {
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                    "'%s' is no lease: write LOCKSPACE:KEY or LOCKSPACE/KEY, where LOCKSPACE is a "
                    "directory and KEY a name in it",
                    text);
        return FALSE;
    }
    *border = '\0';
    wanted_take_lease(wanted, wanted_absolute(lockspace), g_strdup(border + 1), mode);
    return TRUE;
}

char *wanted_parse_uuid(const char *text)
{
    GString *uuid = g_string_new(NULL);
    gsize digits = 0;

    for (const char *p = text; *p; p++) {
        if (*p == '-' && digits % 2 == 0)
            continue;
        if (!g_ascii_isxdigit(*p) || digits == 32) {
            digits = 0;
            break;
        }
        if (digits == 8 || digits == 12 || digits == 16 || digits == 20)
            g_string_append_c(uuid, '-');
        g_string_append_c(uuid, g_ascii_tolower(*p));
        digits++;
    }
    return g_string_free(uuid, digits != 32);
}

/* ---- to JSON -------------------------------------------------------------------------------- */

static void wanted_json_string(CliJson *object, const char *key, const char *value)
{
    if (value)
        json_object_object_add(object, key, json_object_new_string(value));
}

static void wanted_json_items(CliJson *arguments, const Wanted *wanted, gboolean with_mode)
{
    CliJson *disks = json_object_new_array(), *leases = json_object_new_array();

    for (guint i = 0; i < wanted->disks->len; i++) {
        const WantedDisk *disk = g_ptr_array_index(wanted->disks, i);
        CliJson *object = json_object_new_object();

        wanted_json_string(object, "path", disk->path);
        wanted_json_string(object, "mode", with_mode ? wanted_mode_name(disk->mode) : NULL);
        json_object_array_add(disks, object);
    }
    for (guint i = 0; i < wanted->leases->len; i++) {
        const WantedLease *lease = g_ptr_array_index(wanted->leases, i);
        CliJson *object = json_object_new_object();

        wanted_json_string(object, "lockspace", lease->lockspace);
        wanted_json_string(object, "key", lease->key);
        wanted_json_string(object, "mode", with_mode ? wanted_mode_name(lease->mode) : NULL);
        json_object_array_add(leases, object);
    }
    /* An empty array is not the same as none: "release" without both gives back everything. */
    if (json_object_array_length(disks) > 0)
        json_object_object_add(arguments, "disks", disks);
    else
        json_object_put(disks);
    if (json_object_array_length(leases) > 0)
        json_object_object_add(arguments, "leases", leases);
    else
        json_object_put(leases);
}

CliJson *wanted_to_acquire(const Wanted *wanted)
{
    CliJson *arguments = json_object_new_object(), *owner = json_object_new_object();

    json_object_object_add(owner, "pid", json_object_new_int64(wanted->pid));
    wanted_json_string(owner, "name", wanted->name);
    wanted_json_string(owner, "uuid", wanted->uuid);
    wanted_json_string(owner, "uri", wanted->uri);
    wanted_json_string(owner, "until", wanted->until_close ? "connection" : NULL);
    json_object_object_add(arguments, "owner", owner);
    wanted_json_items(arguments, wanted, TRUE);
    return arguments;
}

CliJson *wanted_to_release(const Wanted *wanted)
{
    CliJson *arguments = json_object_new_object(), *owner = json_object_new_object();

    json_object_object_add(owner, "pid", json_object_new_int64(wanted->pid));
    json_object_object_add(arguments, "owner", owner);
    wanted_json_items(arguments, wanted, FALSE);
    return arguments;
}
