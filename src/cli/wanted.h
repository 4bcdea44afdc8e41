/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the user wants locked, and for whom, as collected from options and from a domain's XML.
 * Only collects, and makes paths absolute; whether a disk exists is the daemon's to find out.
 */
#pragma once

#include "cli.h"

typedef struct WantedDisk {
    char *path;
    hf_mode mode;
} WantedDisk;

typedef struct WantedLease {
    char *lockspace; /* a directory */
    char *key;
    hf_mode mode;
} WantedLease;

/* An image that a domain uses, to be checked. */
typedef struct WantedImage {
    char *path;
    char *format;         /* as libvirt calls it */
    gboolean has_backing; /* the domain says what its backing file is, or that there is none */
    gboolean is_cdrom;
} WantedImage;

typedef struct Wanted {
    pid_t pid; /* 0: not given */
    char *name;
    char *uuid;
    char *uri;
    gboolean until_close;
    GPtrArray *disks;    /* of WantedDisk */
    GPtrArray *leases;   /* of WantedLease */
    GPtrArray *images;   /* of WantedImage */
    GPtrArray *warnings; /* of char *: what the domain has and nobody protects */
    char *domain;        /* file named by --domain; read by wanted_finish() */
} Wanted;

Wanted *wanted_new(void);
void wanted_free(Wanted *wanted);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Wanted, wanted_free)

void wanted_take_disk(Wanted *wanted, char *path, hf_mode mode);
void wanted_take_lease(Wanted *wanted, char *lockspace, char *key, hf_mode mode);
/* NULL for `format` is what libvirt takes it for: raw. */
WantedImage *wanted_take_image(Wanted *wanted, char *path, char *format);

/* PATH[,MODE]. */
gboolean wanted_add_disk(Wanted *wanted, const char *text, GError **error);
/* LOCKSPACE:KEY or LOCKSPACE/KEY, each with [,MODE]. */
gboolean wanted_add_lease(Wanted *wanted, const char *text, GError **error);
/* The canonical form of a UUID, or NULL: 32 hex digits with or without dashes. */
char *wanted_parse_uuid(const char *text);
/* `path` as an absolute one; symbolic links stay. */
char *wanted_absolute(const char *path);

/* The options by which all verbs say what they want; for their tables. */
#define WANTED_OPTIONS_DISKS                                                                       \
    {'d', "disk", "PATH[,MODE]", "a disk; MODE: exclusive (default), shared, ro"},                 \
    {                                                                                              \
        'l', "lease", "DIR:KEY[,MODE]", "a manual lease: file KEY in lockspace DIR"                \
    }
#define WANTED_OPTIONS_OWNER                                                                       \
    {'n', "name", "NAME", "the VM's name"}, {'u', "uuid", "UUID", "the VM's UUID"},                \
        {WANTED_URI, "uri", "URI", "the VM's hypervisor"},                                         \
    {                                                                                              \
        WANTED_DOMAIN, "domain", "FILE.xml", "disks, leases, name and UUID of a libvirt domain"    \
    }
#define WANTED_OPTIONS_PID                                                                         \
    {                                                                                              \
        'p', "pid", "PID", "the owner's process"                                                   \
    }
enum { WANTED_URI = CLI_LONG_ONLY, WANTED_DOMAIN, WANTED_NEXT };

/* Takes one of these options. FALSE: it is another, or (then parser->status says so) wrong. */
gboolean wanted_option(Wanted *wanted, CliParser *parser, int id, const char *argument);
/* After the last option: reads the domain and warns about what it leaves unprotected. What the
 * options say wins over the domain. FALSE after a report. */
gboolean wanted_finish(Wanted *wanted, const Cli *cli);

/* The arguments of "acquire" or "release". */
CliJson *wanted_to_acquire(const Wanted *wanted);
CliJson *wanted_to_release(const Wanted *wanted);

/* ---- preflight.c -------------------------------------------------------------------------- */

typedef enum Preflight { PREFLIGHT_OFF, PREFLIGHT_WARN, PREFLIGHT_ENFORCE } Preflight;

gboolean preflight_parse(const char *text, Preflight *ret_mode);
/* Checks wanted->images; notes, or with PREFLIGHT_ENFORCE reports, what is not safe. Returns the
 * exit code. */
int preflight(const Cli *cli, const Wanted *wanted, Preflight mode);

/* ---- obtain.c ----------------------------------------------------------------------------- */

/*
 * Acquires; while it is held by somebody else, tries again for `wait` seconds and tells who is
 * being waited for. Returns the exit code after its own report; CLI_OK sets `ret_value`.
 */
int cli_obtain(const Cli *cli, hf_client *client, const Wanted *wanted, double wait,
               CliJson **ret_value);
