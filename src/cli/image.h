/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the verbs that check images share. */
#pragma once

#include "cli.h"
#include "holdfast/image.h"

G_DEFINE_AUTOPTR_CLEANUP_FUNC(hf_image_result, hf_image_result_free)

/* Bytes, or a number with a unit of 1024: K, M, G, T, P, E; at least 1, at most 2^63 - 1. */
gboolean cli_parse_size(const char *text, guint64 *ret_bytes);
gboolean cli_image_is_format(const char *name);
/* The reasons as JSON. */
CliJson *cli_image_reasons(const hf_image_result *result);
