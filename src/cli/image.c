/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast image check: is a disk image safe to be given to a VM? Needs no daemon. The verdict is
 * libholdfast's; here it gets its files, its words and its exit code.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "image.h"

/* As everywhere 0 and 1; 3 is for what no other verb has. */
enum { IMAGE_UNSAFE = 3 };

enum { IMAGE_FORMAT = CLI_LONG_ONLY, IMAGE_MAX_SIZE, IMAGE_ALLOW, IMAGE_COPY_TO };

static const CliOption image_options[] = {
    {IMAGE_FORMAT, "format", "FORMAT", "what the image is said to be; never guessed"},
    {IMAGE_MAX_SIZE, "max-size", "SIZE",
     "the largest disk allowed (64T): bytes, or with K, M, G, T"},
    {IMAGE_ALLOW, "allow", "REASON", "this is no objection; may be repeated"},
    {IMAGE_COPY_TO, "copy-to", "PATH", "make PATH a copy of the image, if it is safe"},
    {0},
};

typedef struct Image {
    Cli *cli;
    const char *format;
    guint64 max_size; /* 0: the library's */
    GPtrArray *allow; /* of const char *, ends with NULL */
    const char *copy_to;
    CliJson *images; /* for --json */
    int status;      /* the worst so far */
} Image;

gboolean cli_parse_size(const char *text, guint64 *ret_bytes)
{
    static const char units[] = "KMGTPE";
    char *end = NULL;
    guint64 number;
    const char *unit;
    guint shift = 0;

    errno = 0;
    number = g_ascii_strtoull(text, &end, 10);
    if (errno || !g_ascii_isdigit(text[0]))
        return FALSE;
    unit = *end ? strchr(units, g_ascii_toupper(*end)) : NULL;
    if (unit) {
        shift = (guint)(unit - units + 1) * 10;
        end++;
        if (end[0] == 'i')
            end++;
        if (end[0] == 'B')
            end++;
    }
    if (*end || number == 0 || number > (guint64)G_MAXINT64 >> shift)
        return FALSE;
    *ret_bytes = number << shift;
    return TRUE;
}

/* ---- reports -------------------------------------------------------------------------------- */

/* An error outweighs what is unsafe: there nothing is known. */
static void image_count(Image *image, int status)
{
    if (image->status != CLI_FAILED && status != CLI_OK)
        image->status = status;
}

static const char *image_name(const char *file)
{
    return strcmp(file, "-") == 0 ? "standard input" : file;
}

static CliJson *image_json(const char *file, const char *format, const char *verdict)
{
    g_autofree char *valid = g_utf8_make_valid(file, -1);
    CliJson *object = json_object_new_object();

    json_object_object_add(object, "file", json_object_new_string(valid));
    json_object_object_add(object, "format", json_object_new_string(format));
    json_object_object_add(object, "verdict", json_object_new_string(verdict));
    return object;
}

static void image_error(Image *image, const char *file, const char *sentence)
{
    if (image->cli->json) {
        CliJson *object = image_json(file, image->format, "error");

        json_object_object_add(object, "error", json_object_new_string(sentence));
        json_object_array_add(image->images, object);
    } else {
        g_autofree char *safe = cli_safe(image_name(file));

        cli_complain(image->cli, "%s: %s", safe, sentence);
    }
    image_count(image, CLI_FAILED);
}

CliJson *cli_image_reasons(const hf_image_result *result)
{
    CliJson *array = json_object_new_array();

    for (gsize i = 0; i < hf_image_reasons_count(result); i++) {
        const hf_image_reason *reason = hf_image_reasons_get(result, i);
        CliJson *object = json_object_new_object();

        json_object_object_add(object, "id", json_object_new_string(reason->id));
        json_object_object_add(object, "offset",
                               reason->offset < 0 ? NULL : json_object_new_int64(reason->offset));
        json_object_object_add(object, "sentence", json_object_new_string(reason->sentence));
        json_object_object_add(object, "allowed", json_object_new_boolean(reason->allowed));
        json_object_array_add(array, object);
    }
    return array;
}

static void image_report_json(Image *image, const char *file, const hf_image_result *result)
{
    CliJson *object = image_json(file, image->format, hf_image_is_safe(result) ? "safe" : "unsafe");
    guint64 bytes = 0;

    json_object_object_add(object, "virtual-size",
                           hf_image_disk_size(result, &bytes) ? json_object_new_uint64(bytes)
                                                              : NULL);
    json_object_object_add(object, "reasons", cli_image_reasons(result));
    json_object_array_add(image->images, object);
}

static void image_report_text(const Image *image, const char *file, const hf_image_result *result)
{
    const Cli *cli = image->cli;
    gboolean safe = hf_image_is_safe(result);
    g_autofree char *name = cli_safe(image_name(file));
    guint64 bytes = 0;

    if (safe && cli->quiet)
        return;
    printf("%s: %s%s%s", name, cli_color(cli, stdout, safe ? CLI_GREEN : CLI_RED),
           safe ? "safe" : "unsafe", cli_color(cli, stdout, CLI_PLAIN));
    if (hf_image_disk_size(result, &bytes))
        printf(", %s, a disk of %" G_GUINT64_FORMAT " bytes\n", image->format, bytes);
    else
        printf(", %s\n", image->format);
    for (gsize i = 0; i < hf_image_reasons_count(result); i++) {
        const hf_image_reason *reason = hf_image_reasons_get(result, i);

        printf("  %s%s", reason->id, reason->allowed ? " (allowed)" : "");
        if (reason->offset >= 0)
            printf(" at byte %" G_GINT64_FORMAT, reason->offset);
        printf(": %s\n", reason->sentence);
    }
}

/* ---- one image ------------------------------------------------------------------------------ */

/* The image's descriptor, or -1 after a report. Never waits: a FIFO is told by what it is. */
static int image_open(Image *image, const char *file)
{
    int fd;

    if (strcmp(file, "-") == 0)
        return STDIN_FILENO;
    fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        g_autofree char *sentence = g_strdup_printf("cannot open it: %s", g_strerror(errno));

        image_error(image, file, sentence);
    } else {
        fcntl(fd, F_SETFL, 0);
    }
    return fd;
}

/* What has no places to be read at goes through a copy. */
static gboolean image_is_stream(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode));
}

/* A FIFO that was opened before its writer is empty, and would be taken for an empty image. Linux
 * tells its end only when there was a writer. */
static void image_await(int fd)
{
    struct pollfd stream = {.fd = fd, .events = POLLIN};

    while (poll(&stream, 1, -1) < 0 && errno == EINTR)
        continue;
}

static int image_ask(const Image *image, int fd, const char *file, hf_image_result **ret_result,
                     hf_error **ret_error)
{
    const hf_image_options options = {
        .size = sizeof(options),
        .format = image->format,
        .max_size = image->max_size,
        .allow = (const char *const *)image->allow->pdata,
    };
    gboolean stream = image_is_stream(fd);
    g_autofree char *what = NULL;
    CliProgress *progress;
    int r;

    if (!stream && !image->copy_to)
        return hf_image_check(fd, &options, ret_result, ret_error);
    what = g_strdup_printf("reading %s", image_name(file));
    progress = cli_progress_start(image->cli, what, 0);
    if (stream)
        image_await(fd);
    r = hf_image_copy(fd, image->copy_to, &options, ret_result, ret_error);
    cli_progress_stop(progress);
    return r;
}

static void image_check_file(Image *image, const char *file)
{
    g_autoptr(hf_image_result) result = NULL;
    g_autoptr(hf_error) error = NULL;
    int fd = image_open(image, file);

    if (fd < 0)
        return;
    if (image_ask(image, fd, file, &result, &error) < 0) {
        image_error(image, file, hf_error_message(error));
    } else {
        if (image->cli->json)
            image_report_json(image, file, result);
        else
            image_report_text(image, file, result);
        image_count(image, hf_image_is_safe(result) ? CLI_OK : IMAGE_UNSAFE);
    }
    if (fd != STDIN_FILENO)
        close(fd);
}

/* ---- the verb ------------------------------------------------------------------------------- */

gboolean cli_image_is_format(const char *name)
{
    const char *known;

    for (gsize i = 0; (known = hf_image_format(i)); i++) {
        if (strcmp(known, name) == 0)
            return TRUE;
    }
    return strcmp(name, "vpc") == 0;
}

static void image_take_format(Image *image, CliParser *parser, const char *name)
{
    g_autoptr(GString) names = g_string_new(NULL);
    const char *known;

    image->format = name;
    if (cli_image_is_format(name))
        return;
    for (gsize i = 0; (known = hf_image_format(i)); i++)
        g_string_append_printf(names, "%s%s", i ? ", " : "", known);
    parser->status =
        cli_usage_error(parser->cli, "'%s' is no format of images; there are %s", name, names->str);
}

static void image_take_allowed(Image *image, CliParser *parser, const char *name)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    const char *known, *guess;

    for (gsize i = 0; (known = hf_image_reason_name(i, NULL)); i++) {
        if (strcmp(known, name) == 0) {
            g_ptr_array_add(image->allow, (gpointer)name);
            return;
        }
        g_ptr_array_add(names, (gpointer)known);
    }
    g_ptr_array_add(names, NULL);
    guess = cli_suggest(name, (const char *const *)names->pdata);
    parser->status =
        guess ? cli_usage_error(parser->cli,
                                "there is no reason '%s' that could be allowed; did "
                                "you mean '%s'?",
                                name, guess)
              : cli_usage_error(parser->cli, "there is no reason '%s' that could be allowed", name);
}

static gboolean image_parse(Image *image, CliParser *parser)
{
    const char *argument = NULL;
    int id;

    while ((id = cli_parser_next(parser, &argument)) > 0) {
        if (id == IMAGE_FORMAT)
            image_take_format(image, parser, argument);
        else if (id == IMAGE_ALLOW)
            image_take_allowed(image, parser, argument);
        else if (id == IMAGE_COPY_TO)
            image->copy_to = argument;
        else if (id == IMAGE_MAX_SIZE && !cli_parse_size(argument, &image->max_size))
            parser->status = cli_usage_error(parser->cli,
                                             "'%s' is no size: bytes, or a number with K, M, G or "
                                             "T",
                                             argument);
    }
    g_ptr_array_add(image->allow, NULL);
    return parser->status < 0;
}

/* 0, or the exit code after a report. `words` are what follows the options. */
static int image_check_usage(const Image *image, char **words)
{
    const Cli *cli = image->cli;

    if (!words[0] || strcmp(words[0], "check") != 0)
        return cli_usage_error(cli, "what is to be done? There is 'holdfast image check'");
    if (!image->format)
        return cli_usage_error(cli,
                               "which format is it said to be? Name it with --format: to guess "
                               "it from the content is what attackers hope for");
    if (!words[1])
        return cli_usage_error(cli, "which image? Name files, or - for standard input");
    if (image->copy_to && words[2])
        return cli_usage_error(cli, "--copy-to is for one image");
    if (image->copy_to && strcmp(image->copy_to, "-") == 0)
        return cli_usage_error(cli, "--copy-to needs a path: what has gone to standard output "
                                    "cannot be taken back when it is found unsafe");
    return 0;
}

static int image_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    g_autoptr(GPtrArray) allow = g_ptr_array_new();
    g_autoptr(CliJson) root = json_object_new_object();
    Image image = {.cli = cli, .allow = allow, .images = json_object_new_array()};
    int status;

    json_object_object_add(root, "images", image.images);
    cli_parser_init(&parser, cli, image_options, FALSE, argc, argv);
    if (!image_parse(&image, &parser))
        return parser.status;
    status = image_check_usage(&image, argv + optind);
    if (status)
        return status;
    for (char **file = argv + optind + 1; *file; file++)
        image_check_file(&image, *file);
    if (cli->json)
        cli_print_json(stdout, root);
    return image.status;
}

const CliVerb cli_image_verb = {
    .name = "image",
    .synopsis = "check --format FORMAT [OPTION...] FILE...|-",
    .summary = "Check whether disk images are safe to be given to a VM",
    .details =
        "Nothing but FILE is opened, whatever it names. A pipe, or - for standard input, is\n"
        "copied and checked as a whole.\n\n"
        "Exit codes: 0 safe, 1 no verdict, 2 wrong usage, 3 unsafe.\n\n"
        "Example:\n"
        "  holdfast image check --format qcow2 --max-size 100G upload.qcow2",
    .options = image_options,
    .run = image_verb,
};
