/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libholdfast: is a disk image safe to be given to a virtual machine?
 *
 * These functions need no daemon. They read the image through the descriptor that they are given,
 * with pread() alone, in a child process that can do nothing else, and open nothing that the image
 * names. Which checks there are, and what they leave out, is in docs/checking-images.rst.
 *
 * The conventions of holdfast.h hold. Any number of threads may check at once.
 */
#ifndef HOLDFAST_IMAGE_H
#define HOLDFAST_IMAGE_H

#include <holdfast/holdfast.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The largest disk, in bytes, that is allowed where the caller sets no limit: 64 TiB. */
#define HF_IMAGE_MAX_SIZE ((uint64_t)64 << 40)

/** What to check for. Set it to zero, set `size`, then what is needed. */
typedef struct hf_image_options {
    size_t size;              /**< sizeof(hf_image_options) */
    const char *format;       /**< what the image is said to be: a name of hf_image_format() */
    uint64_t max_size;        /**< the largest disk allowed, in bytes; 0: HF_IMAGE_MAX_SIZE */
    const char *const *allow; /**< names of reasons that are no objection, ending with NULL */
    unsigned timeout_ms;      /**< how long one check may take; 0: 30 s */
} hf_image_options;

typedef struct hf_image_result hf_image_result;

/** One reason why an image is unsafe; later versions add members at the end only. */
typedef struct hf_image_reason {
    const char *id;       /**< stable: "backing-file"; see hf_image_reason_name() */
    int64_t offset;       /**< where in the file it was seen, in bytes; -1: in no one place */
    const char *sentence; /**< for people, without a newline */
    int allowed;          /**< 1: the caller's options allow it */
} hf_image_reason;

/**
 * Checks the image behind `fd`, a regular file or a block device that can be read; its offset is
 * neither used nor changed. Returns 0 with a result when there is a verdict, safe or unsafe. Fails
 * with HF_ERR_INVALID_ARGUMENT (options), HF_ERR_BAD_RESOURCE (no file: a directory, a pipe, ...;
 * or it changed meanwhile), HF_ERR_STORAGE (cannot be read), HF_ERR_TIMEOUT, HF_ERR_INTERNAL.
 */
int hf_image_check(int fd, const hf_image_options *options, hf_image_result **ret_result,
                   hf_error **ret_error);

/**
 * Copies what `fd` gives from its offset on, to the end, and checks the copy. `fd` may be a pipe or
 * a socket. Only if the copy is safe it appears as `path`, whole, with mode 0600; until then it has
 * no name (or, on a file system without such files, one in the same directory that begins with
 * ".holdfast-"). Nothing that exists is ever replaced. With `path` NULL the copy is
 * made in $TMPDIR or /var/tmp, and dropped. A stream that gets longer than an image within the size
 * limit can be is not read to its end. As hf_image_check() otherwise; the time limit is for the
 * check alone.
 */
int hf_image_copy(int fd, const char *path, const hf_image_options *options,
                  hf_image_result **ret_result, hf_error **ret_error);

/** 1: no reason against it, but for those that were allowed. */
int hf_image_is_safe(const hf_image_result *result);
/** The disk's size as a hypervisor would see it, in bytes. Returns 0 when it is not known. */
int hf_image_disk_size(const hf_image_result *result, uint64_t *ret_bytes);
/** How many reasons there are, and the one at `index`, or NULL past the end. Owned by the result.
 */
size_t hf_image_reasons_count(const hf_image_result *result);
const hf_image_reason *hf_image_reasons_get(const hf_image_result *result, size_t index);
/** NULL is allowed. */
void hf_image_result_free(hf_image_result *result);

/** The formats that can be asked for: the name at `index`, or NULL past the end. */
const char *hf_image_format(size_t index);
/** All reasons: the name at `index`, or NULL past the end, and what it means in general. */
const char *hf_image_reason_name(size_t index, const char **ret_text);

#ifdef __cplusplus
}
#endif

#endif
