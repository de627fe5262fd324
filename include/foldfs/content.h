/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content.h - the digest of a whole file's content, and whether two files hold the same
 *
 * The digest is that of the file's size and of the digests and numbers of its pages that are not
 * zero. So holes cost nothing, and look like the zeroes that they are. Its secret is the
 * catalogue's.
 *
 * A struct content_digest belongs to one thread at a time.
 */
#ifndef FOLDFS_CONTENT_H
#define FOLDFS_CONTENT_H

#include "foldfs/page.h"

struct content_digest;

/* NULL: no memory. */
struct content_digest *content_digest_new(void);
void content_digest_free(struct content_digest *digest);
/* Begin a file, with SECRET (CATALOGUE_SECRET_BYTES), borrowed until it ends. */
void content_digest_begin(struct content_digest *digest, const void *secret);
/* The file's next page that is not all zero, with its NUMBER. Returns the page's own digest. */
uint64_t content_digest_add(struct content_digest *digest, const void *page, uint64_t number);
/* All pages of the file, of SIZE bytes, are there. */
void content_digest_end(struct content_digest *digest, uint64_t size, struct digest *ret_content);

/*
 * Read SIZE bytes of the file open as FD, and say what their digest is. Unless OF is -1, compare
 * them with the file open as that. IS_CANCELLED, asked now and then, may be NULL. Reads and blocks.
 * -EUCLEAN: they differ, or one has not SIZE bytes; -ECANCELED; -ENOMEM; -errno of reading.
 */
errint_t content_compare(int fd, int of, uint64_t size, const void *secret,
			 bool (*is_cancelled)(void *context), void *context,
			 struct digest *ret_content);

#endif
