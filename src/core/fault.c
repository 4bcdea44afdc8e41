/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See fault.h. */
#include "fault.h"

Fault *fault_new(hf_code code, int err, const char *format, ...)
{
    Fault *fault = g_new0(Fault, 1);
    va_list args;

    fault->code = code;
    fault->err = err;
    va_start(args, format);
    fault->message = g_strdup_vprintf(format, args);
    va_end(args);
    fault->holders = g_ptr_array_new_with_free_func((GDestroyNotify)holder_free);
    return fault;
}

Fault *fault_copy(const Fault *fault)
{
    Fault *copy = g_memdup2(fault, sizeof(*fault));

    copy->message = g_strdup(fault->message);
    copy->driver = g_strdup(fault->driver);
    copy->space = g_strdup(fault->space);
    copy->key = g_strdup(fault->key);
    copy->disk = g_strdup(fault->disk);
    copy->argument = g_strdup(fault->argument);
    copy->operation = g_strdup(fault->operation);
    copy->holders = g_ptr_array_new_with_free_func((GDestroyNotify)holder_free);
    for (guint i = 0; i < fault->holders->len; i++)
        g_ptr_array_add(copy->holders, holder_copy(g_ptr_array_index(fault->holders, i)));
    return copy;
}

void fault_free(Fault *fault)
{
    if (!fault)
        return;
    g_free(fault->message);
    g_free(fault->driver);
    g_free(fault->space);
    g_free(fault->key);
    g_free(fault->disk);
    g_free(fault->argument);
    g_free(fault->operation);
    g_ptr_array_unref(fault->holders);
    g_free(fault);
}

const char *fault_class(hf_code code)
{
    switch (code) {
    case HF_ERR_INVALID_SYNTAX:
        return "InvalidSyntax";
    case HF_ERR_COMMAND_NOT_FOUND:
        return "CommandNotFound";
    case HF_ERR_INVALID_ARGUMENT:
        return "InvalidArgument";
    case HF_ERR_PERMISSION:
        return "PermissionDenied";
    case HF_ERR_BUSY:
        return "Busy";
    case HF_ERR_NOT_HELD:
        return "NotHeld";
    case HF_ERR_NO_SUCH_OWNER:
        return "NoSuchOwner";
    case HF_ERR_LEASE_REQUIRED:
        return "LeaseRequired";
    case HF_ERR_BAD_RESOURCE:
        return "BadResource";
    case HF_ERR_STORAGE:
        return "StorageError";
    case HF_ERR_TIMEOUT:
        return "Timeout";
    case HF_OK:
    case HF_ERR_INTERNAL:
    case HF_ERR_CONNECTION:
        break;
    }
    return "Internal";
}
