/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process made by a bare clone(2) has all its parent's memory: the heap with ten thousand leases,
 * two dozen libraries. It is shared until one of the two writes, but counts as either's, and costs
 * the parent a fault for each page that it writes. A closer needs next to nothing of it.
 *
 * What is unmapped is found in /proc/self/maps. That no call of these files has to be linked first,
 * by a linker whose tables are gone, is what -fno-plt is for.
 */
#include "closer-private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Runs of mappings to be given back; more than a program with so many libraries has. */
#define SHED_RUNS 256
/* Places in memory that are needed. */
#define SHED_MARKS 5
/* Files that are needed: this program's and the C library's. */
#define SHED_FILES 2
/* A sanitizer's own memory is needed by all code. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHED_MAY 0
#else
#define SHED_MAY 1
#endif

/* A line of /proc/self/maps, see proc(5). */
struct shed_line {
    unsigned long begin, end;
    int shared;
    unsigned long inode; /* 0: no file */
    const char *file;    /* "08:01 4711": what tells files apart; not ended by NUL */
    size_t file_len;
    const char *path;
};

struct shed {
    unsigned long marks[SHED_MARKS];
    char files[SHED_FILES][64];
    int n_files;
    unsigned long file_end; /* where the last mapping of a needed file has ended */
    struct {
        unsigned long begin, end;
    } runs[SHED_RUNS];
    int n_runs;
};

static unsigned long shed_hex(const char **p)
{
    unsigned long value = 0;

    for (;; (*p)++) {
        if (**p >= '0' && **p <= '9')
            value = value * 16 + (unsigned long)(**p - '0');
        else if (**p >= 'a' && **p <= 'f')
            value = value * 16 + (unsigned long)(**p - 'a' + 10);
        else
            return value;
    }
}

/* "7f00-7f10 rw-p 00000000 08:01 4711   /path" */
static int shed_parse(const char *text, struct shed_line *line)
{
    const char *p = text;

    line->begin = shed_hex(&p);
    if (*p++ != '-')
        return 0;
    line->end = shed_hex(&p);
    if (strlen(p) < 6)
        return 0;
    line->shared = p[4] == 's';
    p += 6;
    shed_hex(&p); /* the offset */
    line->file = ++p;
    p += strcspn(p, " ");
    line->inode = 0;
    for (p += *p != '\0'; *p >= '0' && *p <= '9'; p++)
        line->inode = line->inode * 10 + (unsigned long)(*p - '0');
    line->file_len = (size_t)(p - line->file);
    line->path = p + strspn(p, " ");
    return 1;
}

static int shed_has_mark(const struct shed *shed, const struct shed_line *line)
{
    for (int i = 0; i < SHED_MARKS; i++)
        if (shed->marks[i] >= line->begin && shed->marks[i] < line->end)
            return 1;
    return 0;
}

static int shed_knows_file(const struct shed *shed, const struct shed_line *line)
{
    for (int i = 0; i < shed->n_files; i++)
        if (strlen(shed->files[i]) == line->file_len &&
            memcmp(shed->files[i], line->file, line->file_len) == 0)
            return 1;
    return 0;
}

/* First look: which files are the marks in? */
static void shed_note_file(struct shed *shed, const struct shed_line *line)
{
    if (line->inode == 0 || !shed_has_mark(shed, line) || shed_knows_file(shed, line) ||
        shed->n_files == SHED_FILES || line->file_len >= sizeof(shed->files[0]))
        return;
    memcpy(shed->files[shed->n_files], line->file, line->file_len);
    shed->files[shed->n_files++][line->file_len] = '\0';
}

/* Second look: what is not needed? */
static void shed_note_run(struct shed *shed, const struct shed_line *line)
{
    int needed = line->shared || shed_has_mark(shed, line) ||
                 /* the kernel's, and the first thread's stack, with our name in the list */
                 (*line->path == '[' && strncmp(line->path, "[heap", 5) != 0 &&
                  strncmp(line->path, "[anon", 5) != 0);

    if (line->inode != 0 && shed_knows_file(shed, line))
        needed = 1;
    /* variables without a value in the file lie behind it */
    if (line->inode == 0 && !*line->path && line->begin == shed->file_end)
        needed = 1;
    shed->file_end = needed && line->inode != 0 ? line->end : 0;
    if (needed)
        return;
    if (shed->n_runs > 0 && shed->runs[shed->n_runs - 1].end == line->begin)
        shed->runs[shed->n_runs - 1].end = line->end;
    else if (shed->n_runs < SHED_RUNS) {
        shed->runs[shed->n_runs].begin = line->begin;
        shed->runs[shed->n_runs++].end = line->end;
    }
}

static void shed_each(struct shed *shed, int maps,
                      void (*func)(struct shed *shed, const struct shed_line *line))
{
    char text[8192];
    size_t have = 0;
    ssize_t n;

    lseek(maps, 0, SEEK_SET);
    while ((n = read(maps, text + have, sizeof(text) - 1 - have)) > 0) {
        char *at = text, *end;

        have += (size_t)n;
        text[have] = '\0';
        for (; (end = strchr(at, '\n')); at = end + 1) {
            struct shed_line line;

            *end = '\0';
            if (shed_parse(at, &line))
                func(shed, &line);
        }
        have -= (size_t)(at - text);
        memmove(text, at, have);
        if (have == sizeof(text) - 1)
            have = 0; /* no line is that long */
    }
}

void closer_shed(void)
{
    static int variable;
    struct shed shed = {
        .marks = {(unsigned long)&closer_shed, (unsigned long)&getppid, (unsigned long)&variable,
                  (unsigned long)&errno, (unsigned long)__builtin_frame_address(0)},
    };
    int maps = SHED_MAY ? open("/proc/self/maps", O_RDONLY | O_CLOEXEC) : -1;

    if (maps < 0)
        return;
    shed_each(&shed, maps, shed_note_file);
    shed_each(&shed, maps, shed_note_run);
    close(maps);
    for (int i = 0; i < shed.n_runs; i++)
        munmap((void *)shed.runs[i].begin, shed.runs[i].end - shed.runs[i].begin);
}
