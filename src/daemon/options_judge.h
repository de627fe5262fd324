/* SPDX-License-Identifier: Apache-2.0 */
/* options_judge.h - what the words mean, or why they are refused */
#ifndef FOLDFS_OPTIONS_JUDGE_H
#define FOLDFS_OPTIONS_JUDGE_H

#include "options_words.h"

/* Judge all that is said of a mount. STANDING: bytes that pool, window and maps may have together
 * in any case; 0 for a new mount. OPTIONS is the caller's to clear, whatever is returned. -EINVAL:
 * refused, with a sentence in WORDS. */
errint_t options_judge(struct option_words *words, uint64_t standing, struct options *options);

/* Bytes of pool, window and maps together. UINT64_MAX also if they are more than that. */
uint64_t options_sum(const struct options *options);

#endif
