/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reader of configuration files: what it accepts, with which values and lines, and what it
 * says about everything else. The tables were held against libvirt 9.0.0's own reader. Texts in
 * memory only; files are in test-conffile-load.c.
 */
#include "core/conffile.h"

#include <string.h>

#include "mutate.h"

/** A text and its length, which strlen() would not know with a NUL in it. */
#define BYTES(literal) (literal), sizeof(literal) - 1

/* ---- what a file says, as one string --------------------------------------------------- */

/** "key@LINE=VALUE " for each entry that counts. */
static char *describe(const ConfFile *file)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < file->entries->len; i++) {
        const ConfEntry *entry = g_ptr_array_index(file->entries, i);

        if (entry->first_line > 0)
            continue;
        g_string_append_printf(text, "%s%s@%u=", text->len > 0 ? " " : "", entry->key, entry->line);
        if (entry->type == CONF_NUMBER) {
            g_string_append_printf(text, "%" G_GINT64_FORMAT, entry->number);
        } else if (entry->type == CONF_STRING) {
            g_string_append_printf(text, "<%s>", entry->string);
        } else {
            g_string_append_c(text, '[');
            for (guint j = 0; j < entry->items->len; j++) {
                const ConfItem *item = g_ptr_array_index(entry->items, j);

                g_string_append_printf(text, "<%s>@%u", item->text, item->line);
            }
            g_string_append_c(text, ']');
        }
    }
    return g_string_free(text, FALSE);
}

/* ---- good files ------------------------------------------------------------------------ */

typedef struct GoodCase {
    const char *text;
    const char *described;
} GoodCase;

static const GoodCase good_cases[] = {
    /* nothing to say */
    {"", ""},
    {"\n", ""},
    {"   \n\t\n", ""},
    {"#c", ""},
    {"#c\n   ", ""},
    {"# \xff\xfe \"[ = \n", ""},
    /* numbers */
    {"a=1", "a@1=1"},
    {"a = 1\n", "a@1=1"},
    {"  \ta\t=\t1\t\n", "a@1=1"},
    {"a=-1\n", "a@1=-1"},
    {"a=+1\n", "a@1=1"},
    {"a=-0\n", "a@1=0"},
    {"a=010\n", "a@1=10"},
    {"a=0000000000000000000000000000000000001\n", "a@1=1"},
    {"a=9223372036854775807\n", "a@1=9223372036854775807"},
    {"a=-9223372036854775808\n", "a@1=-9223372036854775808"},
    /* strings */
    {"a=\"x\"", "a@1=<x>"},
    {"a='x'\n", "a@1=<x>"},
    {"a=\"\"", "a@1=<>"},
    {"a=''\n", "a@1=<>"},
    {"a=\"x\\ny\"\n", "a@1=<x\\ny>"},
    {"a=\"x\\\"\n", "a@1=<x\\>"},
    {"a=\"it's # no comment; [1]\"\n", "a@1=<it's # no comment; [1]>"},
    {"a='say \"x\"'\n", "a@1=<say \"x\">"},
    {"a=\"\xff\xfe\"\n", "a@1=<\xff\xfe>"},
    {"a=\"\xc3\xa4\"\n", "a@1=<\xc3\xa4>"},
    {"a=\"\"\"\"\"\"\n", "a@1=<>"},
    {"a=\"\"\"x\ny\"\"\"\nb=1\n", "a@1=<x\ny> b@3=1"},
    {"a=\"\"\"x\r\ny\"\"\"\r\nb=1\r\n", "a@1=<x\r\ny> b@3=1"},
    {"a=\"\"\"x\"\"y\"\"\"\n", "a@1=<x\"\"y>"},
    {"a=\"\"\"\"x\"\"\"\n", "a@1=<\"x>"},
    /* lists */
    {"a=[]\n", "a@1=[]"},
    {"a=[ ]\n", "a@1=[]"},
    {"a=[\n]\n", "a@1=[]"},
    {"a=[ \"x\" ]", "a@1=[<x>@1]"},
    {"a=['x','y']\n", "a@1=[<x>@1<y>@1]"},
    {"a=[\"x\",]\n", "a@1=[<x>@1]"},
    {"a=[\"x\",\n]\n", "a@1=[<x>@1]"},
    {"a=[\"x\"\n,\"y\"\n]\nb=1", "a@1=[<x>@1<y>@2] b@4=1"},
    {"a=[\n\n \"x\",\r\n\t\"y\"\r\n]\r\nb=1", "a@1=[<x>@3<y>@4] b@6=1"},
    {"a=[\"\"\"x\ny\"\"\", 'z']\n", "a@1=[<x\ny>@1<z>@2]"},
    {"a=[\"x\"]#c\n", "a@1=[<x>@1]"},
    /* lines, comments, separators */
    {"a=1 # c\nb=2#c", "a@1=1 b@2=2"},
    {"a=\"x\"#c\n", "a@1=<x>"},
    {"a=1  \n\n\n#x\n  #y\nb=2", "a@1=1 b@6=2"},
    {"a=1;b=2\n", "a@1=1 b@1=2"},
    {"a=1 ; b=2;#c\nc=3;\n", "a@1=1 b@1=2 c@2=3"},
    {"a=1\r\nb=2\r\n", "a@1=1 b@2=2"},
    {"a=1\rb=2\r", "a@1=1 b@2=2"},
    {"\r\n\r\na=1", "a@3=1"},
    {"\n\r\n\ra=1", "a@4=1"},
    {"# c\rb=2\n", "b@2=2"},
    /* keys */
    {"A9_=1\n", "A9_@1=1"},
    {"a=1\na=2\n", "a@1=1"},
    {"a=1\nb=3\na=\"x\"\na=[]", "a@1=1 b@2=3"},
};

static void test_good(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(good_cases); i++) {
        const GoodCase *c = &good_cases[i];
        g_autoptr(GError) error = NULL;
        g_autoptr(ConfFile) file = conffile_parse("t.conf", c->text, strlen(c->text), &error);
        g_autofree char *described = NULL;
        g_autofree char *escaped = g_strescape(c->text, NULL);

        g_test_message("case %" G_GSIZE_FORMAT ": %s", i, escaped);
        g_assert_no_error(error);
        g_assert_nonnull(file);
        described = describe(file);
        g_assert_cmpstr(described, ==, c->described);
        g_assert_cmpstr(file->name, ==, "t.conf");
    }
}

/** libvirt's look-ups find the first entry of a key. */
static void test_duplicates(void)
{
    static const char text[] = "a=1\nb=1\na=2\n\na=3\n";
    static const guint first_lines[] = {0, 0, 1, 1};
    g_autoptr(ConfFile) file = conffile_parse("t", text, strlen(text), NULL);

    g_assert_cmpuint(file->entries->len, ==, G_N_ELEMENTS(first_lines));
    for (guint i = 0; i < file->entries->len; i++) {
        const ConfEntry *entry = g_ptr_array_index(file->entries, i);

        g_assert_cmpuint(entry->first_line, ==, first_lines[i]);
    }
    g_assert_cmpint(conffile_lookup(file, "a")->number, ==, 1);
    g_assert_cmpint(conffile_lookup(file, "b")->number, ==, 1);
    g_assert_null(conffile_lookup(file, "c"));
}

/* ---- bad files ------------------------------------------------------------------------- */

typedef struct BadCase {
    const char *text;
    gsize len;
    guint line;
    const char *message; /* a part of it */
} BadCase;

static const BadCase bad_cases[] = {
    /* keys */
    {BYTES("=1\n"), 1, "expected a key, found '=1'"},
    {BYTES("1a=1\n"), 1, "expected a key, found '1a=1'"},
    {BYTES("_a=1\n"), 1, "expected a key"},
    {BYTES("\"a\"=1\n"), 1, "expected a key"},
    {BYTES("a=1\n;b=2\n"), 2, "expected a key, found ';b=2'"},
    {BYTES("a=1;;b=2\n"), 1, "expected a key"},
    {BYTES(";\n"), 1, "expected a key"},
    {BYTES("\x0c"
           "a=1\n"),
     1, "expected a key, found '\\x0ca=1'"},
    {BYTES("\xff"
           "a=1\n"),
     1, "expected a key, found '\\xffa=1'"},
    {BYTES("\xef\xbb\xbf"
           "a=1\n"),
     1, "byte order mark"},
    /* the equals sign */
    {BYTES("a"), 1, "expected '=' after 'a', found the end of the file"},
    {BYTES("\n\na\n"), 3, "expected '=' after 'a', found the end of the line"},
    {BYTES("a\n=1\n"), 1, "expected '='"},
    {BYTES("a 1\n"), 1, "expected '=' after 'a', found '1'"},
    {BYTES("a-b=1\n"), 1, "expected '=' after 'a', found '-b=1'"},
    {BYTES("a.b=1\n"), 1, "expected '='"},
    {BYTES("a\xc3\xa4=1\n"), 1, "expected '=' after 'a', found '\xc3\xa4=1'"},
    {BYTES("a=1\r\nb\r\n"), 2, "expected '=' after 'b'"},
    {BYTES("a=1\rb\r"), 2, "expected '=' after 'b'"},
    /* values */
    {BYTES("a="), 1, "expected the value of 'a', found the end of the file"},
    {BYTES("a=\n1\n"), 1, "expected the value of 'a', found the end of the line"},
    {BYTES("a=yes\n"), 1, "found 'yes'; write a number, a \"string\""},
    {BYTES("a==1\n"), 1, "found '=1'"},
    {BYTES("a=#c\n"), 1, "expected the value"},
    {BYTES("a={}\n"), 1, "expected the value"},
    /* numbers */
    {BYTES("a=-\n"), 1, "'-' without digits"},
    {BYTES("a=+"), 1, "'+' without digits"},
    {BYTES("a=- 1\n"), 1, "'-' without digits"},
    {BYTES("a=--1\n"), 1, "'-' without digits"},
    {BYTES("a=9223372036854775808\n"), 1, "too large"},
    {BYTES("a=-9223372036854775809\n"), 1, "too large"},
    {BYTES("a=18446744073709551616\n"), 1, "too large"},
    {BYTES("a=99999999999999999999999999999999\n"), 1, "too large"},
    {BYTES("a=0x10\n"), 1, "unexpected 'x10' after the value of 'a'"},
    {BYTES("a=1.5\n"), 1, "unexpected '.5'"},
    {BYTES("a=1a\n"), 1, "unexpected 'a'"},
    /* what follows a value */
    {BYTES("a=1 2\n"), 1, "unexpected '2' after the value of 'a'; put each key on a line"},
    {BYTES("a=1, b=2\n"), 1, "unexpected ', b=2'"},
    {BYTES("a=\"x\" y\n"), 1, "unexpected 'y' after the value of 'a'; write '...' around"},
    {BYTES("a=\"x\"y\"\n"), 1, "there are no escapes"},
    {BYTES("a=\"x\\\"y\"\n"), 1, "there are no escapes"},
    {BYTES("a=1\x0b\n"), 1, "unexpected '\\x0b'"},
    {BYTES("a=[\"x\"]]\n"), 1, "unexpected ']'"},
    {BYTES("a='''x'''\n"), 1, "unexpected ''x''''"},
    /* strings */
    {BYTES("a=\"x"), 1, "not closed on its line; write \" at its end"},
    {BYTES("a='x"), 1, "not closed on its line; write ' at its end"},
    {BYTES("\na=\"x\ny\"\n"), 2, "not closed on its line"},
    {BYTES("a='x\ry'\n"), 1, "not closed on its line"},
    {BYTES("\na=\"\"\"x\n\n\n"), 2, "never closed; write \"\"\" at its end"},
    {BYTES("a=\"\"\"\"\n"), 1, "never closed"},
    {BYTES("a=\"\"\"x\"\"\"\"\n"), 1, "unexpected '\"'"},
    {BYTES("a=\"\"\"\n\n\"\"\"\nb\n"), 4, "expected '=' after 'b'"},
    /* lists */
    {BYTES("a=["), 1, "list that begins here is never closed"},
    {BYTES("\na=[\"x\",\n\n\n"), 2, "list that begins here is never closed"},
    {BYTES("a=[\"x\"\n"), 1, "list that begins here is never closed"},
    {BYTES("a=[\"x\",,\"y\"]\n"), 1, "expected a string in quotes in the list, found ',\"y\"]'"},
    {BYTES("a=[,\"x\"]\n"), 1, "expected a string in quotes"},
    {BYTES("a=[\"x\" \"y\"]\n"), 1, "expected ',' or ']' after a string of the list, found '\"y\""},
    {BYTES("a=[\n\"x\";\"y\"]\n"), 2, "expected ',' or ']'"},
    {BYTES("a=[x]\n"), 1, "expected a string in quotes in the list, found 'x]'"},
    {BYTES("a=[1, 2]\n"), 1, "expected a string in quotes"},
    {BYTES("a=[[\"x\"]]\n"), 1, "expected a string in quotes"},
    {BYTES("a=[\n# c\n\"x\"]\n"), 2, "comment can't stand inside a list"},
    {BYTES("a=[\"x\", # c\n\"y\"]\n"), 1, "comment can't stand inside a list"},
    {BYTES("a=[\"x\" # c\n]\n"), 1, "put comments above the list"},
    {BYTES("a=[\"x\n\"]\n"), 1, "not closed on its line"},
    /* bytes that no text has */
    {BYTES("a=1\0b=2\n"), 1, "NUL byte"},
    {BYTES("a=1\nb=\"x\0y\"\n"), 2, "NUL byte"},
    {BYTES("a=1\r\n\r\n# \0\n"), 3, "NUL byte"},
    {BYTES("\0"), 1, "NUL byte"},
    {BYTES("a\0=\0001\0\n\0"), 1, "UTF-16"},
};

static void test_bad(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(bad_cases); i++) {
        const BadCase *c = &bad_cases[i];
        g_autofree char *prefix = g_strdup_printf("dir/t.conf:%u: ", c->line);
        g_autoptr(GError) error = NULL;
        ConfFile *file = conffile_parse("dir/t.conf", c->text, c->len, &error);
        const char *text;
        guint line = 77;

        g_test_message("case %" G_GSIZE_FORMAT ": %s", i, error ? error->message : "no error");
        g_assert_null(file);
        g_assert_error(error, CONFFILE_ERROR, CONFFILE_ERROR_SYNTAX);
        g_assert_true(g_str_has_prefix(error->message, prefix));
        g_assert_nonnull(strstr(error->message, c->message));
        g_assert_true(g_utf8_validate(error->message, -1, NULL));
        g_assert_null(strchr(error->message, '\n'));
        text = conffile_error_text(error, "dir/t.conf", &line);
        g_assert_cmpuint(line, ==, c->line);
        g_assert_cmpstr(text, ==, error->message + strlen(prefix));
    }
}

/** Names of files with colons and digits, or that are no UTF-8, do not confuse the messages. */
static void test_odd_names(void)
{
    static const char *const names[] = {"a:1: b", "1", "", ":", "\xff:2:", "x: "};

    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autoptr(GError) error = NULL;
        guint line = 0;

        g_assert_null(conffile_parse(names[i], "\nx", 2, &error));
        g_assert_true(g_utf8_validate(error->message, -1, NULL));
        g_assert_true(g_str_has_prefix(conffile_error_text(error, names[i], &line),
                                       "expected '=' after 'x'"));
        g_assert_cmpuint(line, ==, 2);
    }
}

static void test_quote(void)
{
    static const struct {
        const char *bytes;
        gssize len;
        const char *quoted;
    } cases[] = {
        {"", -1, "''"},
        {"abc", 2, "'ab'"},
        {"a\nb\x7f\x01", -1, "'a\\x0ab\\x7f\\x01'"},
        {"\xc3\xa4\xff\xc3", -1, "'\xc3\xa4\\xff\\xc3'"},
        {"\xc3\xa4", 1, "'\\xc3'"},
        {"\xc2\x85", -1, "'\\xc2\\x85'"},
    };
    g_autofree char *long_text = g_strnfill(1000, 'x');
    g_autofree char *cut = conffile_quote(long_text, -1);

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *quoted = conffile_quote(cases[i].bytes, cases[i].len);

        g_assert_cmpstr(quoted, ==, cases[i].quoted);
    }
    g_assert_cmpuint(strlen(cut), <, 80);
    g_assert_true(g_str_has_suffix(cut, "x...'"));
}

/* ---- sizes ----------------------------------------------------------------------------- */

/** A comment of `size` bytes, a line end included. */
static char *make_comment(gsize size)
{
    char *text = g_strnfill(size, 'x');

    text[0] = '#';
    text[size - 1] = '\n';
    return text;
}

static void test_size(void)
{
    g_autofree char *text = make_comment(CONFFILE_SIZE_MAX + 1);
    g_autoptr(GError) error = NULL;
    g_autoptr(ConfFile) file = conffile_parse("t", text, CONFFILE_SIZE_MAX, &error);
    guint line = 1;

    g_assert_no_error(error);
    g_assert_nonnull(file);
    g_assert_null(conffile_parse("t", text, CONFFILE_SIZE_MAX + 1, &error));
    g_assert_error(error, CONFFILE_ERROR, CONFFILE_ERROR_TOO_LARGE);
    g_assert_true(g_str_has_prefix(error->message, "t: "));
    g_assert_nonnull(strstr(conffile_error_text(error, "t", &line), "larger than 1 MiB"));
    g_assert_cmpuint(line, ==, 0);
}

/** The worst that fits below the limit: many keys, all the same, or one endless one. */
static void test_many(void)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *key = g_strnfill(CONFFILE_SIZE_MAX - 10, 'k');
    g_autoptr(ConfFile) many = NULL;
    g_autoptr(GError) error = NULL;

    while (text->len + 4 <= CONFFILE_SIZE_MAX)
        g_string_append(text, "a=1\n");
    many = conffile_parse("t", text->str, text->len, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(many->entries->len, ==, CONFFILE_SIZE_MAX / 4);
    g_assert_cmpuint(conffile_lookup(many, "a")->line, ==, 1);

    g_assert_null(conffile_parse("t", key, strlen(key), &error));
    g_assert_error(error, CONFFILE_ERROR, CONFFILE_ERROR_SYNTAX);
    g_assert_cmpuint(strlen(error->message), <, 300);
}

/* ---- random damage --------------------------------------------------------------------- */

/** The file again, in the plainest way to write it. */
static char *rewrite(const ConfFile *file)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < file->entries->len; i++) {
        const ConfEntry *entry = g_ptr_array_index(file->entries, i);
        /* A string that was read fits into one of the three quotes. */
        const char *s = entry->string ? entry->string : "";
        const char *quote = !strpbrk(s, "\"\r\n") ? "\"" : !strpbrk(s, "'\r\n") ? "'" : "\"\"\"";

        if (entry->first_line > 0 || entry->type == CONF_LIST)
            continue;
        if (entry->type == CONF_NUMBER)
            g_string_append_printf(text, "%s=%" G_GINT64_FORMAT "\n", entry->key, entry->number);
        else
            g_string_append_printf(text, "%s=%s%s%s\n", entry->key, quote, s, quote);
    }
    return g_string_free(text, FALSE);
}

/** What was read, written and read again has to be the same. */
static void assert_stable(const ConfFile *file)
{
    g_autofree char *text = rewrite(file);
    g_autoptr(GError) error = NULL;
    g_autoptr(ConfFile) again = conffile_parse("t", text, strlen(text), &error);
    g_autofree char *text_again = NULL;

    g_assert_no_error(error);
    text_again = rewrite(again);
    g_assert_cmpstr(text, ==, text_again);
}

static void test_random(void)
{
    static const char seed[] = "# head\nnumber = -12 # c\ntext = \"a b\"; single = 'say \"x\"'\r\n"
                               "long = \"\"\"one\ntwo\"\"\"\nlist = [ \"a\", 'b',\n \"c\" ]\n"
                               "empty = []\nnumber = 9223372036854775807\n";
    int rounds = g_test_slow() ? 1000000 : 20000;
    int good = 0;

    for (int i = 0; i < rounds; i++) {
        gsize len = 0;
        g_autofree char *text = mutate_text(seed, 6, &len);
        g_autoptr(GError) error = NULL;
        g_autoptr(ConfFile) file = conffile_parse("t", text, len, &error);

        g_assert_true((file != NULL) == (error == NULL));
        if (file) {
            good++;
            assert_stable(file);
        } else {
            g_assert_error(error, CONFFILE_ERROR, CONFFILE_ERROR_SYNTAX);
            g_assert_true(g_str_has_prefix(error->message, "t:"));
            g_assert_true(g_utf8_validate(error->message, -1, NULL));
            g_assert_null(strpbrk(error->message, "\r\n"));
        }
    }
    /* Both ways have to be walked for this test to mean something. */
    g_assert_cmpint(good, >, rounds / 50);
    g_assert_cmpint(good, <, rounds - rounds / 50);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/conffile/good", test_good);
    g_test_add_func("/conffile/duplicates", test_duplicates);
    g_test_add_func("/conffile/bad", test_bad);
    g_test_add_func("/conffile/odd-names", test_odd_names);
    g_test_add_func("/conffile/quote", test_quote);
    g_test_add_func("/conffile/size", test_size);
    g_test_add_func("/conffile/many", test_many);
    g_test_add_func("/conffile/random", test_random);
    return g_test_run();
}
