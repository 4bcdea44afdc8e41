/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Takes disks, leases, name and UUID from a libvirt domain's XML. The file may come from anywhere:
 * nothing outside it is ever read because of what it says, and it is bounded in size.
 */
#pragma once

#include "wanted.h"

#define DOMAIN_XML_MAX ((gsize)16 << 20)

/* To be called before the others: loads what they need. */
gboolean domain_xml_available(GError **error);

/*
 * Adds what the domain in `file` names to `wanted`; "-" is standard input. Disks that no file or
 * block device stands for go to wanted->warnings. On failure `wanted` may have been added to.
 */
gboolean domain_xml_load(const char *file, Wanted *wanted, GError **error);
/* The same from memory; `name` is for messages. */
gboolean domain_xml_parse(const char *name, const char *text, gsize length, Wanted *wanted,
                          GError **error);
