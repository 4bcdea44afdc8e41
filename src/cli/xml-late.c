/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxml2, loaded when a domain is read. Linked in the usual way it would double the time and the
 * memory that every verb takes to start: it brings a library for all the languages of the world.
 * Here are the functions that domain-xml.c calls, by their own names; they can be called after
 * domain_xml_available().
 */
#include <dlfcn.h>
#include <libxml/parser.h>
#include <libxml/tree.h>

#include "domain-xml.h"

static struct {
    __typeof__(xmlFreeDoc) *free_doc;
    __typeof__(xmlNewParserCtxt) *new_parser_ctxt;
    __typeof__(xmlFreeParserCtxt) *free_parser_ctxt;
    __typeof__(xmlCtxtReadMemory) *ctxt_read_memory;
    __typeof__(xmlCtxtGetLastError) *ctxt_get_last_error;
    __typeof__(xmlStopParser) *stop_parser;
    __typeof__(xmlDocGetRootElement) *doc_get_root_element;
    __typeof__(xmlGetNoNsProp) *get_no_ns_prop;
    __typeof__(xmlNodeGetContent) *node_get_content;
} late;

/* libxml2's own, once it is there: its callers call through it. */
xmlFreeFunc xmlFree;

static const struct {
    const char *name;
    void **pointer;
} late_symbols[] = {
    {"xmlFreeDoc", (void **)&late.free_doc},
    {"xmlNewParserCtxt", (void **)&late.new_parser_ctxt},
    {"xmlFreeParserCtxt", (void **)&late.free_parser_ctxt},
    {"xmlCtxtReadMemory", (void **)&late.ctxt_read_memory},
    {"xmlCtxtGetLastError", (void **)&late.ctxt_get_last_error},
    {"xmlStopParser", (void **)&late.stop_parser},
    {"xmlDocGetRootElement", (void **)&late.doc_get_root_element},
    {"xmlGetNoNsProp", (void **)&late.get_no_ns_prop},
    {"xmlNodeGetContent", (void **)&late.node_get_content},
};

gboolean domain_xml_available(GError **error)
{
    void *library = dlopen("libxml2.so.2", RTLD_NOW | RTLD_LOCAL);
    xmlFreeFunc *free_pointer = library ? (xmlFreeFunc *)dlsym(library, "xmlFree") : NULL;
    gboolean found = free_pointer != NULL;

    for (gsize i = 0; found && i < G_N_ELEMENTS(late_symbols); i++) {
        *late_symbols[i].pointer = dlsym(library, late_symbols[i].name);
        found = *late_symbols[i].pointer != NULL;
    }
    if (found)
        xmlFree = *free_pointer;
    else
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NOENT,
                    "a domain cannot be read without libxml2: %s", dlerror());
    return found;
}

void xmlFreeDoc(xmlDocPtr doc)
{
    late.free_doc(doc);
}

xmlParserCtxtPtr xmlNewParserCtxt(void)
{
    return late.new_parser_ctxt();
}

void xmlFreeParserCtxt(xmlParserCtxtPtr context)
{
    late.free_parser_ctxt(context);
}

xmlDocPtr xmlCtxtReadMemory(xmlParserCtxtPtr context, const char *buffer, int size, const char *url,
                            const char *encoding, int options)
{
    return late.ctxt_read_memory(context, buffer, size, url, encoding, options);
}

xmlErrorPtr xmlCtxtGetLastError(void *context)
{
    return late.ctxt_get_last_error(context);
}

void xmlStopParser(xmlParserCtxtPtr context)
{
    late.stop_parser(context);
}

xmlNodePtr xmlDocGetRootElement(const xmlDoc *doc)
{
    return late.doc_get_root_element(doc);
}

xmlChar *xmlGetNoNsProp(const xmlNode *node, const xmlChar *name)
{
    return late.get_no_ns_prop(node, name);
}

xmlChar *xmlNodeGetContent(const xmlNode *node)
{
    return late.node_get_content(node);
}
