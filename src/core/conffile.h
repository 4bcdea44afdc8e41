/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads files in the configuration syntax that libvirt uses for its own settings:
 *
 *     # a comment, from '#' to the end of the line
 *     number = 30
 *     text   = "no escapes, ends on its line"       (or '...' around a text with " in it)
 *     long   = """may go over
 *     several lines"""
 *     list   = [ "one", "two" ]                     (may go over several lines)
 *
 * Keys are a letter followed by letters, digits and '_'. A ';' may stand between two settings on
 * one line. Line ends are LF, CR LF or CR. What a key means is not this module's business: see
 * settings.h.
 *
 * Held against libvirt 9.0.0's own reader. What that accepts is accepted here, with the same
 * value, except where it would misread the file without a word: numbers beyond 64 bits (it wraps
 * them round), NUL bytes (it cuts the text there). Lists hold strings only, here. Strings and
 * comments may hold any byte but NUL; whether a string has to be UTF-8 depends on its meaning.
 *
 * This module opens and reads the one file it is given, does no logging, and has no state: it may
 * be used from any thread.
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/** Files above this size (in bytes) are refused: no settings are that long. */
#define CONFFILE_SIZE_MAX (1024 * 1024)

#define CONFFILE_ERROR (conffile_error_quark())

/**
 * What went wrong. Messages read "FILE:LINE: what is wrong; what to do", or "FILE: ..." when the
 * whole file is meant. They are valid UTF-8 whatever the file contains.
 */
typedef enum ConfFileError {
    CONFFILE_ERROR_MISSING,   /**< there is no such file */
    CONFFILE_ERROR_READ,      /**< it can't be opened or read, or is not a file */
    CONFFILE_ERROR_TOO_LARGE, /**< more than CONFFILE_SIZE_MAX */
    CONFFILE_ERROR_SYNTAX,    /**< a line is not in the syntax above */
} ConfFileError;

typedef enum ConfType {
    CONF_NUMBER,
    CONF_STRING,
    CONF_LIST,
} ConfType;

/** One string of a list. */
typedef struct ConfItem {
    char *text;
    guint line; /**< from 1 */
} ConfItem;

/** One `key = value`. */
typedef struct ConfEntry {
    char *key;
    ConfType type;
    guint line;       /**< where the key stands, from 1 */
    guint first_line; /**< of the first entry with this key, when this is a later one; else 0 */
    gint64 number;    /**< CONF_NUMBER */
    char *string;     /**< CONF_STRING, else NULL */
    GPtrArray *items; /**< CONF_LIST: of ConfItem, else NULL */
} ConfEntry;

/** A file that was read. Read-only for everyone but this module; needs no lock then. */
typedef struct ConfFile {
    char *name;
    GPtrArray *entries; /**< of ConfEntry, in the order of the file, with those that do not count */
    GHashTable *by_key; /**< key -> its first ConfEntry, the one that counts */
} ConfFile;

GQuark conffile_error_quark(void);

/**
 * Parses `len` bytes at `data`, which need not end in NUL. `name` stands in the messages and in
 * the result. Returns a ConfFile that the caller frees with conffile_free(), or NULL with a
 * CONFFILE_ERROR for the first mistake.
 */
ConfFile *conffile_parse(const char *name, const char *data, gsize len, GError **error);

/**
 * Reads and parses the file at `path`: a regular file or a character device (/dev/null is a good
 * empty file). Does not wait for a FIFO's writer, it refuses FIFOs. Returns as conffile_parse().
 */
ConfFile *conffile_load(const char *path, GError **error);

/** Frees a ConfFile with its entries; NULL is allowed. */
void conffile_free(ConfFile *file);

/**
 * The entry that counts for `key`; NULL without one. When a key is given twice that is the first,
 * as in libvirt. Owned by `file`.
 */
const ConfEntry *conffile_lookup(const ConfFile *file, const char *key);

/** "a number", "a string" or "a list", for messages. Static. */
const char *conffile_type_name(ConfType type);

/**
 * `len` bytes of a file (-1: up to the NUL) as UTF-8 for a message: in single quotes, control
 * characters and invalid bytes as \xNN, cut after some 60 bytes. The caller frees it.
 */
char *conffile_quote(const char *bytes, gssize len);

/**
 * Takes apart an error that conffile_parse() or conffile_load() made for `name`: returns the
 * message without "FILE:LINE: " (it points into `error`) and sets `ret_line`, 0 when the error
 * is about the whole file.
 */
const char *conffile_error_text(const GError *error, const char *name, guint *ret_line);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(ConfFile, conffile_free)

G_END_DECLS
