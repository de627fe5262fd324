/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content.h - the digest of a whole file's content, and whether two files hold the same
 *
 * The digest covers the file's size, and the digests and numbers of its pages that are not zero. So
 * holes cost nothing, and count as the zeroes that they read as. The secret is the catalogue's.
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
/* Begin a file with SECRET (CATALOGUE_SECRET_BYTES), which is borrowed until the file ends. */
void content_digest_begin(struct content_digest *digest, const void *secret);
/* Add the file's next page that is not all zero, with its NUMBER. Returns the page's own digest. */
uint64_t content_digest_add(struct content_digest *digest, const void *page, uint64_t number);
/* End the file, of SIZE bytes: all its pages were added. */
void content_digest_end(struct content_digest *digest, uint64_t size, struct digest *ret_content);

/*
 * Read SIZE bytes of the file open as FD, and return their digest. Unless OF is -1, compare the
 * bytes with the file open as OF. IS_CANCELLED is called now and then; it may be NULL. Reads and
 * blocks. -EUCLEAN: the bytes differ, or one file does not have SIZE bytes; -ECANCELED; -ENOMEM;
 * -errno of reading.
 */
errint_t content_compare(int fd, int of, uint64_t size, const void *secret,
			 bool (*is_cancelled)(void *context), void *context,
			 struct digest *ret_content);

#endif
