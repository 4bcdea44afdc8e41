/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options by which verbs are told what is wanted; see wanted.h. */
#include "domain-xml.h"

static void wanted_set_uuid(Wanted *wanted, CliParser *parser, const char *text)
{
    g_free(wanted->uuid);
    wanted->uuid = wanted_parse_uuid(text);
    if (!wanted->uuid)
        parser->status = cli_usage_error(parser->cli, "'%s' is no UUID", text);
}

static void wanted_set_text(CliParser *parser, char **member, const char *option, const char *text)
{
    g_free(*member);
    *member = g_strdup(text);
    if (!*text || !g_utf8_validate(text, -1, NULL))
        parser->status = cli_usage_error(parser->cli, "--%s needs a text in UTF-8", option);
}

gboolean wanted_option(Wanted *wanted, CliParser *parser, int id, const char *argument)
{
    g_autoptr(GError) error = NULL;

    switch (id) {
    case 'd':
        wanted_add_disk(wanted, argument, &error);
        break;
    case 'l':
        wanted_add_lease(wanted, argument, &error);
        break;
    case 'n':
        wanted_set_text(parser, &wanted->name, "name", argument);
        break;
    case 'u':
        wanted_set_uuid(wanted, parser, argument);
        break;
    case 'p':
        if (!cli_parse_pid(argument, &wanted->pid))
            parser->status = cli_usage_error(parser->cli, "'%s' is no process id", argument);
        break;
    case WANTED_URI:
        wanted_set_text(parser, &wanted->uri, "uri", argument);
        break;
    case WANTED_DOMAIN:
        wanted_set_text(parser, &wanted->domain, "domain", argument);
        break;
    default:
        return FALSE;
    }
    if (error)
        parser->status = cli_usage_error(parser->cli, "%s", error->message);
    return parser->status < 0;
}

gboolean wanted_finish(Wanted *wanted, const Cli *cli)
{
    g_autoptr(Wanted) domain = NULL;
    g_autoptr(GError) error = NULL;

    if (!wanted->domain)
        return TRUE;
    domain = wanted_new();
    if (!domain_xml_available(&error) || !domain_xml_load(wanted->domain, domain, &error)) {
        cli_fail(cli, "InvalidArgument", "%s", error->message);
        return FALSE;
    }
    if (!wanted->name)
        wanted->name = g_steal_pointer(&domain->name);
    if (!wanted->uuid)
        wanted->uuid = g_steal_pointer(&domain->uuid);
    g_ptr_array_extend_and_steal(wanted->disks, g_steal_pointer(&domain->disks));
    g_ptr_array_extend_and_steal(wanted->leases, g_steal_pointer(&domain->leases));
    g_ptr_array_extend_and_steal(wanted->images, g_steal_pointer(&domain->images));
    domain->disks = g_ptr_array_new();
    domain->images = g_ptr_array_new();
    domain->leases = g_ptr_array_new();
    for (guint i = 0; i < domain->warnings->len; i++)
        cli_note(cli, "warning: %s", (const char *)g_ptr_array_index(domain->warnings, i));
    return TRUE;
}
