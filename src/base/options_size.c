/* SPDX-License-Identifier: Apache-2.0 */
/* options_size.c - sizes as foldfs and foldctl take them on the command line */
#include "foldfs/options_size.h"

#include <ctype.h>
#include <errno.h>

/* The factor of a unit, 0 for none that we know. */
static uint64_t unit_factor(char unit)
{
	switch (toupper((unsigned char)unit)) {
	case 'K':
		return 1ull << 10;
	case 'M':
		return 1ull << 20;
	case 'G':
		return 1ull << 30;
	case 'T':
		return 1ull << 40;
	default:
		return 0;
	}
}

/* BYTES / 100 * PERCENT without overflow for up to 100 %. */
static uint64_t percent_of(uint64_t bytes, uint64_t percent)
{
	return bytes / 100 * percent + bytes % 100 * percent / 100;
}

errint_t options_parse_size(const char *text, uint64_t memory_bytes, uint64_t *ret_bytes)
{
	uint64_t number = 0, factor = 1;
	const char *p = text;
	bool overflow = false;

	if (!isdigit((unsigned char)*p))
		return -EINVAL;
	for (; isdigit((unsigned char)*p); p++)
		overflow |= __builtin_mul_overflow(number, 10, &number) ||
			    __builtin_add_overflow(number, (uint64_t)(*p - '0'), &number);
	if (*p && p[1])
		return -EINVAL;
	if (*p == '%') {
		if (overflow || number > 100)
			return -ERANGE;
		*ret_bytes = percent_of(memory_bytes, number);
		return 0;
	}
	if (*p)
		factor = unit_factor(*p);
	if (!factor)
		return -EINVAL;
	if (overflow || __builtin_mul_overflow(number, factor, &number))
		return -ERANGE;
	*ret_bytes = number;
	return 0;
}
