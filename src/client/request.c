/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hf_request: what is to be acquired or released, and for whom. Only collects and checks what the
 * wire cannot carry; whether it makes sense is the daemon's to judge.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client-internal.h"

/* A disk (no lockspace) or a lease. */
typedef struct request_item {
    struct request_item *next;
    char *lockspace;
    char *name;
    hf_mode mode;
} request_item;

/* In the order in which they were added. */
typedef struct request_list {
    request_item *first;
    request_item *last;
} request_list;

struct hf_request {
    pid_t pid;
    char *name;
    char *uuid;
    char *uri;
    bool until_close;
    unsigned timeout_ms;
    request_list disks;
    request_list leases;
};

hf_request *hf_request_new(pid_t pid)
{
    hf_request *request = calloc(1, sizeof(*request));

    if (request)
        request->pid = pid;
    return request;
}

static void request_list_free(request_list *list)
{
    while (list->first) {
        request_item *item = list->first;

        list->first = item->next;
        free(item->lockspace);
        free(item->name);
        free(item);
    }
}

void hf_request_free(hf_request *request)
{
    if (!request)
        return;
    request_list_free(&request->disks);
    request_list_free(&request->leases);
    free(request->name);
    free(request->uuid);
    free(request->uri);
    free(request);
}

/* JSON is UTF-8: anything else would arrive as something else, or not at all. */
static bool request_is_text(const char *text)
{
    return text && hfc_is_utf8(text, strlen(text));
}

static int request_set(char **member, const char *value)
{
    char *copy = NULL;

    if (value) {
        if (!request_is_text(value))
            return HF_ERR_INVALID_ARGUMENT;
        copy = strdup(value);
        if (!copy)
            return HF_ERR_INTERNAL;
    }
    free(*member);
    *member = copy;
    return 0;
}

int hf_request_set_name(hf_request *request, const char *name)
{
    return request_set(&request->name, name);
}

int hf_request_set_uuid(hf_request *request, const char *uuid)
{
    return request_set(&request->uuid, uuid);
}

int hf_request_set_uri(hf_request *request, const char *uri)
{
    return request_set(&request->uri, uri);
}

int hf_request_set_until_close(hf_request *request)
{
    request->until_close = true;
    return 0;
}

int hf_request_set_timeout(hf_request *request, unsigned timeout_ms)
{
    request->timeout_ms = timeout_ms;
    return 0;
}

static const char *request_mode(hf_mode mode)
{
    switch (mode) {
    case HF_MODE_EXCLUSIVE:
        return "exclusive";
    case HF_MODE_SHARED:
        return "shared";
    case HF_MODE_READONLY:
        return "readonly";
    }
    return NULL;
}

static int request_add(request_list *list, const char *lockspace, const char *name, hf_mode mode)
{
    request_item *item = calloc(1, sizeof(*item));

    if (!item)
        return HF_ERR_INTERNAL;
    item->lockspace = lockspace ? strdup(lockspace) : NULL;
    item->name = strdup(name);
    item->mode = mode;
    if (!item->name || (lockspace && !item->lockspace)) {
        free(item->lockspace);
        free(item->name);
        free(item);
        return HF_ERR_INTERNAL;
    }
    if (list->last)
        list->last->next = item;
    else
        list->first = item;
    list->last = item;
    return 0;
}

int hf_request_add_disk(hf_request *request, const char *path, hf_mode mode)
{
    if (!request_is_text(path) || path[0] != '/' || !request_mode(mode))
        return HF_ERR_INVALID_ARGUMENT;
    return request_add(&request->disks, NULL, path, mode);
}

int hf_request_add_lease(hf_request *request, const char *lockspace, const char *key, hf_mode mode)
{
    if (!request_is_text(lockspace) || lockspace[0] != '/' || !request_is_text(key) || !*key ||
        !request_mode(mode))
        return HF_ERR_INVALID_ARGUMENT;
    return request_add(&request->leases, lockspace, key, mode);
}

/* ---- to JSON -------------------------------------------------------------------------------- */

static struct json_object *request_owner(const hf_request *request, bool release)
{
    struct json_object *owner = json_object_new_object();
    pid_t pid = request->pid ? request->pid : getpid();

    if (owner && hfc_add(owner, "pid", json_object_new_int64(pid)) &&
        (release || (hfc_add_string(owner, "name", request->name) &&
                     hfc_add_string(owner, "uuid", request->uuid) &&
                     hfc_add_string(owner, "uri", request->uri) &&
                     hfc_add_string(owner, "until", request->until_close ? "connection" : NULL))))
        return owner;
    json_object_put(owner);
    return NULL;
}

static struct json_object *request_item_object(const request_item *item, bool release)
{
    struct json_object *object = json_object_new_object();

    if (object && hfc_add_string(object, "lockspace", item->lockspace) &&
        hfc_add_string(object, item->lockspace ? "key" : "path", item->name) &&
        hfc_add_string(object, "mode", release ? NULL : request_mode(item->mode)))
        return object;
    json_object_put(object);
    return NULL;
}

static struct json_object *request_array(const request_list *list, bool release)
{
    struct json_object *array = json_object_new_array();

    for (const request_item *item = list->first; array && item; item = item->next) {
        struct json_object *object = request_item_object(item, release);

        if (!object || json_object_array_add(array, object) < 0) {
            json_object_put(object);
            json_object_put(array);
            return NULL;
        }
    }
    return array;
}

struct json_object *hfc_request_arguments(const hf_request *request, bool release)
{
    struct json_object *arguments = json_object_new_object();

    if (arguments && hfc_add(arguments, "owner", request_owner(request, release)) &&
        (!request->disks.first ||
         hfc_add(arguments, "disks", request_array(&request->disks, release))) &&
        (!request->leases.first ||
         hfc_add(arguments, "leases", request_array(&request->leases, release))) &&
        (!request->timeout_ms ||
         hfc_add(arguments, "timeout", json_object_new_int64(request->timeout_ms))))
        return arguments;
    json_object_put(arguments);
    return NULL;
}
