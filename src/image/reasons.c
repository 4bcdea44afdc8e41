/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of reasons, by number and by name. */
#include "image/reasons.h"

#include <stddef.h>
#include <string.h>

#define REASON_ROW(id, name, text) {name, text},
static const struct {
    const char *name;
    const char *text;
} reasons[] = {IMAGE_REASONS(REASON_ROW)};

const char *image_reason_name(unsigned id)
{
    return id < IMAGE_N_REASONS ? reasons[id].name : NULL;
}

const char *image_reason_text(unsigned id)
{
    return id < IMAGE_N_REASONS ? reasons[id].text : NULL;
}

unsigned image_reason_find(const char *name)
{
    unsigned id = 0;

    while (id < IMAGE_N_REASONS && strcmp(reasons[id].name, name) != 0)
        id++;
    return id;
}
