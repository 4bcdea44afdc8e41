/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A record of the log as text, as JSON and for the journal, from one list of fields. Values that
 * others chose (a VM's name, a cgroup) cannot end a line or a field. Pure functions.
 */
#include <string.h>

#include "prhelper/audit.h"
#include "prhelper/spc-out.h"

#define IDENTIFIER "holdfast-pr-helper"

typedef struct Field {
    const char *name; /* as in JSON; the journal's is HOLDFAST_PR_NAME */
    char *value;
    gboolean number;
} Field;

static void field_clear(gpointer data)
{
    g_free(((Field *)data)->value);
}

/* Takes the value over; NULL: the record has none. */
static void fields_add(GArray *fields, const char *name, char *value, gboolean number)
{
    const Field field = {.name = name, .value = value, .number = number};

    if (value)
        g_array_append_val(fields, field);
}

static char *format_time(gint64 usec)
{
    g_autoptr(GDateTime) seconds = g_date_time_new_from_unix_utc(usec / G_USEC_PER_SEC);
    g_autofree char *text = seconds ? g_date_time_format(seconds, "%Y-%m-%dT%H:%M:%S") : NULL;

    return g_strdup_printf("%s.%06dZ", text ? text : "1970-01-01T00:00:00",
                           (int)(usec % G_USEC_PER_SEC));
}

static const char *format_status(gint32 status)
{
    switch (status) {
    case SPC_STATUS_GOOD:
        return "GOOD";
    case SPC_STATUS_CHECK_CONDITION:
        return "CHECK CONDITION";
    case SPC_STATUS_BUSY:
        return "BUSY";
    case SPC_STATUS_RESERVATION_CONFLICT:
        return "RESERVATION CONFLICT";
    case SPC_STATUS_TASK_SET_FULL:
        return "TASK SET FULL";
    case SPC_STATUS_TASK_ABORTED:
        return "TASK ABORTED";
    default:
        return "unknown status";
    }
}

static char *format_sense(const PrReply *reply)
{
    SpcSense sense = pr_sense_read(reply->sense, SPC_SENSE_SIZE);

    if (reply->status != SPC_STATUS_CHECK_CONDITION)
        return NULL;
    return g_strdup_printf("%x/%02x/%02x", sense.key, sense.asc, sense.ascq);
}

static const char *format_verdict(const PrRecord *record)
{
    if (!record->backend)
        return "refused";
    return record->decision && record->decision->verdict == PR_WARN ? "warned" : "allowed";
}

static void fields_add_peer(GArray *fields, const PrPeer *peer)
{
    fields_add(fields, "vm", g_strdup(peer->vm), FALSE);
    if (peer->pid > 0)
        fields_add(fields, "pid", g_strdup_printf("%d", (int)peer->pid), TRUE);
    fields_add(fields, "uid", g_strdup_printf("%u", (guint)peer->uid), TRUE);
    fields_add(fields, "gid", g_strdup_printf("%u", (guint)peer->gid), TRUE);
    fields_add(fields, "cgroup", g_strdup(peer->cgroup), FALSE);
    fields_add(fields, "label", g_strdup(peer->label), FALSE);
}

static void fields_add_command(GArray *fields, const PrCommand *command)
{
    gboolean is_out = command->opcode == SPC_OUT_OPCODE;

    fields_add(fields, "device", *command->device->wwid ? g_strdup(command->device->wwid) : NULL,
               FALSE);
    fields_add(fields, "disk", *command->device->name ? g_strdup(command->device->name) : NULL,
               FALSE);
    fields_add(fields, "kind", g_strdup(pr_kind_name(command->device->kind)), FALSE);
    fields_add(fields, "action", g_strdup(pr_action_name(command->opcode, command->action)), FALSE);
    if (is_out && spc_out_has_type((SpcOutAction)command->action))
        fields_add(fields, "type", g_strdup(spc_type_abbreviation(command->type)), FALSE);
    if (is_out && command->has_parameters) {
        fields_add(fields, "key",
                   g_strdup_printf("0x%" G_GINT64_MODIFIER "x", command->parameters.key), FALSE);
        fields_add(fields, "service_key",
                   g_strdup_printf("0x%" G_GINT64_MODIFIER "x", command->parameters.service_key),
                   FALSE);
    }
}

static GArray *record_fields(const PrRecord *record)
{
    GArray *fields = g_array_new(FALSE, FALSE, sizeof(Field));

    g_array_set_clear_func(fields, field_clear);
    fields_add(fields, "time", format_time(record->time_usec), FALSE);
    if (record->command->peer)
        fields_add_peer(fields, record->command->peer);
    fields_add_command(fields, record->command);
    fields_add(fields, "result", g_strdup(format_status(record->reply->status)), FALSE);
    fields_add(fields, "status", g_strdup_printf("%d", record->reply->status), TRUE);
    fields_add(fields, "sense", format_sense(record->reply), FALSE);
    fields_add(fields, "verdict", g_strdup(format_verdict(record)), FALSE);
    fields_add(fields, "reason", g_strdup(record->reason), FALSE);
    fields_add(fields, "backend", g_strdup(record->backend), FALSE);
    fields_add(fields, "latency_usec",
               g_strdup_printf("%" G_GINT64_FORMAT, MAX(record->latency_usec, 0)), TRUE);
    return fields;
}

/* ---- JSON and text --------------------------------------------------------------------------- */

static void append_escaped(GString *line, const char *text)
{
    g_string_append_c(line, '"');
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\')
            g_string_append_printf(line, "\\%c", *p);
        else if ((guchar)*p < ' ' || *p == 0x7f)
            g_string_append_printf(line, "\\u%04x", (guchar)*p);
        else
            g_string_append_c(line, *p);
    }
    g_string_append_c(line, '"');
}

GString *pr_audit_format_json(const PrRecord *record)
{
    g_autoptr(GArray) fields = record_fields(record);
    GString *line = g_string_new("{");

    for (guint i = 0; i < fields->len; i++) {
        const Field *field = &g_array_index(fields, Field, i);

        g_string_append_printf(line, "%s\"%s\":", i > 0 ? "," : "", field->name);
        if (field->number)
            g_string_append(line, field->value);
        else
            append_escaped(line, field->value);
    }
    g_string_append(line, "}\n");
    return line;
}

static gboolean is_plain(const char *text)
{
    if (!*text)
        return FALSE;
    for (; *text; text++) {
        if ((guchar)*text <= ' ' || *text == '"' || *text == '=' || *text == '\\' || *text == 0x7f)
            return FALSE;
    }
    return TRUE;
}

GString *pr_audit_format_text(const PrRecord *record)
{
    g_autoptr(GArray) fields = record_fields(record);
    GString *line = g_string_new(NULL);

    /* the time stands in front without a name, so that lines can be sorted */
    for (guint i = 0; i < fields->len; i++) {
        const Field *field = &g_array_index(fields, Field, i);

        if (i > 0)
            g_string_append_printf(line, " %s=", field->name);
        if (is_plain(field->value))
            g_string_append(line, field->value);
        else
            append_escaped(line, field->value);
    }
    g_string_append_c(line, '\n');
    return line;
}

/* ---- the journal ----------------------------------------------------------------------------- */

/* NAME=VALUE, or where the value has a newline NAME, its length in 64 bits, little-endian, VALUE.
 */
static void journal_append(GString *datagram, const char *name, const char *value)
{
    guint64 len = GUINT64_TO_LE((guint64)strlen(value));

    if (!strchr(value, '\n')) {
        g_string_append_printf(datagram, "%s=%s\n", name, value);
        return;
    }
    g_string_append_printf(datagram, "%s\n", name);
    g_string_append_len(datagram, (const char *)&len, sizeof(len));
    g_string_append_printf(datagram, "%s\n", value);
}

static char *journal_message(const PrRecord *record)
{
    const PrCommand *command = record->command;
    const PrPeer *peer = command->peer;
    GString *text = g_string_new(NULL);

    g_string_append(text, peer && peer->vm ? peer->vm : "a process");
    if (peer && peer->pid > 0)
        g_string_append_printf(text, " (pid %d)", (int)peer->pid);
    g_string_append_printf(text, ": %s", pr_action_name(command->opcode, command->action));
    if (command->opcode == SPC_OUT_OPCODE && command->has_parameters)
        g_string_append_printf(text, " key 0x%" G_GINT64_MODIFIER "x", command->parameters.key);
    if (command->opcode == SPC_OUT_OPCODE && command->has_parameters &&
        command->parameters.service_key)
        g_string_append_printf(text, " to 0x%" G_GINT64_MODIFIER "x",
                               command->parameters.service_key);
    if (*command->device->name)
        g_string_append_printf(text, " on %s%s%s", command->device->name,
                               *command->device->wwid ? " " : "", command->device->wwid);
    g_string_append_printf(text, ": %s", format_status(record->reply->status));
    if (record->reason)
        g_string_append_printf(text, " (%s)", record->reason);
    return g_string_free(text, FALSE);
}

GString *pr_audit_format_journal(const PrRecord *record)
{
    g_autoptr(GArray) fields = record_fields(record);
    g_autofree char *message = journal_message(record);
    GString *datagram = g_string_new(NULL);

    journal_append(datagram, "MESSAGE", message);
    journal_append(datagram, "MESSAGE_ID", PR_AUDIT_MESSAGE_ID);
    /* LOG_INFO, and LOG_WARNING for what was refused or warned about */
    journal_append(datagram, "PRIORITY", record->reason ? "4" : "6");
    journal_append(datagram, "SYSLOG_IDENTIFIER", IDENTIFIER);
    for (guint i = 0; i < fields->len; i++) {
        const Field *field = &g_array_index(fields, Field, i);
        g_autofree char *upper = g_ascii_strup(field->name, -1);
        g_autofree char *name = g_strconcat("HOLDFAST_PR_", upper, NULL);

        journal_append(datagram, name, field->value);
    }
    return datagram;
}
