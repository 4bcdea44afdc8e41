/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A driver made outside of Holdfast, as an example and as a test of the driver API: it uses nothing
 * but <holdfast/driver.h> and the C library.
 *
 *     cc -shared -fPIC -o exclfile.so example-driver.c $(pkg-config --cflags holdfast-driver)
 *
 * "exclfile" locks by making files that must not exist yet (O_EXCL), in a directory that all hosts
 * share:
 *
 *     default_driver = "exclfile"
 *     driver_config = [ "exclfile.directory=/srv/locks" ]
 *
 * The file has a line for each fact about the holder. Nothing removes it when its host crashes: an
 * administrator has to, once he is sure that the VM is gone. That is why real drivers lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <holdfast/driver.h>

#define FACTS 6
#define LINE_MAX 4096

static char *directory; /* set before there are threads, then only read */

/* ---- settings -------------------------------------------------------------------------- */

static int exclfile_config(struct hf_call *call, const char *key, const char *value)
{
    if (strcmp(key, "directory") != 0) {
        hf_call_error(call, HF_ERR_INVALID_ARGUMENT, 0,
                      "exclfile has no setting '%s': it has 'directory'", key);
        return -1;
    }
    free(directory);
    directory = strdup(value);
    return 0;
}

static int exclfile_config_complete(struct hf_call *call)
{
    struct stat st;

    if (!directory) {
        hf_call_error(call, HF_ERR_INVALID_ARGUMENT, 0,
                      "where are the lock files? set exclfile.directory");
        return -1;
    }
    if (stat(directory, &st) < 0 || !S_ISDIR(st.st_mode)) {
        hf_call_error(call, HF_ERR_INVALID_ARGUMENT, ENOTDIR, "'%s' is no directory; make it first",
                      directory);
        return -1;
    }
    return 0;
}

static void exclfile_unload(void)
{
    free(directory);
    directory = NULL;
}

/* ---- names ----------------------------------------------------------------------------- */

/* The path of a lock file: "SPACE:KEY" with every odd byte as %NN, in the directory. */
static char *exclfile_path(const char *space, const char *key)
{
    const char *parts[] = {space, key};
    size_t size = strlen(directory) + 3 * (strlen(space) + strlen(key)) + 3;
    char *path = malloc(size);
    char *out;

    if (!path)
        abort();
    out = path + sprintf(path, "%s/", directory);
    for (int i = 0; i < 2; i++) {
        for (const char *p = parts[i]; *p; p++)
            if (strchr("/%:.", *p))
                out += sprintf(out, "%%%02X", (unsigned char)*p);
            else
                *out++ = *p;
        *out++ = i == 0 ? ':' : '\0';
    }
    return path;
}

static int exclfile_fail(struct hf_call *call, const char *what, const char *path, int err)
{
    hf_call_error(call, err == ENAMETOOLONG ? HF_ERR_BAD_RESOURCE : HF_ERR_STORAGE, err,
                  "cannot %s lock file '%s': %s; check the directory", what, path, strerror(err));
    return -1;
}

/* ---- the holder, in a file ------------------------------------------------------------- */

static int exclfile_write(int fd, const struct hf_holder *owner)
{
    FILE *file = fdopen(fd, "w");
    int bad;

    if (!file) {
        close(fd);
        return -1;
    }
    fprintf(file, "%s\n%s\n%s\n%d\n%s\n%" PRId64 "\n", owner->disk ? owner->disk : "",
            owner->name ? owner->name : "", owner->uuid ? owner->uuid : "", (int)owner->pid,
            owner->host ? owner->host : "", owner->since_usec);
    bad = ferror(file);
    return fclose(file) != 0 || bad ? -1 : 0;
}

/* Tells the call who holds the resource; what is missing in the file is not known. */
static void exclfile_tell(struct hf_call *call, const char *path)
{
    static const char unknown[] = "";
    char lines[FACTS][LINE_MAX] = {{0}};
    struct hf_holder holder = {.from_record = 1, .mode = HF_MODE_EXCLUSIVE};
    const char **texts[FACTS] = {&holder.disk, &holder.name, &holder.uuid,
                                 NULL,         &holder.host, NULL};
    FILE *file = fopen(path, "re");

    if (!file) {
        hf_call_holder(call, &holder);
        return;
    }
    for (int i = 0; i < FACTS && fgets(lines[i], LINE_MAX, file); i++) {
        lines[i][strcspn(lines[i], "\n")] = '\0';
        if (texts[i])
            *texts[i] = strcmp(lines[i], unknown) == 0 ? NULL : lines[i];
    }
    fclose(file);
    holder.pid = atoi(lines[3]);
    holder.since_usec = strtoll(lines[5], NULL, 10);
    hf_call_holder(call, &holder);
}

/* ---- locking --------------------------------------------------------------------------- */

static int exclfile_acquire(struct hf_call *call, void *space, const struct hf_resource *resource,
                            const struct hf_holder *owner, void **ret_handle)
{
    char *path;
    int fd, err;

    (void)space;
    if (resource->mode != HF_MODE_EXCLUSIVE) {
        hf_call_error(call, HF_ERR_INVALID_ARGUMENT, ENOTSUP,
                      "exclfile cannot share '%s'; use it for exclusive disks only", resource->key);
        return -1;
    }
    path = exclfile_path(resource->space, resource->key);
    hf_call_claim(call, "exclfile:%s", path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0 && exclfile_write(fd, owner) == 0) {
        *ret_handle = path;
        return 0;
    }
    err = errno;
    if (fd >= 0) {
        unlink(path);
        exclfile_fail(call, "write", path, err);
    } else if (err == EEXIST) {
        exclfile_tell(call, path);
        hf_call_error(call, HF_ERR_BUSY, err, NULL);
    } else {
        exclfile_fail(call, "make", path, err);
    }
    free(path);
    return -1;
}

static int exclfile_release(struct hf_call *call, void *space, void *handle)
{
    char *path = handle;
    int r = unlink(path);

    (void)space;
    if (r < 0)
        exclfile_fail(call, "remove", path, errno);
    free(path);
    return r;
}

static int exclfile_verify(struct hf_call *call, void *space, void *handle)
{
    (void)space;
    if (access(handle, F_OK) == 0)
        return 0;
    return exclfile_fail(call, "find", handle, errno);
}

static int exclfile_holder(struct hf_call *call, void *space, const struct hf_resource *resource,
                           int *ret_free)
{
    char *path = exclfile_path(resource->space, resource->key);

    (void)space;
    hf_call_claim(call, "exclfile:%s", path);
    *ret_free = access(path, F_OK) < 0;
    if (!*ret_free)
        exclfile_tell(call, path);
    free(path);
    return 0;
}

static const struct hf_driver exclfile = {
    .size = sizeof(struct hf_driver),
    .api_version = HF_DRIVER_API,
    .name = "exclfile",
    .version = "1.0",
    .description = "files that must not exist yet, in one directory",
    .capabilities = HF_HAS_HOST,
    .config = exclfile_config,
    .config_complete = exclfile_config_complete,
    .unload = exclfile_unload,
    .acquire = exclfile_acquire,
    .release = exclfile_release,
    .verify = exclfile_verify,
    .holder = exclfile_holder,
};

HF_REGISTER_DRIVER(exclfile)
