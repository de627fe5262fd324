/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content.c - bytes that tell which content they belong to
 *
 * Content is a stream of words of 64 bits: a mark (16 bits), the content's number (32), and the
 * word's place (16). There are two kinds:
 * - A letter's stream repeats on every fourth page, so that pages of different files and places are
 *   equal. Moved by a shift, it gives the same bytes at other offsets of the page.
 * - A unique content's stream tells in each word, of a file of up to 512 KiB, where the word
 *   belongs.
 */
#include "torture.h"

#include <endian.h>
#include <string.h>

#define MARK         0xf01du
#define LETTER_PAGES 4u
#define WORD         sizeof(uint64_t)

static uint64_t word_of(uint32_t id, uint64_t place)
{
	uint64_t period = id >= UNIQUE ? 1u << 16 : LETTER_PAGES * PAGE / WORD;

	if (!id)
		return 0;
	return htole64((uint64_t)MARK << 48 | (uint64_t)id << 16 | (place % period));
}

void content_fill(uint32_t id, uint32_t shift, uint64_t offset, void *buffer, size_t length)
{
	uint8_t *bytes = buffer;
	uint64_t place = (offset + shift) / WORD;
	size_t within = (offset + shift) % WORD;

	while (length) {
		uint64_t word = word_of(id, place++);
		size_t part = WORD - within < length ? WORD - within : length;

		memcpy(bytes, (const uint8_t *)&word + within, part);
		bytes += part;
		length -= part;
		within = 0;
	}
}

static bool is_word(const uint8_t *bytes, size_t length, size_t at, uint64_t *ret_word)
{
	uint64_t word;

	if (at + WORD > length)
		return false;
	memcpy(&word, bytes + at, WORD);
	*ret_word = le64toh(word);
	return *ret_word >> 48 == MARK && (uint32_t)(*ret_word >> 16);
}

/* The word of a stream that covers AT, or else the next one, if there is one near. */
static bool find_word(const uint8_t *bytes, size_t length, size_t at, uint64_t *ret_word)
{
	size_t near;

	for (near = 0; near < WORD && near <= at; near++)
		if (is_word(bytes, length, at - near, ret_word))
			return true;
	for (near = 1; near < WORD && bytes[at]; near++)
		if (is_word(bytes, length, at + near, ret_word))
			return true;
	return false;
}

static bool is_zero_around(const uint8_t *bytes, size_t length, size_t at)
{
	size_t end = at + WORD < length ? at + WORD : length;

	for (; at < end; at++)
		if (bytes[at])
			return false;
	return true;
}

void content_describe(const uint8_t *bytes, size_t length, size_t at, char *text, size_t room)
{
	uint64_t word;
	size_t used;
	uint32_t id;
	size_t i;

	if (find_word(bytes, length, at, &word)) {
		id = (uint32_t)(word >> 16);
		if (id >= UNIQUE)
			snprintf(text, room, "operation %u of worker %u, its word %u",
				 id & 0xffffff, id >> 24 & 0x7f, (unsigned)(word & 0xffff));
		else
			snprintf(text, room, "letter %u, its word %u", id,
				 (unsigned)(word & 0xffff));
		return;
	}
	if (is_zero_around(bytes, length, at)) {
		snprintf(text, room, "zeroes");
		return;
	}
	used = (size_t)snprintf(text, room, "bytes");
	for (i = at; i < length && i < at + 16 && used + 4 < room; i++)
		used += (size_t)snprintf(text + used, room - used, " %02x", bytes[i]);
}
