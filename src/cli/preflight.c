/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast run --check: before a command gets the disks of a domain, are their images safe? The
 * format is the one that the domain's XML tells, which is what libvirt would tell QEMU. It comes
 * after the locks: nobody else writes to the images meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "image.h"
#include "wanted.h"

static const char *const preflight_modes[] = {"off", "warn", "enforce", NULL};

gboolean preflight_parse(const char *text, Preflight *ret_mode)
{
    for (gsize i = 0; preflight_modes[i]; i++) {
        if (strcmp(preflight_modes[i], text) == 0) {
            *ret_mode = (Preflight)i;
            return TRUE;
        }
    }
    return FALSE;
}

/* "is not safe: NAME: SENTENCE NAME: SENTENCE", of what is not allowed. */
static char *preflight_reasons(const hf_image_result *result)
{
    GString *text = g_string_new("is not safe:");

    for (gsize i = 0; i < hf_image_reasons_count(result); i++) {
        const hf_image_reason *reason = hf_image_reasons_get(result, i);

        if (!reason->allowed)
            g_string_append_printf(text, " %s: %s", reason->id, reason->sentence);
    }
    return g_string_free(text, FALSE);
}

/* What is wrong with the image, or NULL. */
static char *preflight_image(const WantedImage *image)
{
    g_autoptr(hf_image_result) result = NULL;
    g_autoptr(hf_error) error = NULL;
    const char *allow[3] = {NULL};
    gsize n = 0;
    const hf_image_options options = {
        .size = sizeof(options), .format = image->format, .allow = allow};
    int fd, code;

    /* A backing file that the XML names, or takes away, is not looked up in the image. */
    if (image->has_backing)
        allow[n++] = "backing-file";
    if (image->is_cdrom)
        allow[n++] = "also-iso";
    if (!cli_image_is_format(image->format))
        return g_strdup("cannot be checked: there is no check for that format");
    fd = open(image->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return g_strdup_printf("cannot be checked: %s", g_strerror(errno));
    code = hf_image_check(fd, &options, &result, &error);
    close(fd);
    if (code < 0)
        return g_strdup_printf("cannot be checked: %s", hf_error_message(error));
    return hf_image_is_safe(result) ? NULL : preflight_reasons(result);
}

int preflight(const Cli *cli, const Wanted *wanted, Preflight mode)
{
    int status = CLI_OK;

    for (guint i = 0; mode != PREFLIGHT_OFF && i < wanted->images->len; i++) {
        const WantedImage *image = g_ptr_array_index(wanted->images, i);
        g_autofree char *wrong = preflight_image(image);
        g_autofree char *path = cli_safe(image->path);

        if (wrong && mode == PREFLIGHT_ENFORCE)
            status = cli_fail(cli, "UnsafeImage", "the image %s, format %s, %s", path,
                              image->format, wrong);
        else if (wrong)
            cli_note(cli, "warning: the image %s, format %s, %s", path, image->format, wrong);
    }
    if (status != CLI_OK)
        cli_note(cli, "hint: 'holdfast image check' tells where in the image; --check warn starts "
                      "the command all the same");
    return status;
}
