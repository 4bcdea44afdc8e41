/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk's image is checked before it is locked, for a client that tells its format. Runs in the
 * disk's lane: it opens and reads the image, which may take as long as storage likes. Nothing here
 * touches the engine.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "holdfast/image.h"

G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_image_result, hf_image_result_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_error, hf_error_free)

gboolean image_check_knows(const char *format)
{
    const char *known;

    for (gsize i = 0; (known = hf_image_format(i)); i++) {
        if (strcmp(known, format) == 0)
            return TRUE;
    }
    return strcmp(format, "vpc") == 0; /* QEMU's and libvirt's name for vhd */
}

/* The reasons in one sentence; all of them are in the image's own report, these are enough to go
 * on. */
static int image_check_refuse(struct hf_call *call, const char *path, const char *format,
                              const hf_image_result *result)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (gsize i = 0; i < hf_image_reasons_count(result); i++) {
        const hf_image_reason *reason = hf_image_reasons_get(result, i);

        g_string_append_printf(text, " %s: %s", reason->id, reason->sentence);
    }
    hf_call_error(call, HF_ERR_BAD_RESOURCE, 0, "the image %s, format %s, is not safe:%s", path,
                  format, text->str);
    return -1;
}

int image_check_disk(const char *path, const char *format, struct hf_call *call)
{
    const hf_image_options options = {.size = sizeof(options), .format = format};
    g_autoptr(hf_image_result) result = NULL;
    g_autoptr(hf_error) error = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), code;

    if (fd < 0) {
        code = errno;
        hf_call_error(call, HF_ERR_BAD_RESOURCE, code, "cannot open %s to check the image: %s",
                      path, g_strerror(code));
        return -1;
    }
    code = hf_image_check(fd, &options, &result, &error);
    close(fd);
    if (code < 0) {
        hf_call_error(call, HF_ERR_BAD_RESOURCE, 0, "cannot check the image %s, format %s: %s",
                      path, format, hf_error_message(error));
        return -1;
    }
    return hf_image_is_safe(result) ? 0 : image_check_refuse(call, path, format, result);
}
