/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What image.c and image-copy.c share; see client-internal.h for the library's rules. */
#pragma once

#include "client/client-internal.h"
#include "holdfast/image.h"
#include "image/image.h"

/* 0 and the format that is meant, or a code. */
int hfc_image_options(const hf_image_options *options, const ImageFormat **ret_format,
                      hf_error **ret_error);
/* In bytes. */
uint64_t hfc_image_max_size(const hf_image_options *options);
/* A result of the verdict, which has not failed. `ret_result` may be NULL. */
int hfc_image_result(const ImageVerdict *verdict, const hf_image_options *options,
                     hf_image_result **ret_result, hf_error **ret_error);
