/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hf_image_check() and what it returns; the formats are in src/image. */
#include <errno.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/image-internal.h"
#include "image/sandbox.h"

#define IMAGE_TIMEOUT_MS 30000

struct hf_image_result {
    uint32_t has_size;
    uint64_t disk_size;
    int safe;
    size_t n_reasons;
    hf_image_reason reasons[IMAGE_MAX_REASONS];
    char sentences[IMAGE_MAX_REASONS][IMAGE_MAX_SENTENCE];
};

/* ---- options -------------------------------------------------------------------------------- */

int hfc_image_options(const hf_image_options *options, const ImageFormat **ret_format,
                      hf_error **ret_error)
{
    if (!options || options->size < sizeof(*options))
        return hfc_error(ret_error, HF_ERR_INVALID_ARGUMENT,
                         "the options of an image's check are not filled in: set their size");
    *ret_format = options->format ? image_format_find(options->format) : NULL;
    if (!*ret_format)
        return hfc_error(ret_error, HF_ERR_INVALID_ARGUMENT,
                         "'%s' is no format of images that can be checked",
                         options->format ? options->format : "");
    for (const char *const *name = options->allow; name && *name; name++) {
        if (image_reason_find(*name) == IMAGE_N_REASONS)
            return hfc_error(ret_error, HF_ERR_INVALID_ARGUMENT,
                             "there is no reason '%s' that could be allowed", *name);
    }
    return 0;
}

uint64_t hfc_image_max_size(const hf_image_options *options)
{
    return options->max_size ? options->max_size : HF_IMAGE_MAX_SIZE;
}

static int image_allows(const hf_image_options *options, unsigned id)
{
    for (const char *const *name = options->allow; name && *name; name++) {
        if (image_reason_find(*name) == id)
            return 1;
    }
    return 0;
}

/* ---- the result ----------------------------------------------------------------------------- */

static void image_take_reason(hf_image_result *result, const hf_image_options *options,
                              const ImageReason *from)
{
    size_t i = result->n_reasons++;
    hf_image_reason *reason = &result->reasons[i];

    memcpy(result->sentences[i], from->sentence, IMAGE_MAX_SENTENCE);
    *reason = (hf_image_reason){
        .id = image_reason_name(from->id),
        .offset = from->offset > INT64_MAX ? -1 : (int64_t)from->offset,
        .sentence = result->sentences[i],
        .allowed = image_allows(options, from->id),
    };
    if (!reason->allowed)
        result->safe = 0;
}

int hfc_image_result(const ImageVerdict *verdict, const hf_image_options *options,
                     hf_image_result **ret_result, hf_error **ret_error)
{
    hf_image_result *result = calloc(1, sizeof(*result));

    if (!result)
        return hfc_no_memory(ret_error);
    /* What was not kept may be anything. */
    result->safe = verdict->n_more == 0;
    result->has_size = verdict->has_size;
    result->disk_size = verdict->size;
    for (uint32_t i = 0; i < verdict->n_reasons; i++)
        image_take_reason(result, options, &verdict->reasons[i]);
    if (ret_result)
        *ret_result = result;
    else
        free(result);
    return 0;
}

int hf_image_is_safe(const hf_image_result *result)
{
    return result && result->safe;
}

int hf_image_disk_size(const hf_image_result *result, uint64_t *ret_bytes)
{
    if (!result || !result->has_size)
        return 0;
    if (ret_bytes)
        *ret_bytes = result->disk_size;
    return 1;
}

size_t hf_image_reasons_count(const hf_image_result *result)
{
    return result ? result->n_reasons : 0;
}

const hf_image_reason *hf_image_reasons_get(const hf_image_result *result, size_t index)
{
    return result && index < result->n_reasons ? &result->reasons[index] : NULL;
}

void hf_image_result_free(hf_image_result *result)
{
    free(result);
}

const char *hf_image_format(size_t index)
{
    for (const ImageFormat *const *format = image_formats; *format; format++) {
        if ((*format)->check && index-- == 0)
            return (*format)->name;
    }
    return NULL;
}

const char *hf_image_reason_name(size_t index, const char **ret_text)
{
    const char *name = index < IMAGE_N_REASONS ? image_reason_name((unsigned)index) : NULL;

    if (name && ret_text)
        *ret_text = image_reason_text((unsigned)index);
    return name;
}

/* ---- the check ------------------------------------------------------------------------------ */

static const char *image_kind(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "a directory";
    case S_IFCHR:
        return "a character device";
    case S_IFIFO:
        return "a pipe";
    case S_IFSOCK:
        return "a socket";
    case S_IFLNK:
        return "a symbolic link";
    default:
        return "no file";
    }
}

/* What `fd` is, and how long. */
static int image_stat(int fd, struct stat *st, uint64_t *ret_size, hf_error **ret_error)
{
    uint64_t bytes = 0;
    char byte;

    if (fstat(fd, st) < 0)
        return hfc_error(ret_error, HF_ERR_BAD_RESOURCE, "cannot look at the image: %s",
                         strerror(errno));
    if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
        return hfc_error(ret_error, HF_ERR_BAD_RESOURCE,
                         "it is %s; an image is a regular file or a block device",
                         image_kind(st->st_mode));
    /* An O_PATH descriptor, or one that is only for writing, is told here. */
    if (pread(fd, &byte, 1, 0) < 0)
        return hfc_error(ret_error, errno == EBADF ? HF_ERR_BAD_RESOURCE : HF_ERR_STORAGE,
                         "cannot read the image: %s",
                         errno == EBADF ? "it is not open for reading" : strerror(errno));
    if (S_ISREG(st->st_mode))
        bytes = (uint64_t)st->st_size;
    else if (ioctl(fd, BLKGETSIZE64, &bytes) < 0)
        return hfc_error(ret_error, HF_ERR_STORAGE, "cannot tell the device's size: %s",
                         strerror(errno));
    *ret_size = bytes;
    return 0;
}

static bool image_same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* A writer meanwhile makes the verdict worthless. */
static int image_unchanged(int fd, const struct stat *before, hf_error **ret_error)
{
    struct stat now;

    if (fstat(fd, &now) < 0)
        return hfc_error(ret_error, HF_ERR_BAD_RESOURCE, "cannot look at the image again: %s",
                         strerror(errno));
    if (S_ISREG(now.st_mode) &&
        (now.st_size != before->st_size || !image_same_time(&now.st_mtim, &before->st_mtim)))
        return hfc_error(ret_error, HF_ERR_BAD_RESOURCE,
                         "the image has changed while it was checked; check it when nobody writes "
                         "to it");
    return 0;
}

static int image_died(int status, hf_error **ret_error)
{
    if (WIFSIGNALED(status))
        return hfc_error(ret_error, HF_ERR_INTERNAL,
                         "the process that checks the image was killed by signal %d%s",
                         WTERMSIG(status),
                         WTERMSIG(status) == SIGSYS ? ": it tried what it may not do" : "");
    return hfc_error(ret_error, HF_ERR_INTERNAL,
                     "the process that checks the image ended with status %d and no verdict",
                     WEXITSTATUS(status));
}

static int image_run(ImageCheck *check, const hf_image_options *options, hf_error **ret_error)
{
    unsigned timeout_ms = options->timeout_ms ? options->timeout_ms : IMAGE_TIMEOUT_MS;
    int status = 0;

    switch (sandbox_run(check, SANDBOX_CHECK, timeout_ms, &status)) {
    case SANDBOX_DONE:
        break;
    case SANDBOX_NO_SYSTEM:
        return hfc_error(ret_error, HF_ERR_INTERNAL,
                         "cannot start the process that checks the image: %s", strerror(errno));
    case SANDBOX_TIME_OVER:
        return hfc_error(ret_error, HF_ERR_TIMEOUT,
                         "the image could not be checked within %u ms: its storage is slow, or "
                         "does not answer",
                         timeout_ms);
    case SANDBOX_DIED:
        return image_died(status, ret_error);
    }
    if (check->verdict.failed)
        return hfc_error(ret_error, HF_ERR_STORAGE, "%s", check->verdict.reasons[0].sentence);
    return 0;
}

int hf_image_check(int fd, const hf_image_options *options, hf_image_result **ret_result,
                   hf_error **ret_error)
{
    const ImageFormat *format = NULL;
    ImageCheck *check;
    struct stat before;
    uint64_t size = 0;
    int code = hfc_image_options(options, &format, ret_error);

    if (code == 0)
        code = image_stat(fd, &before, &size, ret_error);
    if (code != 0)
        return code;
    /* Not from the heap: the child writes to it, and copies only what it touches. */
    check = mmap(NULL, sizeof(*check), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (check == MAP_FAILED)
        return hfc_no_memory(ret_error);
    check->format = format;
    check->max_size = hfc_image_max_size(options);
    check->fd = fd;
    check->size = size;
    code = image_run(check, options, ret_error);
    if (code == 0)
        code = image_unchanged(fd, &before, ret_error);
    if (code == 0)
        code = hfc_image_result(&check->verdict, options, ret_result, ret_error);
    munmap(check, sizeof(*check));
    return code;
}
