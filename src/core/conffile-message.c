/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The messages of the configuration files' reader; see conffile.h. */
#include "core/conffile-private.h"

#include <string.h>

GQuark conffile_error_quark(void)
{
    return g_quark_from_static_string("holdfast-conffile-error");
}

const char *conffile_type_name(ConfType type)
{
    static const char *const names[] = {
        [CONF_NUMBER] = "a number",
        [CONF_STRING] = "a string",
        [CONF_LIST] = "a list",
    };

    return names[type];
}

char *conffile_quote(const char *bytes, gssize len)
{
    gsize size = len < 0 ? strlen(bytes) : (gsize)len;
    GString *quoted = g_string_new("'");
    gsize i = 0;

    while (i < size && i < CONFFILE_QUOTE_MAX) {
        const char *at = bytes + i;
        gunichar c = g_utf8_get_char_validated(at, (gssize)(size - i));

        if (c != (gunichar)-1 && c != (gunichar)-2 && !g_unichar_iscntrl(c)) {
            g_string_append_unichar(quoted, c);
            i += (gsize)(g_utf8_next_char(at) - at);
        } else {
            g_string_append_printf(quoted, "\\x%02x", (guint)(guchar)*at);
            i++;
        }
    }
    if (i < size)
        g_string_append(quoted, "...");
    g_string_append_c(quoted, '\'');
    return g_string_free(quoted, FALSE);
}

/** The "FILE:LINE: " in front of a message; line 0 stands for the whole file. */
static char *conffile_prefix(const char *name, guint line)
{
    g_autofree char *display = g_filename_display_name(name);

    return line > 0 ? g_strdup_printf("%s:%u: ", display, line) : g_strdup_printf("%s: ", display);
}

void conffile_set_error(GError **error, const char *name, guint line, int code, const char *format,
                        ...)
{
    g_autofree char *prefix = conffile_prefix(name, line);
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(error, CONFFILE_ERROR, code, "%s%s", prefix, text);
}

const char *conffile_error_text(const GError *error, const char *name, guint *ret_line)
{
    g_autofree char *prefix = conffile_prefix(name, 0);
    /* After "FILE:" comes a space, or a line number that has ": " behind it. */
    char *text = error->message + strlen(prefix) - 1;

    *ret_line = 0;
    if (g_ascii_isdigit(*text)) {
        *ret_line = (guint)g_ascii_strtoull(text, &text, 10);
        text++;
    }
    return text + 1;
}
