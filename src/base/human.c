/* SPDX-License-Identifier: Apache-2.0 */
/* human.c - sizes, numbers and foreign text as people write and read them */
#include "foldfs/human.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The bytes of the control character at TEXT: one, or two from U+0080 to U+009F. 0: none is
 * there. */
static size_t control_length(const char *text)
{
	unsigned char first = (unsigned char)text[0], second;

	if ((first > 0 && first < 0x20) || first == 0x7f)
		return 1;
	if (first != 0xc2)
		return 0;
	second = (unsigned char)text[1];
	return second >= 0x80 && second <= 0x9f ? 2 : 0;
}

void human_print_foreign(FILE *stream, const char *text)
{
	while (*text) {
		size_t length = control_length(text);

		fputc(length ? '?' : *text, stream);
		text += length ? length : 1;
	}
}

const char *human_size(int64_t bytes, struct human_buffer *buffer)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = bytes < 0 ? -(double)bytes : (double)bytes;
	const char *sign = bytes < 0 ? "-" : "";
	unsigned unit = 0;

	for (; value >= 1023.5 && unit + 1 < sizeof(units) / sizeof(units[0]); unit++)
		value /= 1024;
	snprintf(buffer->text, sizeof(buffer->text), "%s%.*f %s", sign,
		 unit == 0 || value >= 99.95 ? 0
		 : value >= 9.995            ? 1
					     : 2,
		 value, units[unit]);
	return buffer->text;
}

const char *human_count(int64_t count, struct human_buffer *buffer)
{
	char digits[32];
	size_t length, out = 0;

	snprintf(digits, sizeof(digits), "%" PRId64, count);
	length = strlen(digits);
	for (size_t i = 0; i < length; i++) {
		size_t left = length - i;

		if (i > 0 && left % 3 == 0 && digits[i - 1] != '-')
			buffer->text[out++] = ' ';
		buffer->text[out++] = digits[i];
	}
	buffer->text[out] = '\0';
	return buffer->text;
}

const char *human_duration(int64_t seconds, struct human_buffer *buffer)
{
	static const struct {
		int64_t seconds;
		const char *unit;
	} units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
	unsigned u = 0;

	while (u < 3 && seconds < units[u].seconds)
		u++;
	if (u == 3)
		snprintf(buffer->text, sizeof(buffer->text), "%" PRId64 " s", seconds);
	else
		snprintf(buffer->text, sizeof(buffer->text), "%" PRId64 " %s %" PRId64 " %s",
			 seconds / units[u].seconds, units[u].unit,
			 seconds % units[u].seconds / units[u + 1].seconds, units[u + 1].unit);
	return buffer->text;
}

void human_complain(const char *program, const char *format, va_list args)
{
	char *text = NULL;

	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	fprintf(stderr, "%s: ", program);
	human_print_foreign(stderr, text ? text : "not enough memory to say what is wrong.");
	fputc('\n', stderr);
	free(text);
}

const char *human_option_value(char ***argv, const char *name)
{
	const char *word = **argv;
	size_t length = strlen(name);

	if (strncmp(word, name, length) != 0)
		return NULL;
	if (word[length] == '=')
		return word + length + 1;
	return word[length] || !(*argv)[1] ? NULL : *++*argv;
}

/* The factor of a unit; 0 for an unknown one. */
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

errint_t human_parse_size(const char *text, uint64_t memory_bytes, uint64_t *ret_bytes)
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
