/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver API: how a kind of lock is added to Holdfast.
 *
 * A driver is a shared object NAME.so in the driver directory that ends with
 *
 *     HF_REGISTER_DRIVER(my_driver)
 *
 * where my_driver is a `static const struct hf_driver`. Every callback is plain blocking code: it
 * may sleep, read files and talk to servers. The daemon calls it from the lane of the lockspace in
 * question, so whatever it waits for delays only the callers of that lockspace, and it supplies
 * time-outs, ordering, hand-over, status and events.
 *
 * Threading: load, config, config_complete and unload run in the main thread while there is no
 * other. All others run in lane threads, several at once, but never two at once for the same
 * (space, key), except holder, which changes nothing. A driver that keeps state of its own between
 * calls guards it itself.
 *
 * Errors: a callback that fails calls hf_call_error() exactly once and returns -1; it returns 0
 * on success. A driver neither logs nor exits. `ret_` arguments are left alone on failure.
 *
 * Versions: the struct begins with its own size and the version of this API. New members are only
 * ever added at the end; the daemon fills in what an older driver does not have.
 */
#ifndef HOLDFAST_DRIVER_H
#define HOLDFAST_DRIVER_H

#include <holdfast/holdfast.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of this API. A driver made for another one is not loaded. */
#define HF_DRIVER_API 1

/** What a driver can do; or-ed in hf_driver.capabilities and shown by `holdfast drivers`. */
enum hf_driver_capability {
    HF_CAN_SHARE = 1 << 0, /**< knows HF_MODE_SHARED and HF_MODE_READONLY */
    HF_HAS_HOST = 1 << 1,  /**< its locks exclude other hosts as well */
    HF_SURVIVES = 1 << 2,  /**< its locks outlive the daemon: has save and adopt */
};

/** Flags of a resource. */
enum hf_resource_flag {
    HF_RESOURCE_AUTOCREATE = 1 << 0, /**< make the lock file if missing, remove it at the end */
    HF_RESOURCE_CREATE = 1 << 1,     /**< open_space: make the lockspace if it is missing */
    HF_RESOURCE_EXCLUSIVE_CREATE = 1 << 2, /**< open_space: it is an error if it exists */
};

/** One thing to lock. Everything in it is valid for the duration of the call only. */
struct hf_resource {
    const char *space; /**< name of the lockspace; "" where the driver has only one */
    const char *key;   /**< name of the resource in the lockspace */
    const char *disk;  /**< what the user named, if known, for messages and records; or NULL */
    hf_mode mode;
    unsigned flags;
};

/** Who wants it, or who has it. Absent strings are NULL, absent numbers 0. */
struct hf_holder {
    const char *disk;
    const char *name;
    const char *uuid;
    const char *uri;
    const char *host;
    pid_t pid;
    int64_t since_usec; /**< microseconds since 1970-01-01 UTC */
    hf_mode mode;
    int from_record; /**< 1: the holder itself wrote this down; 0: inferred from the lock */
};

/** What makes a lock survive the daemon: descriptors that hold it, and bytes that the driver reads
 *  again. The bytes are a contract with later and earlier versions of the driver. */
struct hf_saved {
    int fds[4];
    unsigned n_fds;
    char bytes[128];
    unsigned n_bytes;
};

/** One call of a callback; the way back to the daemon. Only valid during the call. */
struct hf_call;

/**
 * Says why the call fails. `code` is one of hf_code: HF_ERR_BUSY when somebody else holds the
 * resource, HF_ERR_BAD_RESOURCE when what was named cannot be locked by anybody, HF_ERR_STORAGE
 * when storage failed. `err` is an errno value or 0. The sentence names the operation and the
 * object and what to do next, without a newline; for HF_ERR_BUSY the daemon writes it itself
 * from what hf_call_holder() said, and `format` may be NULL.
 */
void hf_call_error(struct hf_call *call, hf_code code, int err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/**
 * Names what the resource really is, so that two names of one thing exclude each other even where
 * the lock itself cannot see it, e.g. "file:8:1:4711". Copied. To be called by acquire and holder,
 * also when they go on to fail with HF_ERR_BUSY.
 */
void hf_call_claim(struct hf_call *call, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Tells who holds the resource, once for each holder that is known. Copied. */
void hf_call_holder(struct hf_call *call, const struct hf_holder *holder);

/** The name of this host as it is to appear in records. */
const char *hf_call_host(const struct hf_call *call);

/** A driver. Members that are NULL get the default given with them. */
struct hf_driver {
    size_t size;          /**< sizeof(struct hf_driver) */
    unsigned api_version; /**< HF_DRIVER_API */
    const char *name;     /**< letters, digits and '-'; the file is NAME.so; required */
    const char *version;
    const char *description;
    unsigned capabilities;

    /** Once, before anything else; default: nothing. */
    int (*load)(struct hf_call *call);
    /** Once, after everything else; default: nothing. */
    void (*unload)(void);
    /** One `driver.key=value` of the configuration; default: every key is an error. */
    int (*config)(struct hf_call *call, const char *key, const char *value);
    /** After the last config; default: nothing. */
    int (*config_complete)(struct hf_call *call);

    /**
     * Makes a lockspace ready. `flags` are HF_RESOURCE_CREATE and HF_RESOURCE_EXCLUSIVE_CREATE.
     * Default: succeeds with NULL.
     */
    int (*open_space)(struct hf_call *call, const char *space, unsigned flags, void **ret_space);
    /** Default: nothing. */
    void (*close_space)(void *space);

    /**
     * Takes the lock, without waiting for another holder. On success the driver owns nothing but
     * `*ret_handle`, which it gets back in release. Required.
     */
    int (*acquire)(struct hf_call *call, void *space, const struct hf_resource *resource,
                   const struct hf_holder *owner, void **ret_handle);
    /**
     * Gives the lock back and frees the handle. The lock is gone afterwards even if -1 is
     * returned: an error tells that something was left behind, such as a file. Required.
     */
    int (*release)(struct hf_call *call, void *space, void *handle);
    /** Fails when the lock is no longer held; default: succeeds. */
    int (*verify)(struct hf_call *call, void *space, void *handle);
    /**
     * Who holds the resource, as well as it can be known without taking it: hf_call_holder() for
     * each. Sets `*ret_free` to 1 when an exclusive acquire would succeed now, else to 0; on 0 a
     * resource whose holders all share may still be shared. Default: fails.
     */
    int (*holder)(struct hf_call *call, void *space, const struct hf_resource *resource,
                  int *ret_free);
    /** Makes an empty resource that can be acquired without HF_RESOURCE_AUTOCREATE. */
    int (*create)(struct hf_call *call, void *space, const struct hf_resource *resource);
    /** Removes a resource that nobody holds. */
    int (*remove)(struct hf_call *call, void *space, const struct hf_resource *resource);

    /**
     * Tells what makes the lock survive. Called right after acquire. The descriptors stay the
     * driver's; the daemon passes copies to a supervisor. With it, release has to give the lock
     * back explicitly: closing the driver's own descriptor would not, as the copy is still there.
     * Needed for HF_SURVIVES.
     */
    int (*save)(struct hf_call *call, void *space, void *handle, struct hf_saved *ret_saved);
    /**
     * Takes a lock over that an earlier daemon has saved (`space` is NULL if the lockspace cannot
     * be opened just now; the same goes for the release of such a lock), checks that it still is
     * held, and claims as acquire does. Owns the descriptors from then on, also when it fails.
     * Needed for HF_SURVIVES.
     */
    int (*adopt)(struct hf_call *call, void *space, const struct hf_resource *resource,
                 const struct hf_saved *saved, void **ret_handle);
};

/** The function by which the daemon finds a driver in its shared object. */
#define HF_REGISTER_DRIVER(driver)                                                                 \
    __attribute__((visibility("default"))) const struct hf_driver *holdfast_driver(void);          \
    const struct hf_driver *holdfast_driver(void)                                                  \
    {                                                                                              \
        return &(driver);                                                                          \
    }

#ifdef __cplusplus
}
#endif

#endif
