/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver that locks nothing: for trying Holdfast out, and for disks that something else
 * protects. The lock table still names who has what, and still refuses a second writer on this
 * host, because each acquisition claims its key.
 */
#include "drivers.h"

static int nop_acquire(struct hf_call *call, void *space, const struct hf_resource *resource,
                       const struct hf_holder *owner, void **ret_handle)
{
    (void)space;
    (void)owner;
    hf_call_claim(call, "nop:%s:%s", resource->space, resource->key);
    *ret_handle = NULL;
    return 0;
}

static int nop_release(struct hf_call *call, void *space, void *handle)
{
    (void)call;
    (void)space;
    (void)handle;
    return 0;
}

static int nop_save(struct hf_call *call, void *space, void *handle, struct hf_saved *ret_saved)
{
    (void)call;
    (void)space;
    (void)handle;
    ret_saved->n_fds = ret_saved->n_bytes = 0;
    return 0;
}

static int nop_adopt(struct hf_call *call, void *space, const struct hf_resource *resource,
                     const struct hf_saved *saved, void **ret_handle)
{
    (void)saved;
    return nop_acquire(call, space, resource, NULL, ret_handle);
}

static int nop_holder(struct hf_call *call, void *space, const struct hf_resource *resource,
                      int *ret_free)
{
    (void)space;
    hf_call_claim(call, "nop:%s:%s", resource->space, resource->key);
    *ret_free = 1;
    return 0;
}

const struct hf_driver hf_driver_nop = {
    .size = sizeof(struct hf_driver),
    .api_version = HF_DRIVER_API,
    .name = "nop",
    .version = HOLDFAST_VERSION,
    .description = "locks nothing; keeps the list of who has what on this host",
    .capabilities = HF_CAN_SHARE | HF_SURVIVES,
    .acquire = nop_acquire,
    .release = nop_release,
    .holder = nop_holder,
    .save = nop_save,
    .adopt = nop_adopt,
};
