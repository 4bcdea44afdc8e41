/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See drivers-list.h. */
#include "drivers-list.h"

#include <dlfcn.h>
#include <string.h>

#include "drivers/drivers.h"
#include "protocol/native.h"

static void drivers_unload(gpointer data)
{
    Driver *driver = data;

    driver->api.unload();
    /* its code stays mapped until the process ends: leak checkers want to name it */
    driver_free(driver);
}

static void drivers_add(GPtrArray *drivers, const struct hf_driver *api, const char *path,
                        GPtrArray *problems)
{
    g_autoptr(Fault) fault = NULL;
    g_auto(HfCall) call = {0};
    Driver *driver = driver_new(api, path ? path : "built-in driver", &fault);

    hf_call_init(&call, "");
    if (!driver) {
        g_ptr_array_add(problems, g_strdup(fault->message));
        return;
    }
    driver->builtin = !path;
    driver->path = g_strdup(path);
    for (guint i = 0; i < drivers->len; i++) {
        const Driver *other = g_ptr_array_index(drivers, i);

        if (strcmp(other->api.name, driver->api.name) != 0)
            continue;
        g_ptr_array_add(problems, g_strdup_printf("%s: there is a driver '%s' already; remove one",
                                                  path, driver->api.name));
        driver_free(driver);
        return;
    }
    if (driver->api.load(&call) < 0) {
        g_ptr_array_add(problems,
                        g_strdup_printf("%s: driver '%s' does not load: %s", path, driver->api.name,
                                        call.fault ? call.fault->message : "no reason given"));
        driver_free(driver);
        return;
    }
    g_ptr_array_add(drivers, driver);
}

static void drivers_add_file(GPtrArray *drivers, const char *path, GPtrArray *problems)
{
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const struct hf_driver *(*entry)(void);
    const struct hf_driver *api;

    if (!object) {
        g_ptr_array_add(problems, g_strdup_printf("cannot load driver: %s", dlerror()));
        return;
    }
    /* POSIX promises that this conversion works */
    *(void **)(&entry) = dlsym(object, "holdfast_driver");
    api = entry ? entry() : NULL;
    if (api)
        drivers_add(drivers, api, path, problems);
    else
        g_ptr_array_add(problems, g_strdup_printf("%s: not a Holdfast driver: it lacks "
                                                  "HF_REGISTER_DRIVER",
                                                  path));
}

static gint drivers_by_path(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

GPtrArray *drivers_load(const char *dir, GPtrArray *problems)
{
    GPtrArray *drivers = g_ptr_array_new_with_free_func(drivers_unload);
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GDir) listing = dir ? g_dir_open(dir, 0, NULL) : NULL;
    const char *name;

    drivers_add(drivers, &hf_driver_lockd, NULL, problems);
    drivers_add(drivers, &hf_driver_nop, NULL, problems);
    while (listing && (name = g_dir_read_name(listing)))
        if (g_str_has_suffix(name, ".so"))
            g_ptr_array_add(paths, g_build_filename(dir, name, NULL));
    g_ptr_array_sort(paths, drivers_by_path);
    for (guint i = 0; i < paths->len; i++)
        drivers_add_file(drivers, g_ptr_array_index(paths, i), problems);
    return drivers;
}

GHashTable *drivers_by_name(GPtrArray *drivers)
{
    GHashTable *by_name = g_hash_table_new(g_str_hash, g_str_equal);

    for (guint i = 0; i < drivers->len; i++) {
        Driver *driver = g_ptr_array_index(drivers, i);

        g_hash_table_insert(by_name, (gpointer)driver->api.name, driver);
    }
    return by_name;
}

gboolean drivers_configure(GHashTable *by_name, const char *driver_name, const char *key,
                           const char *value, Fault **ret_fault)
{
    const Driver *driver = g_hash_table_lookup(by_name, driver_name);
    g_auto(HfCall) call = {0};

    hf_call_init(&call, "");
    if (!driver) {
        *ret_fault = fault_new(HF_ERR_INVALID_ARGUMENT, 0,
                               "there is no driver '%s'; holdfast drivers lists them", driver_name);
        return FALSE;
    }
    if (driver->api.config(&call, key, value) == 0)
        return TRUE;
    *ret_fault = g_steal_pointer(&call.fault);
    if (!*ret_fault)
        *ret_fault = fault_new(HF_ERR_INVALID_ARGUMENT, 0, "driver '%s' does not accept %s=%s",
                               driver_name, key, value);
    return FALSE;
}

gboolean drivers_complete(GPtrArray *drivers, Fault **ret_fault)
{
    for (guint i = 0; i < drivers->len; i++) {
        const Driver *driver = g_ptr_array_index(drivers, i);
        g_auto(HfCall) call = {0};

        hf_call_init(&call, "");
        if (driver->api.config_complete(&call) == 0)
            continue;
        *ret_fault =
            fault_new(HF_ERR_INVALID_ARGUMENT, 0, "driver '%s' is not configured: %s",
                      driver->api.name, call.fault ? call.fault->message : "no reason given");
        return FALSE;
    }
    return TRUE;
}

json_object *drivers_report(GPtrArray *drivers, const char *default_name)
{
    json_object *result = json_object_new_object();
    json_object *array = json_object_new_array();

    for (guint i = 0; i < drivers->len; i++) {
        const Driver *driver = g_ptr_array_index(drivers, i);
        json_object *object = json_object_new_object();
        json_object *can = json_object_new_array();

        json_object_object_add(object, "name", native_string(driver->api.name));
        json_object_object_add(object, "description", native_string(driver->api.description));
        json_object_object_add(object, "version", native_string(driver->api.version));
        json_object_object_add(object, "builtin", json_object_new_boolean(driver->builtin));
        json_object_object_add(object, "path", native_string(driver->path));
        if (driver->api.capabilities & HF_CAN_SHARE)
            json_object_array_add(can, json_object_new_string("shared"));
        if (driver->api.capabilities & HF_HAS_HOST)
            json_object_array_add(can, json_object_new_string("other-hosts"));
        if (driver->api.capabilities & HF_SURVIVES)
            json_object_array_add(can, json_object_new_string("survives"));
        json_object_object_add(object, "capabilities", can);
        json_object_object_add(
            object, "default",
            json_object_new_boolean(strcmp(driver->api.name, default_name) == 0));
        json_object_array_add(array, object);
    }
    json_object_object_add(result, "drivers", array);
    return result;
}
