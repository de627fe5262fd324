/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fill_family.c - the part of a fill that asks the file's family before the source
 *
 * Why an adopted page is right. The family's page is the file's page under the kin's stamp, byte by
 * byte (catalogue.md). Where the two differ by now, the page was either cut out of the kin or
 * changed behind the mount. The look comes first, then the kin: if the kin is still the file's and
 * has the page, the look's ticket is good for what the kin says (kin.h, kin.c). A change behind the
 * mount that shows in the stamp is found here, before anything is adopted. A change that does not
 * show is a lie of the file's owner: then the family's page comes from a trusted file, or from a
 * file of the same writers, who still has this one.
 *
 * Why what is told is right. The frame holds what this read got from its file's source, and the kin
 * was held since before that. There are two cases.
 *   - The file had the kin's stamp after the read. The source's file system moves the stamp before
 *     it moves a byte, so these are the bytes that were compared.
 *   - The kin was proven after the read (kin.c), and the page is found uncut after that. So neither
 *     others nor this mount had changed it. This needs no stamp, and goes on after our own changes.
 */
#include "foldfs/fill_family.h"

#include "foldfs/clock.h"
#include "foldfs/counters.h"
#include "foldfs/kin_file.h"
#include "foldfs/rcu.h"

/* The longest that a read waits, in all, for others that fetch some of its pages: a disk may take
 * that long. */
#define WAIT_SECONDS 1

static bool is_missing(const struct page_read *read, unsigned i)
{
	return i < read->error_page && !read->hand[i].bytes && !read->looks[i].data;
}

/* Adopt page I, if the family has it: then it is not missing any more. The next look has the bytes,
 * within its own read side. True: it was adopted. */
static bool adopt_one(struct page_read *read, unsigned i)
{
	struct page_store *store = read->filler->store;
	struct page_map *map = file_map(read->file);
	struct page_look *look = &read->looks[i];
	uint64_t page = read->first + i;
	struct frame_ref ref;

	if (!kin_has(read->kin, page) || !kin_share(read->kin, page, &ref))
		return false;
	if (page_map_publish(map, page, look->ticket, ref)) {
		look->data = page_store_bytes(store, ref.frame);
		return true;
	}
	page_store_drop(store, ref, NULL);
	/* Another read was first, or the page was changed. If it was changed, it was cut before it
	 * got the version that is found now. So a reader that goes on with this ticket looks at the
	 * kin once more. */
	page_map_look_again(map, page, 1, look);
	return false;
}

static void adopt(struct page_read *read)
{
	unsigned adopted = 0;
	unsigned i;

	fold_rcu_read_lock();
	for (i = 0; file_kin(read->file) == read->kin && i < read->pages; i++) {
		if (!is_missing(read, i))
			continue;
		adopted += adopt_one(read, i);
		read->missing -= !is_missing(read, i);
	}
	fold_rcu_read_unlock();
	if (adopted)
		counters_add(read->filler->counters, COUNTER_ADOPTED, adopted);
}

/* The first and the last missing page that the kin has. False: there is none. */
static bool missing_kin(const struct page_read *read, uint64_t *ret_first, uint64_t *ret_last)
{
	bool any = false;
	unsigned i;

	for (i = 0; i < read->pages; i++) {
		if (!is_missing(read, i) || !kin_has(read->kin, read->first + i))
			continue;
		if (!any)
			*ret_first = read->first + i;
		*ret_last = read->first + i;
		any = true;
	}
	return any;
}

/* Adopt, or claim what is missing in the family that READ will tell. A read that will tell nothing
 * makes no other reader wait. */
static bool adopt_or_claim(struct page_read *read)
{
	struct family *told = kin_told(read->kin);
	struct timespec until;
	uint64_t first;
	uint64_t last;
	bool tells;

	adopt(read);
	if (!told || !missing_kin(read, &first, &last))
		return read->missing;
	tells = fill_family_is_exact(read);
	until = clock_at(clock_now_ns() + WAIT_SECONDS * NS_PER_S);
	while (missing_kin(read, &first, &last)) {
		if (tells ? family_claim(told, first, last, &read->claim)
			  : !family_is_claimed(told, first, last))
			break;
		if (read->ahead)
			return false;
		counters_add(read->filler->counters, COUNTER_ADOPT_WAITS, 1);
		if (!family_wait(told, first, last, &until))
			break;
		adopt(read);
	}
	/* Adopt also what was published between the look and the claim. */
	adopt(read);
	return read->missing;
}

bool fill_family_pages(struct page_read *read)
{
	int fd = source_fd(read->source);
	bool unchanged;

	if (read->asked_kin)
		return true;
	read->asked_kin = true;
	read->kin = kin_of(read->file);
	if (!read->kin)
		return true;
	(void)file_validate(read->file, fd, &unchanged);
	if (kin_is_spoilt(read->kin, fd))
		file_give_up_kin(read->file, read->kin);
	/* Otherwise the file is changing hands just now: what is found here may not be told to its
	 * new owners. */
	else if (kin_has_writers(read->kin, read->file, fd))
		return adopt_or_claim(read);
	kin_put(read->kin);
	read->kin = NULL;
	return true;
}

bool fill_family_is_exact(const struct page_read *read)
{
	return read->kin &&
	       (kin_is_exact(read->kin, source_fd(read->source)) || kin_is_proven(read->kin));
}

void fill_family_tell(const struct page_read *read, unsigned i, struct frame_ref ref)
{
	uint64_t page = read->first + i;

	if (kin_told(read->kin) && kin_has(read->kin, page))
		family_remember(kin_told(read->kin), page, ref);
}

void fill_family_end(struct page_read *read)
{
	family_unclaim(&read->claim);
	if (read->kin)
		kin_put(read->kin);
	read->kin = NULL;
}
