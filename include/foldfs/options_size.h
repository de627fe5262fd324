/* SPDX-License-Identifier: Apache-2.0 */
/* options_size.h - sizes as foldfs and foldctl take them on the command line */
#ifndef FOLDFS_OPTIONS_SIZE_H
#define FOLDFS_OPTIONS_SIZE_H

#include "foldfs/page.h"

/* Bytes in TEXT: digits, then nothing, K, M, G, T or %. MEMORY_BYTES is what % refers to. -EINVAL
 * for anything else, a sign or an empty text included; -ERANGE above UINT64_MAX or 100 %. */
errint_t options_parse_size(const char *text, uint64_t memory_bytes, uint64_t *ret_bytes);

#endif
