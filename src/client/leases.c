/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hf_leases: the daemon's array of LEASE as structs. The strings stay where they are, in the JSON
 * value, which lives as long as the list.
 */
#include <stdlib.h>
#include <string.h>

#include "client-internal.h"

struct hf_leases {
    struct json_object *reply;
    size_t count;
    hf_lease_info info[];
};

static bool leases_parse_mode(const char *text, hf_mode *ret_mode)
{
    static const char *const modes[] = {"exclusive", "shared", "readonly"};

    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (text && strcmp(text, modes[i]) == 0) {
            *ret_mode = (hf_mode)i;
            return true;
        }
    }
    return false;
}

/* Fills `info` from a LEASE; returns what is wrong with it, or NULL. */
static const char *leases_parse(struct json_object *lease, hf_lease_info *info)
{
    struct json_object *owner = NULL, *pid = NULL;
    const char *since = hfc_get_string(lease, "since");

    if (!json_object_is_type(lease, json_type_object))
        return "a lease is not an object";
    info->disk = hfc_get_string(lease, "disk");
    info->driver = hfc_get_string(lease, "driver");
    info->lockspace = hfc_get_string(lease, "lockspace");
    info->key = hfc_get_string(lease, "key");
    if (!info->driver || !info->lockspace || !info->key)
        return "a lease has no driver, lockspace or key";
    if (!leases_parse_mode(hfc_get_string(lease, "mode"), &info->mode))
        return "a lease has a mode that this library does not know";
    if (!since || !hfc_parse_time(since, &info->since_usec))
        return "a lease does not say since when";
    if (!json_object_object_get_ex(lease, "owner", &owner) ||
        !json_object_is_type(owner, json_type_object))
        return "a lease has no owner";
    info->owner_name = hfc_get_string(owner, "name");
    info->owner_uuid = hfc_get_string(owner, "uuid");
    info->host = hfc_get_string(owner, "host");
    if (json_object_object_get_ex(owner, "pid", &pid))
        info->owner_pid = (pid_t)json_object_get_int(pid);
    return NULL;
}

hf_leases *hfc_leases_from_reply(struct json_object *reply, const char **ret_what)
{
    struct json_object *array = NULL;
    hf_leases *leases;
    size_t count;

    if (!json_object_object_get_ex(reply, "leases", &array) ||
        !json_object_is_type(array, json_type_array)) {
        *ret_what = "it has no array \"leases\"";
        return NULL;
    }
    *ret_what = NULL;
    count = json_object_array_length(array);
    leases = calloc(1, sizeof(*leases) + count * sizeof(leases->info[0]));
    if (!leases)
        return NULL;
    leases->reply = json_object_get(reply);
    leases->count = count;
    for (size_t i = 0; i < count; i++) {
        *ret_what = leases_parse(json_object_array_get_idx(array, i), &leases->info[i]);
        if (*ret_what) {
            hf_leases_free(leases);
            return NULL;
        }
    }
    return leases;
}

size_t hf_leases_count(const hf_leases *leases)
{
    return leases->count;
}

const hf_lease_info *hf_leases_get(const hf_leases *leases, size_t index)
{
    return index < leases->count ? &leases->info[index] : NULL;
}

void hf_leases_free(hf_leases *leases)
{
    if (!leases)
        return;
    json_object_put(leases->reply);
    free(leases);
}
