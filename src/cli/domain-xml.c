/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See domain-xml.h. */
#include "domain-xml.h"

#include <errno.h>
#include <fcntl.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlDoc, xmlFreeDoc)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlParserCtxt, xmlFreeParserCtxt)

/* What one parse carries along. */
typedef struct DomainXml {
    const char *name;
    Wanted *wanted;
    GError **error;
} DomainXml;

static gboolean domain_fail(const DomainXml *domain, const char *format, ...) G_GNUC_PRINTF(2, 3);

static gboolean domain_fail(const DomainXml *domain, const char *format, ...)
{
    g_autofree char *message = NULL;
    va_list args;

    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    g_strdelimit(message, "\r\n\t", ' '); /* libxml2's messages, and what they quote */
    g_set_error(domain->error, G_FILE_ERROR, G_FILE_ERROR_INVAL, "%s: %s", domain->name, message);
    return FALSE;
}

/* ---- XML helpers ---------------------------------------------------------------------------- */

static gboolean domain_is(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && !node->ns &&
           strcmp((const char *)node->name, name) == 0;
}

static xmlNode *domain_child(xmlNode *parent, const char *name)
{
    for (xmlNode *node = parent ? parent->children : NULL; node; node = node->next) {
        if (domain_is(node, name))
            return node;
    }
    return NULL;
}

static char *domain_take(xmlChar *text)
{
    char *copy = g_strdup((const char *)text);

    xmlFree(text);
    return copy;
}

/* NULL when the element or attribute is missing. */
static char *domain_attribute(xmlNode *node, const char *name)
{
    return node ? domain_take(xmlGetNoNsProp(node, (const xmlChar *)name)) : NULL;
}

static char *domain_text(xmlNode *node)
{
    char *text = node ? domain_take(xmlNodeGetContent(node)) : NULL;

    return text ? g_strstrip(text) : NULL;
}

/* ---- disks ---------------------------------------------------------------------------------- */

/* "disk vda", for messages. */
static char *domain_disk_name(xmlNode *disk)
{
    g_autofree char *target = domain_attribute(domain_child(disk, "target"), "dev");

    return target ? g_strdup_printf("disk %s", target) : g_strdup("a disk");
}

static hf_mode domain_disk_mode(xmlNode *disk, const char *device)
{
    if (strcmp(device, "cdrom") == 0 || domain_child(disk, "readonly"))
        return HF_MODE_READONLY;
    return domain_child(disk, "shareable") ? HF_MODE_SHARED : HF_MODE_EXCLUSIVE;
}

static void domain_warn_disk(const DomainXml *domain, xmlNode *disk, const char *type)
{
    g_autofree char *name = domain_disk_name(disk);

    g_ptr_array_add(domain->wanted->warnings,
                    g_strdup_printf("%s: %s is of type '%s' and not protected: only files and "
                                    "block devices are",
                                    domain->name, name, type));
}

/*
 * The image at `source`, and those below it that the domain names. `layer` is the <disk>, or a
 * <backingStore>; of its format libvirt takes raw where it says nothing.
 */
static void domain_add_images(const DomainXml *domain, xmlNode *layer, gboolean is_cdrom)
{
    gboolean is_disk = domain_is(layer, "disk");

    for (; layer; layer = domain_child(layer, "backingStore")) {
        xmlNode *format = domain_child(layer, is_disk ? "driver" : "format");
        xmlNode *source = domain_child(layer, "source");
        char *path = domain_attribute(source, "file");
        WantedImage *image;

        if (!path)
            path = domain_attribute(source, "dev");
        if (!path || path[0] != '/') {
            g_free(path);
            return; /* an empty drive, the end of the chain, or the network */
        }
        image = wanted_take_image(domain->wanted, path, domain_attribute(format, "type"));
        image->has_backing = domain_child(layer, "backingStore") != NULL;
        image->is_cdrom = is_cdrom;
        is_disk = FALSE;
    }
}

static gboolean domain_add_disk(const DomainXml *domain, xmlNode *disk)
{
    g_autofree char *type = domain_attribute(disk, "type");
    g_autofree char *device = domain_attribute(disk, "device");
    g_autofree char *name = domain_disk_name(disk);
    g_autofree char *path = NULL;
    xmlNode *source = domain_child(disk, "source");

    if (!type)
        type = g_strdup("file"); /* libvirt's defaults */
    if (!device)
        device = g_strdup("disk");
    if (strcmp(type, "file") != 0 && strcmp(type, "block") != 0) {
        domain_warn_disk(domain, disk, type);
        return TRUE;
    }
    path = domain_attribute(source, strcmp(type, "file") == 0 ? "file" : "dev");
    if (!path || !*path)
        return TRUE; /* an empty drive */
    if (path[0] != '/')
        return domain_fail(domain, "the source '%s' of %s is not an absolute path", path, name);
    wanted_take_disk(domain->wanted, g_steal_pointer(&path), domain_disk_mode(disk, device));
    domain_add_images(domain, disk, strcmp(device, "cdrom") == 0);
    return TRUE;
}

/* ---- leases --------------------------------------------------------------------------------- */

/* A name that stays where it is put. */
static gboolean domain_is_plain_name(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static gboolean domain_add_lease(const DomainXml *domain, xmlNode *lease)
{
    g_autofree char *lockspace = domain_text(domain_child(lease, "lockspace"));
    g_autofree char *key = domain_text(domain_child(lease, "key"));
    g_autofree char *path = domain_attribute(domain_child(lease, "target"), "path");
    g_autofree char *offset = domain_attribute(domain_child(lease, "target"), "offset");
    guint64 number = 0;

    if (!lockspace || !key || !path)
        return domain_fail(domain, "a <lease> needs <lockspace>, <key> and <target path=...>");
    if (path[0] != '/')
        return domain_fail(domain, "the target path '%s' of a <lease> is not absolute", path);
    if (!domain_is_plain_name(lockspace) || !domain_is_plain_name(key))
        return domain_fail(domain,
                           "the <lease> with lockspace '%s' and key '%s' would leave its directory",
                           lockspace, key);
    if (offset && (!g_ascii_string_to_unsigned(offset, 10, 0, G_MAXINT64, &number, NULL) || number))
        return domain_fail(domain,
                           "the <lease> with key '%s' has offset '%s'; leases in files have 0", key,
                           offset);
    wanted_take_lease(domain->wanted, g_build_filename(path, lockspace, NULL),
                      g_steal_pointer(&key), HF_MODE_EXCLUSIVE);
    return TRUE;
}

/* ---- the domain ----------------------------------------------------------------------------- */

static gboolean domain_take_identity(const DomainXml *domain, xmlNode *root)
{
    g_autofree char *uuid = domain_text(domain_child(root, "uuid"));
    g_autofree char *name = domain_text(domain_child(root, "name"));

    if (uuid) {
        domain->wanted->uuid = wanted_parse_uuid(uuid);
        if (!domain->wanted->uuid)
            return domain_fail(domain, "<uuid> '%s' is no UUID", uuid);
    }
    if (name && *name)
        domain->wanted->name = g_steal_pointer(&name);
    return TRUE;
}

static gboolean domain_walk(const DomainXml *domain, xmlNode *root)
{
    xmlNode *devices;

    if (!root || !domain_is(root, "domain"))
        return domain_fail(domain,
                           "this is no libvirt domain: the root element is <%s>, not "
                           "<domain>",
                           root ? (const char *)root->name : "");
    if (!domain_take_identity(domain, root))
        return FALSE;
    devices = domain_child(root, "devices");
    for (xmlNode *node = devices ? devices->children : NULL; node; node = node->next) {
        if (domain_is(node, "disk") && !domain_add_disk(domain, node))
            return FALSE;
        if (domain_is(node, "lease") && !domain_add_lease(domain, node))
            return FALSE;
    }
    return TRUE;
}

/* ---- parsing -------------------------------------------------------------------------------- */

/*
 * A domain has no document type. It is where entities are declared, so whoever stops here has
 * neither bombs nor other people's files to fear.
 */
static void domain_stop_at_dtd(void *data, const xmlChar *name G_GNUC_UNUSED,
                               const xmlChar *external G_GNUC_UNUSED,
                               const xmlChar *system G_GNUC_UNUSED)
{
    xmlParserCtxt *context = data;

    *(gboolean *)context->_private = TRUE;
    xmlStopParser(context);
}

gboolean domain_xml_parse(const char *name, const char *text, gsize length, Wanted *wanted,
                          GError **error)
{
    DomainXml domain = {.name = name, .wanted = wanted, .error = error};
    g_autoptr(xmlParserCtxt) context = xmlNewParserCtxt();
    g_autoptr(xmlDoc) doc = NULL;
    gboolean has_dtd = FALSE;
    const xmlError *problem;

    if (length > DOMAIN_XML_MAX)
        return domain_fail(&domain, "longer than %" G_GSIZE_FORMAT " MiB: this is no domain",
                           DOMAIN_XML_MAX >> 20);
    if (!context)
        return domain_fail(&domain, "out of memory");
    context->_private = &has_dtd;
    context->sax->internalSubset = domain_stop_at_dtd;
    /* No network, no substitution of entities, and libxml2 prints nothing itself. */
    doc = xmlCtxtReadMemory(context, text, (int)length, NULL, NULL,
                            XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    if (has_dtd)
        return domain_fail(&domain, "it has a document type declaration (DTD), which a libvirt "
                                    "domain never has");
    if (!doc) {
        g_autofree char *message = NULL;

        problem = xmlCtxtGetLastError(context);
        message = g_strdup(problem && problem->message ? problem->message : "cannot be parsed");
        return domain_fail(&domain, "line %d: no well-formed XML: %s", problem ? problem->line : 0,
                           g_strstrip(message));
    }
    return domain_walk(&domain, xmlDocGetRootElement(doc));
}

/* All of `fd`, which may be a pipe without an end. */
static GByteArray *domain_read(const DomainXml *domain, int fd)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    guint8 chunk[65536];

    for (;;) {
        gssize n = read(fd, chunk, sizeof(chunk));

        if (n == 0)
            return g_steal_pointer(&bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            domain_fail(domain, "cannot read: %s", g_strerror(errno));
            return NULL;
        }
        g_byte_array_append(bytes, chunk, (guint)n);
        if (bytes->len > DOMAIN_XML_MAX)
            return g_steal_pointer(&bytes);
    }
}

gboolean domain_xml_load(const char *file, Wanted *wanted, GError **error)
{
    gboolean standard_input = strcmp(file, "-") == 0;
    DomainXml domain = {
        .name = standard_input ? "standard input" : file, .wanted = wanted, .error = error};
    g_autoptr(GByteArray) bytes = NULL;
    int fd = standard_input ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);

    if (fd < 0)
        return domain_fail(&domain, "cannot open the domain: %s; 'virsh dumpxml NAME' writes one",
                           g_strerror(errno));
    bytes = domain_read(&domain, fd);
    if (!standard_input)
        close(fd);
    return bytes &&
           domain_xml_parse(domain.name, (const char *)bytes->data, bytes->len, wanted, error);
}
