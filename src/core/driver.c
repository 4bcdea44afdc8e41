/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See driver.h; also the half of the driver API that drivers call. */
#include "driver.h"

#include <errno.h>
#include <string.h>

static int driver_no_load(struct hf_call *call)
{
    (void)call;
    return 0;
}

static void driver_no_unload(void)
{
}

static int driver_no_config(struct hf_call *call, const char *key, const char *value)
{
    (void)value;
    hf_call_error(call, HF_ERR_INVALID_ARGUMENT, 0, "this driver has no setting '%s'", key);
    return -1;
}

static int driver_no_open_space(struct hf_call *call, const char *space, unsigned flags,
                                void **ret_space)
{
    (void)call;
    (void)space;
    (void)flags;
    *ret_space = NULL;
    return 0;
}

static void driver_no_close_space(void *space)
{
    (void)space;
}

static int driver_no_verify(struct hf_call *call, void *space, void *handle)
{
    (void)call;
    (void)space;
    (void)handle;
    return 0;
}

static int driver_no_holder(struct hf_call *call, void *space, const struct hf_resource *resource,
                            int *ret_free)
{
    (void)space;
    (void)ret_free;
    hf_call_error(call, HF_ERR_INVALID_ARGUMENT, ENOTSUP,
                  "cannot tell who holds '%s': its driver cannot ask", resource->key);
    return -1;
}

static int driver_no_create(struct hf_call *call, void *space, const struct hf_resource *resource)
{
    (void)space;
    hf_call_error(call, HF_ERR_INVALID_ARGUMENT, ENOTSUP,
                  "cannot create or remove resource '%s': its driver has no such thing",
                  resource->key);
    return -1;
}

Driver *driver_new(const struct hf_driver *api, const char *where, Fault **ret_fault)
{
    Driver *driver;

    if (api->api_version != HF_DRIVER_API) {
        *ret_fault = fault_new(HF_ERR_INVALID_ARGUMENT, 0,
                               "%s: made for version %u of the driver API, this daemon has %d: "
                               "install the driver's build for this version",
                               where, api->api_version, HF_DRIVER_API);
        return NULL;
    }
    /* release is the last member that every driver of version 1 must have */
    if (api->size < offsetof(struct hf_driver, release) + sizeof(api->release) || !api->name ||
        !*api->name ||
        strspn(api->name, G_CSET_a_2_z G_CSET_A_2_Z G_CSET_DIGITS "-_") != strlen(api->name) ||
        !api->acquire || !api->release) {
        *ret_fault =
            fault_new(HF_ERR_INVALID_ARGUMENT, 0,
                      "%s: not a usable driver: size, name, acquire or release is missing", where);
        return NULL;
    }
    driver = g_new0(Driver, 1);
    memcpy(&driver->api, api, MIN(api->size, sizeof(driver->api)));
    driver->api.size = sizeof(driver->api);
#define DRIVER_DEFAULT(member, value)                                                              \
    if (!driver->api.member)                                                                       \
    driver->api.member = (value)
    DRIVER_DEFAULT(version, "");
    DRIVER_DEFAULT(description, "");
    DRIVER_DEFAULT(load, driver_no_load);
    DRIVER_DEFAULT(unload, driver_no_unload);
    DRIVER_DEFAULT(config, driver_no_config);
    DRIVER_DEFAULT(config_complete, driver_no_load);
    DRIVER_DEFAULT(open_space, driver_no_open_space);
    DRIVER_DEFAULT(close_space, driver_no_close_space);
    DRIVER_DEFAULT(verify, driver_no_verify);
    DRIVER_DEFAULT(holder, driver_no_holder);
    DRIVER_DEFAULT(create, driver_no_create);
    DRIVER_DEFAULT(remove, driver_no_create);
    if (!driver->api.save || !driver->api.adopt)
        driver->api.capabilities &= ~(unsigned)HF_SURVIVES;
#undef DRIVER_DEFAULT
    return driver;
}

void driver_free(Driver *driver)
{
    if (!driver)
        return;
    g_free(driver->path);
    g_free(driver);
}

void hf_call_init(struct hf_call *call, const char *host)
{
    call->host = host;
    call->fault = NULL;
    call->claims = g_ptr_array_new_with_free_func(g_free);
    call->holders = NULL;
}

void hf_call_clear(struct hf_call *call)
{
    g_clear_pointer(&call->fault, fault_free);
    g_clear_pointer(&call->claims, g_ptr_array_unref);
    g_clear_pointer(&call->holders, g_ptr_array_unref);
}

void hf_call_error(struct hf_call *call, hf_code code, int err, const char *format, ...)
{
    g_autofree char *message = NULL;
    va_list args;

    if (format) {
        va_start(args, format);
        message = g_strdup_vprintf(format, args);
        va_end(args);
    }
    if (call->fault) /* a driver's mistake: the first error is the cause, keep it */
        return;
    call->fault = fault_new(code, err, "%s", message ? message : fault_class(code));
}

void hf_call_claim(struct hf_call *call, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(call->claims, g_strdup_vprintf(format, args));
    va_end(args);
}

void call_take_claim(struct hf_call *call, char *claim)
{
    g_ptr_array_add(call->claims, claim);
}

void hf_call_holder(struct hf_call *call, const struct hf_holder *holder)
{
    if (!call->holders)
        call->holders = g_ptr_array_new_with_free_func((GDestroyNotify)holder_free);
    g_ptr_array_add(call->holders, holder_new(holder, holder->from_record ? HOLDER_FROM_RECORD
                                                                          : HOLDER_FROM_KERNEL));
}

const char *hf_call_host(const struct hf_call *call)
{
    return call->host;
}
