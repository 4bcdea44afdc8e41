/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Acquires what is wanted, once or, with --wait, until it is free or the time is over. See
 * wanted.h.
 */
#include <string.h>
#include <unistd.h>

#include "wanted.h"

/* Between two attempts. The first ones come quickly, for a VM that is just being shut down; later
 * ones are as seldom as a person does not notice, for each costs the holder's host nothing but
 * this one and the storage a lock operation. */
#define OBTAIN_PAUSE_MIN (50 * G_TIME_SPAN_MILLISECOND)
#define OBTAIN_PAUSE_MAX (1000 * G_TIME_SPAN_MILLISECOND)

/* "VM web1 (pid 4711) on host n3 to let go of /srv/a.img", from a Busy error. */
static char *obtain_awaited(const hf_error *error)
{
    g_autoptr(CliJson) object = json_tokener_parse(hf_error_json(error));
    CliJson *data = cli_json_object(object, "data");
    CliJson *holders = cli_json_array(data, "holders");
    g_autofree char *thing = cli_describe_thing(data);
    GString *out = g_string_new(NULL);

    for (gsize i = 0; i < cli_json_length(holders); i++) {
        CliJson *holder = cli_json_at(holders, i);
        g_autofree char *who = cli_describe_owner(holder);
        const char *host = cli_json_string(holder, "host");

        g_string_append_printf(out, "%s%s%s%s", i ? " and " : "", who, host ? " on host " : "",
                               host ? host : "");
    }
    g_string_append_printf(out, "%s to let go of %s", out->len ? "" : "somebody", thing);
    return g_string_free(out, FALSE);
}

/* Says who is waited for, at once, and again when it is somebody else. */
static void obtain_tell(const Cli *cli, const hf_error *error, double wait, char **awaited,
                        CliProgress **progress)
{
    g_autofree char *now = obtain_awaited(error);
    g_autofree char *what = NULL;

    if (g_strcmp0(now, *awaited) == 0)
        return;
    cli_progress_stop(*progress);
    cli_note(cli, "waiting up to %g s for %s", wait, now);
    what = g_strdup_printf("still waiting for %s", now);
    *progress = cli_progress_start(cli, what, wait);
    g_free(*awaited);
    *awaited = g_steal_pointer(&now);
}

/* A disk that is not there, and ends with what looks like a mode. */
static const char *obtain_odd_mode(const Wanted *wanted)
{
    for (guint i = 0; i < wanted->disks->len; i++) {
        const WantedDisk *disk = g_ptr_array_index(wanted->disks, i);
        const char *comma = strrchr(disk->path, ',');

        if (comma && !strpbrk(comma, "./") && access(disk->path, F_OK) < 0)
            return comma + 1;
    }
    return NULL;
}

static void obtain_hint(const Cli *cli, const hf_error *error, const Wanted *wanted, double wait)
{
    const char *odd;

    if (hf_error_code(error) == HF_ERR_BUSY && wait <= 0)
        cli_note(cli, "hint: --wait SECONDS waits until it is free");
    else if (hf_error_code(error) == HF_ERR_LEASE_REQUIRED)
        cli_note(cli, "hint: name the lease with --lease DIR:KEY");
    else if (hf_error_code(error) == HF_ERR_BAD_RESOURCE && (odd = obtain_odd_mode(wanted)))
        cli_note(cli, "hint: '%s' is no mode; there are exclusive, shared and ro", odd);
}

int cli_obtain(const Cli *cli, hf_client *client, const Wanted *wanted, double wait,
               CliJson **ret_value)
{
    g_autoptr(CliJson) arguments = wanted_to_acquire(wanted);
    g_autofree char *awaited = NULL;
    gint64 end = g_get_monotonic_time() + (gint64)(wait * (double)G_USEC_PER_SEC);
    gint64 pause = OBTAIN_PAUSE_MIN;
    CliProgress *progress = NULL;
    Cli silent = *cli;

    silent.quiet = TRUE; /* one progress at a time */
    for (;;) {
        g_autoptr(hf_error) error = NULL;
        gint64 left;

        *ret_value = cli_ask(progress ? &silent : cli, client, "acquire", arguments, &error);
        left = end - g_get_monotonic_time();
        if (*ret_value || hf_error_code(error) != HF_ERR_BUSY || left <= 0) {
            int status = CLI_OK;

            cli_progress_stop(progress);
            if (!*ret_value) {
                status = cli_report(cli, error);
                obtain_hint(cli, error, wanted, wait);
            }
            return status;
        }
        obtain_tell(cli, error, wait, &awaited, &progress);
        g_usleep((gulong)MIN(pause, left));
        pause = MIN(pause * 3 / 2, OBTAIN_PAUSE_MAX);
    }
}
