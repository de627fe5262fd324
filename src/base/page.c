/* SPDX-License-Identifier: Apache-2.0 */
/* page.c - the zero page, and a test whether a page is zero */
#include "foldfs/page.h"

#include <string.h>

const uint8_t fold_zero_page[FOLD_PAGE_SIZE] __attribute__((aligned(FOLD_PAGE_SIZE)));

bool fold_page_is_zero(const void *page)
{
	const uint8_t *bytes = page;
	uint64_t head;

	/* Nearly every page that is not zero differs in its first bytes. */
	memcpy(&head, bytes, sizeof(head));
	return !head && !memcmp(bytes, fold_zero_page, FOLD_PAGE_SIZE);
}
