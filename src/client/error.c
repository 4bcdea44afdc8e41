/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hf_error: made once, where the trouble is seen, with the operation and the object in it; given
 * to the caller, who alone decides whether anybody reads it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client-internal.h"

struct hf_error {
    hf_code code;
    char *message;
    char *json; /* NULL: made by the library */
};

/* Out of memory must be reportable without any; hf_error_free() knows it. */
static hf_error error_no_memory = {
    .code = HF_ERR_INTERNAL,
    .message = (char *)"out of memory",
};

static const struct {
    const char *name;
    hf_code code;
} error_classes[] = {
    {"Internal", HF_ERR_INTERNAL},
    {"InvalidSyntax", HF_ERR_INVALID_SYNTAX},
    {"CommandNotFound", HF_ERR_COMMAND_NOT_FOUND},
    {"InvalidArgument", HF_ERR_INVALID_ARGUMENT},
    {"PermissionDenied", HF_ERR_PERMISSION},
    {"Busy", HF_ERR_BUSY},
    {"NotHeld", HF_ERR_NOT_HELD},
    {"NoSuchOwner", HF_ERR_NO_SUCH_OWNER},
    {"LeaseRequired", HF_ERR_LEASE_REQUIRED},
    {"BadResource", HF_ERR_BAD_RESOURCE},
    {"StorageError", HF_ERR_STORAGE},
    {"Timeout", HF_ERR_TIMEOUT},
};

/* A class of a later daemon is still an error; its sentence says which. */
static hf_code error_code_from_class(const char *name)
{
    for (size_t i = 0; i < sizeof(error_classes) / sizeof(error_classes[0]); i++) {
        if (strcmp(error_classes[i].name, name) == 0)
            return error_classes[i].code;
    }
    return HF_ERR_INTERNAL;
}

static hf_error *error_alloc(hf_code code, char *message)
{
    hf_error *error = message ? calloc(1, sizeof(*error)) : NULL;

    if (!error) {
        free(message);
        return &error_no_memory;
    }
    error->code = code;
    error->message = message;
    return error;
}

int hfc_error(hf_error **ret_error, hf_code code, const char *format, ...)
{
    va_list args;
    char *message = NULL;

    if (!ret_error)
        return code;
    va_start(args, format);
    if (vasprintf(&message, format, args) < 0)
        message = NULL;
    va_end(args);
    *ret_error = error_alloc(code, message);
    return code;
}

int hfc_no_memory(hf_error **ret_error)
{
    if (ret_error)
        *ret_error = &error_no_memory;
    return HF_ERR_INTERNAL;
}

int hfc_error_from_reply(hf_error **ret_error, struct json_object *object)
{
    const char *name = hfc_get_string(object, "class");
    const char *desc = hfc_get_string(object, "desc");
    hf_code code = name ? error_code_from_class(name) : HF_ERR_INTERNAL;
    hf_error *error;

    if (!ret_error)
        return code;
    if (!desc || !*desc)
        desc = name ? name : "the daemon refused without saying why";
    error = error_alloc(code, hfc_printable(desc, strlen(desc), HFC_MAX_REPLY));
    if (error != &error_no_memory) {
        const char *json = json_object_to_json_string_ext(
            object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
        error->json = json ? strdup(json) : NULL;
    }
    *ret_error = error;
    return code;
}

void hfc_error_hand_over(hf_error **ret_error, hf_error *error)
{
    if (ret_error)
        *ret_error = error;
    else
        hf_error_free(error);
}

hf_code hf_error_code(const hf_error *error)
{
    return error ? error->code : HF_OK;
}

const char *hf_error_message(const hf_error *error)
{
    return error ? error->message : "";
}

const char *hf_error_json(const hf_error *error)
{
    return error && error->json ? error->json : "{}";
}

void hf_error_free(hf_error *error)
{
    if (!error || error == &error_no_memory)
        return;
    free(error->message);
    free(error->json);
    free(error);
}
