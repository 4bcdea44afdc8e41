/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hf_image_copy(): a stream becomes a file only if it is a safe image. The copy has no name while
 * it is written and checked; what is checked is the copy, so nobody can change it afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/image-internal.h"

/* Large enough for system calls not to count, small enough for the cache of a core. */
#define COPY_STEP ((size_t)256 << 10)
/* As splice() goes, a pipe of 1 MiB (the kernel's limit for everybody) holds a step. */
#define COPY_PIPE (1 << 20)

typedef struct Copy {
    int from;
    int to;
    uint64_t bytes; /* so far */
    uint64_t limit; /* of a stream that can still be an image within the size limit */
    char *path;     /* of the directory's entry, where the file system needs one; or NULL */
} Copy;

/* ---- the file ------------------------------------------------------------------------------- */

/* The directory of `path`, to free(). */
static char *copy_directory(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return strdup(".");
    if (slash == path)
        return strdup("/");
    return strndup(path, (size_t)(slash - path));
}

static char *copy_scratch(void)
{
    const char *tmp = getenv("TMPDIR");

    return strdup(tmp && *tmp ? tmp : "/var/tmp");
}

static int copy_open(Copy *copy, const char *path, hf_error **ret_error)
{
    char *directory = path ? copy_directory(path) : copy_scratch();
    int code = 0;

    if (!directory)
        return hfc_no_memory(ret_error);
    copy->to = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    /* NFS, and others that cannot have files without a name */
    if (copy->to < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
        if (asprintf(&copy->path, "%s/.holdfast-XXXXXX", directory) < 0) {
            copy->path = NULL;
            code = hfc_no_memory(ret_error);
        } else {
            copy->to = mkostemp(copy->path, O_CLOEXEC);
        }
    }
    if (code == 0 && copy->to < 0)
        code = hfc_error(ret_error, HF_ERR_STORAGE, "cannot make a file in %s: %s", directory,
                         strerror(errno));
    if (copy->to < 0) {
        free(copy->path);
        copy->path = NULL;
    } else if (copy->path && !path) {
        unlink(copy->path);
        free(copy->path);
        copy->path = NULL;
    }
    free(directory);
    return code;
}

/* Gives the copy its name, if nothing has it. */
static int copy_publish(Copy *copy, const char *path, hf_error **ret_error)
{
    char self[64];
    int result;

    if (copy->path) {
        result = link(copy->path, path);
    } else {
        snprintf(self, sizeof(self), "/proc/self/fd/%d", copy->to);
        result = linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
    }
    if (result < 0)
        return hfc_error(ret_error, HF_ERR_STORAGE, "the image is safe, but cannot become %s: %s",
                         path, strerror(errno));
    return 0;
}

static void copy_close(Copy *copy)
{
    if (copy->path)
        unlink(copy->path);
    free(copy->path);
    if (copy->to >= 0)
        close(copy->to);
}

/* ---- the bytes ------------------------------------------------------------------------------ */

typedef ssize_t (*CopyStep)(Copy *copy, char *buffer);

static ssize_t copy_step_range(Copy *copy, char *buffer)
{
    (void)buffer;
    return copy_file_range(copy->from, NULL, copy->to, NULL, (size_t)16 << 20, 0);
}

static ssize_t copy_step_splice(Copy *copy, char *buffer)
{
    (void)buffer;
    return splice(copy->from, NULL, copy->to, NULL, COPY_PIPE, SPLICE_F_MOVE);
}

static ssize_t copy_step_plain(Copy *copy, char *buffer)
{
    ssize_t n = read(copy->from, buffer, COPY_STEP), written = 0;

    while (n > 0 && written < n) {
        ssize_t m = write(copy->to, buffer + written, (size_t)(n - written));

        if (m < 0 && errno == EINTR)
            continue;
        if (m < 0)
            return -1;
        written += m;
    }
    return n;
}

/* The fastest that the source can do; the first step tells whether it really can. */
static CopyStep copy_choose(const Copy *copy)
{
    struct stat st;

    if (fstat(copy->from, &st) < 0)
        return copy_step_plain;
    if (S_ISREG(st.st_mode))
        return copy_step_range;
    if (!S_ISFIFO(st.st_mode))
        return copy_step_plain;
    fcntl(copy->from, F_SETPIPE_SZ, COPY_PIPE); /* if it may */
    return copy_step_splice;
}

static int copy_bytes(Copy *copy, hf_error **ret_error)
{
    CopyStep step = copy_choose(copy);
    char *buffer = malloc(COPY_STEP);
    ssize_t n = 1;

    if (!buffer)
        return hfc_no_memory(ret_error);
    while (n > 0 && copy->bytes <= copy->limit) {
        n = step(copy, buffer);
        if (n < 0 && errno == EINTR) {
            n = 1;
        } else if (n < 0 && step != copy_step_plain && copy->bytes == 0 &&
                   (errno == EINVAL || errno == EXDEV || errno == ENOSYS || errno == EOPNOTSUPP)) {
            step = copy_step_plain;
            n = 1;
        } else if (n > 0) {
            copy->bytes += (uint64_t)n;
        }
    }
    free(buffer);
    if (n < 0)
        return hfc_error(ret_error, HF_ERR_STORAGE, "cannot copy the image after %llu bytes: %s",
                         (unsigned long long)copy->bytes, strerror(errno));
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------ */

/*
 * How long a file can be whose disk has at most `max_size` bytes. A raw one has no more. Other
 * formats add tables, and keep snapshots' data: twice the disk and 64 MiB is more than an honest
 * upload has, and a bound for a hostile one.
 */
static uint64_t copy_limit(const ImageFormat *format, uint64_t max_size)
{
    const uint64_t spare = (uint64_t)64 << 20;

    if (!format->recognise)
        return max_size;
    return max_size < (UINT64_MAX - spare) / 2 ? 2 * max_size + spare : UINT64_MAX;
}

static int copy_too_long(const Copy *copy, const hf_image_options *options,
                         hf_image_result **ret_result, hf_error **ret_error)
{
    ImageVerdict verdict = {
        .n_reasons = 1,
        .reasons[0] = {.id = IMAGE_SIZE_LIMIT, .offset = copy->limit},
    };

    snprintf(verdict.reasons[0].sentence, IMAGE_MAX_SENTENCE,
             "The stream has more than %llu bytes, the most that an image of the allowed size may "
             "have; it was not read to its end.",
             (unsigned long long)copy->limit);
    return hfc_image_result(&verdict, options, ret_result, ret_error);
}

static int copy_check(Copy *copy, const char *path, const hf_image_options *options,
                      hf_image_result **ret_result, hf_error **ret_error)
{
    hf_image_result *result = NULL;
    int code = copy_bytes(copy, ret_error);

    if (code != 0)
        return code;
    /* Not to be allowed: there is no copy of the rest. */
    if (copy->bytes > copy->limit) {
        hf_image_options strict = *options;

        strict.allow = NULL;
        return copy_too_long(copy, &strict, ret_result, ret_error);
    }
    code = hf_image_check(copy->to, options, &result, ret_error);
    if (code == 0 && path && hf_image_is_safe(result))
        code = copy_publish(copy, path, ret_error);
    if (code == 0 && ret_result)
        *ret_result = result;
    else
        hf_image_result_free(result);
    return code;
}

int hf_image_copy(int fd, const char *path, const hf_image_options *options,
                  hf_image_result **ret_result, hf_error **ret_error)
{
    const ImageFormat *format = NULL;
    Copy copy = {.from = fd, .to = -1};
    int code = hfc_image_options(options, &format, ret_error);

    if (code != 0)
        return code;
    if (path && faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return hfc_error(ret_error, HF_ERR_STORAGE, "%s exists, and nothing is replaced", path);
    copy.limit = copy_limit(format, hfc_image_max_size(options));
    code = copy_open(&copy, path, ret_error);
    if (code == 0)
        code = copy_check(&copy, path, options, ret_result, ret_error);
    copy_close(&copy);
    return code;
}
