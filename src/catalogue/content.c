/* SPDX-License-Identifier: Apache-2.0 */
/* content.c - the digest of a whole file's content, and whether two files hold the same */
#include "foldfs/content.h"

#include "foldfs/catalogue.h"
#include "foldfs/xxh3.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bytes compared at once. */
#define CHUNK (256u << 10)

struct content_digest {
	XXH3_state_t *state;
	const void *secret; /* borrowed, for the file that was begun */
};

struct content_digest *content_digest_new(void)
{
	struct content_digest *digest = calloc(1, sizeof(*digest));

	if (digest)
		digest->state = XXH3_createState();
	if (digest && !digest->state) {
		free(digest);
		return NULL;
	}
	return digest;
}

void content_digest_free(struct content_digest *digest)
{
	if (!digest)
		return;
	XXH3_freeState(digest->state);
	free(digest);
}

void content_digest_begin(struct content_digest *digest, const void *secret)
{
	digest->secret = secret;
	XXH3_128bits_reset_withSecret(digest->state, secret, CATALOGUE_SECRET_BYTES);
}

uint64_t content_digest_add(struct content_digest *digest, const void *page, uint64_t number)
{
	struct {
		uint64_t number;
		XXH128_hash_t hash;
	} entry = {.number = number};

	entry.hash = XXH3_128bits_withSecret(page, FOLD_PAGE_SIZE, digest->secret,
					     CATALOGUE_SECRET_BYTES);
	XXH3_128bits_update(digest->state, &entry, sizeof(entry));
	return entry.hash.low64;
}

void content_digest_end(struct content_digest *digest, uint64_t size, struct digest *ret_content)
{
	XXH128_hash_t hash;

	XXH3_128bits_update(digest->state, &size, sizeof(size));
	hash = XXH3_128bits_digest(digest->state);
	*ret_content = (struct digest){.low = hash.low64, .high = hash.high64};
}

/* ---- comparing ---- */

/* All of WANT bytes at OFFSET. -EUCLEAN: the file ends before. */
static errint_t read_whole(int fd, uint8_t *buffer, size_t want, uint64_t offset)
{
	size_t got = 0;

	while (got < want) {
		ssize_t part = pread(fd, buffer + got, want - got, (off_t)(offset + got));

		if (part < 0 && errno == EINTR)
			continue;
		if (part <= 0)
			return part ? -errno : -EUCLEAN;
		got += (size_t)part;
	}
	return 0;
}

/* Read WANT bytes at OFFSET, which begins a page, into the first of BUFFERS (two chunks), and fill
 * up the last page with zeroes. Unless OF is -1, compare them with the same bytes of OF. */
static errint_t compare_chunk(int fd, int of, uint8_t *buffers, size_t want, uint64_t offset)
{
	errint_t error = read_whole(fd, buffers, want, offset);

	if (!error && of >= 0)
		error = read_whole(of, buffers + CHUNK, want, offset);
	if (!error && of >= 0 && memcmp(buffers, buffers + CHUNK, want))
		error = -EUCLEAN;
	if (!error)
		memset(buffers + want, 0, -want & FOLD_PAGE_MASK);
	return error;
}

static void add_chunk(struct content_digest *digest, const uint8_t *bytes, size_t length,
		      uint64_t offset)
{
	for (size_t at = 0; at < length; at += FOLD_PAGE_SIZE)
		if (!fold_page_is_zero(bytes + at))
			(void)content_digest_add(digest, bytes + at, fold_page_of(offset + at));
}

errint_t content_compare(int fd, int of, uint64_t size, const void *secret,
			 bool (*is_cancelled)(void *context), void *context,
			 struct digest *ret_content)
{
	struct content_digest *digest = content_digest_new();
	uint8_t *buffers = aligned_alloc(FOLD_PAGE_SIZE, (size_t)2 * CHUNK);
	errint_t error = digest && buffers ? 0 : -ENOMEM;

	if (!error)
		content_digest_begin(digest, secret);
	for (uint64_t offset = 0; offset < size && !error; offset += CHUNK) {
		size_t want = size - offset < CHUNK ? (size_t)(size - offset) : CHUNK;

		error = compare_chunk(fd, of, buffers, want, offset);
		if (!error)
			add_chunk(digest, buffers, want, offset);
		if (!error && is_cancelled && is_cancelled(context))
			error = -ECANCELED;
	}
	if (!error)
		content_digest_end(digest, size, ret_content);
	free(buffers);
	content_digest_free(digest);
	return error;
}
