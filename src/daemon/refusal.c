/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The refusal: one sentence that names the disk, who has it, and what to do. Pure but for the
 * engine's table, which it reads. */
#include "engine.h"

#include <errno.h>
#include <string.h>

char *refusal_subject(const Resource *resource, const char *disk)
{
    if (!*resource->space)
        return g_strdup_printf("disk %s", disk ? disk : resource->key);
    if (disk)
        return g_strdup_printf("disk %s (lease %s in lockspace %s)", disk, resource->key,
                               resource->space);
    return g_strdup_printf("lease %s in lockspace %s", resource->key, resource->space);
}

gboolean refusal_learn_disk(Lease *lease)
{
    const Resource *resource = lease_resource(lease);

    if (lease->disk || !lease->owner->pid || !*resource->space)
        return FALSE;
    /* reads /proc only, which does not wait for storage */
    lease->disk = identity_guess_disk(lease->owner->pid, resource->key, NULL);
    return TRUE;
}

static char *refusal_of_oneself(const char *subject, const Lease *lease)
{
    return g_strdup_printf(
        "%s is held already by this VM itself, in %s mode%s%s; release it first, "
        "or name it once",
        subject, mode_to_string(lease->mode), lease->disk ? " as " : "",
        lease->disk ? lease->disk : "");
}

Fault *refusal_new(Engine *engine, const Owner *asking, const Resource *resource, const char *disk,
                   hf_mode mode, GPtrArray *leases, GPtrArray *seen)
{
    Fault *fault = fault_new(HF_ERR_BUSY, EBUSY, "%s", "");
    const Lease *first = leases->len > 0 ? g_ptr_array_index(leases, 0) : NULL;
    g_autofree char *subject = NULL;

    for (guint i = 0; i < leases->len; i++) {
        refusal_learn_disk(g_ptr_array_index(leases, i));
        g_ptr_array_add(fault->holders,
                        lease_holder(g_ptr_array_index(leases, i), engine->config.host));
    }
    for (guint i = 0; seen && i < seen->len; i++) {
        const Holder *holder = g_ptr_array_index(seen, i);

        /* of this host's the table knows more; others share with them from elsewhere */
        if (!first || (holder->host && strcmp(holder->host, engine->config.host) != 0))
            g_ptr_array_add(fault->holders, holder_copy(holder));
    }
    for (guint i = 0; i < fault->holders->len; i++) {
        const Holder *holder = g_ptr_array_index(fault->holders, i);

        if (!disk)
            disk = holder->disk;
    }
    subject = refusal_subject(resource, disk);
    g_free(fault->message);
    if (first && asking && owner_same(first->owner, asking))
        fault->message = refusal_of_oneself(subject, first);
    else
        fault->message = holder_refusal(subject, disk, fault->holders);
    fault->driver = g_strdup(resource->driver->api.name);
    fault->space = g_strdup(resource->space);
    fault->key = g_strdup(resource->key);
    fault->disk = g_strdup(disk);
    fault->mode = mode;
    return fault;
}
