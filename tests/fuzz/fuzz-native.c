/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bytes that a client sends to the native socket: lines. Each is a request or a fault, for each
 * command's arguments, and the reply is one line of JSON in UTF-8.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "guard.h"
#include "protocol/native.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* As the commands take them. */
static const guint arguments_taken[] = {
    NATIVE_OWNER | NATIVE_WANTS | NATIVE_TIMEOUT,
    NATIVE_OWNER_PID | NATIVE_WANTS | NATIVE_TIMEOUT,
    NATIVE_FILTER,
    NATIVE_SUBJECT | NATIVE_TIMEOUT,
    NATIVE_EVENTS,
    0,
};

static void check(gboolean condition)
{
    if (!condition)
        abort();
}

/* Takes the line over. */
static void check_line(char *line)
{
    json_tokener *tokener = json_tokener_new_ex(NATIVE_MAX_DEPTH + 8);
    size_t len = strlen(line);
    json_object *object;

    check(len > 0 && strchr(line, '\n') == line + len - 1);
    check(g_utf8_validate(line, (gssize)len, NULL));
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    object = json_tokener_parse_ex(tokener, line, (int)len);
    check(json_object_is_type(object, json_type_object));
    json_object_put(object);
    json_tokener_free(tokener);
    g_free(line);
}

static void check_wants(const NativeArguments *arguments)
{
    for (guint i = 0; i < arguments->wants->len; i++) {
        const NativeWant *want = g_ptr_array_index(arguments->wants, i);

        check(want->path ? *want->path == '/' : want->space && *want->space == '/' && want->key);
        check(want->mode <= HF_MODE_READONLY);
    }
}

static void try_commands(const NativeRequest *request)
{
    for (size_t i = 0; i < G_N_ELEMENTS(arguments_taken); i++) {
        guint takes = arguments_taken[i];
        Fault *fault = NULL;
        g_autoptr(NativeArguments) arguments = native_parse_arguments(request, takes, &fault);

        check((arguments != NULL) == (fault == NULL));
        if (fault) {
            check(fault->code == HF_ERR_INVALID_ARGUMENT && fault->message && fault->argument);
            check_line(native_encode_error(request, fault));
            fault_free(fault);
            continue;
        }
        check(!(takes & (NATIVE_OWNER | NATIVE_OWNER_PID)) || arguments->pid > 0);
        check(!(takes & NATIVE_SUBJECT) || arguments->wants->len == 1);
        check_wants(arguments);
    }
}

static void try_line(const uint8_t *data, size_t len)
{
    const char *line = guard_copy(data, len);
    NativeRequest request;
    Fault *fault = NULL;

    if (native_parse_request(line, len, &request, &fault)) {
        check(!fault && request.execute);
        try_commands(&request);
        check_line(native_encode_return(&request, native_string(request.execute)));
    } else {
        check(fault && fault->message);
        check_line(native_encode_error(&request, fault));
        fault_free(fault);
    }
    native_request_clear(&request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    while (size > 0) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t len = end ? (size_t)(end - data) : size;

        try_line(data, len);
        if (!end)
            break;
        data += len + 1;
        size -= len + 1;
    }
    return 0;
}
