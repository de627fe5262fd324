/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_pool.c - audit: frames against their digests, the index, the lists and the slots
 *
 * Checked by one look, because the look shows a single moment: links of a queued frame, users of a
 * frame that is not live, the digest of a live frame, its place in the index.
 *
 * Checked over several rounds, and only for the frames concerned: users against slots, a live frame
 * in no queue, a dead frame in a queue. A frame is followed as long as its life (generation) lasts.
 * If it was in order once, it is dropped. If it differed in the same way in all rounds, that is a
 * difference.
 *
 * Only queued frames are looked into. A frame that is in no queue may belong to its taker, who may
 * write to it. A queued frame stays as it is for the rest of the read side, whatever happens to it
 * (page_store, A.2).
 */
#include "audit_internal.h"

#include "foldfs/rcu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Frames whose bytes are hashed within one read side: 1 MiB, as in a request. */
#define BATCH 256u
/* Frames that are followed over the rounds. If more differ, the rest is not followed. */
#define SUSPECTS_MAX 4096u

enum suspicion {
	SUSPECT_USERS,    /* the number of users is not that of slots */
	SUSPECT_UNQUEUED, /* live, in no queue */
	SUSPECT_DEAD,     /* not live, in a queue */
};

struct suspect {
	struct frame_ref ref;
	enum suspicion suspicion;
	uint32_t users;
	uint32_t slots;
	bool changed; /* not the same in all rounds */
	bool cleared;
};

struct census {
	struct audit *audit;
	uint32_t frames; /* ever used */
	uint32_t *slots; /* of each frame: how many slots hold it in its present life */
	struct suspect *suspects;
	unsigned count;
};

static uint64_t frames_in_use(struct page_store *store)
{
	struct frame_lists lists;

	page_store_lists(store, &lists);
	return lists.used_before;
}

/* ---- slots, by frame ---- */

static void count_stretch(struct census *census, const struct page_stretch *stretch)
{
	struct page_store *store = census->audit->subject->store;
	struct frame_ref ref = stretch->ref;
	uint64_t i;

	for (i = 0; i < stretch->pages; i++, ref.frame++)
		if (ref.frame < census->frames && page_store_users(store, ref))
			census->slots[ref.frame]++;
}

static void count_file(void *context, struct file *file)
{
	struct census *census = context;
	struct page_stretch stretches[256];
	struct page_walk walk = {.end = PAGE_WALK_ALL};
	unsigned count;
	unsigned i;

	while (walk.next < walk.end) {
		count = page_map_walk(file_map(file), &walk, 256, stretches);
		for (i = 0; i < count; i++)
			if (stretches[i].kind != STRETCH_ZERO)
				count_stretch(census, &stretches[i]);
	}
}

static errint_t count_slots(struct census *census)
{
	/* What maps have given up still holds its frames, but is in no slot. */
	page_map_memory_settle(census->audit->subject->memory);
	memset(census->slots, 0, census->frames * sizeof(*census->slots));
	return audit_each_file(census->audit, count_file, census);
}

/* ---- one look at each frame ---- */

static void suspect(struct census *census, const struct frame_report *report,
		    enum suspicion suspicion)
{
	if (census->count == SUSPECTS_MAX)
		return;
	census->suspects[census->count++] = (struct suspect){
		.ref = report->ref,
		.suspicion = suspicion,
		.users = report->users,
		.slots = census->slots[report->ref.frame],
	};
}

static void verify(struct audit *audit, struct frame_ref ref)
{
	unsigned wrong = page_store_verify(audit->subject->store, ref);

	audit->report->lines[AUDIT_DIGESTS].checked++;
	audit->report->lines[AUDIT_INDEX].checked++;
	if (wrong & FRAME_WRONG_DIGEST)
		audit_found(audit, AUDIT_DIGESTS, "frame %u: its digest is not that of its bytes",
			    ref.frame);
	if (wrong & FRAME_NOT_INDEXED)
		audit_found(audit, AUDIT_INDEX, "frame %u: the index does not find it", ref.frame);
	if (wrong & FRAME_TWICE)
		audit_found(audit, AUDIT_INDEX, "frame %u: another frame has the same bytes",
			    ref.frame);
}

/* To be called in the read side in which REPORT was made. */
static void look_at_queued(struct census *census, const struct frame_report *report)
{
	struct audit *audit = census->audit;

	if (!report->linked)
		audit_found(audit, AUDIT_LISTS,
			    "frame %u: its neighbours in the queue do not point to it",
			    report->ref.frame);
	if (!report->users) {
		suspect(census, report, SUSPECT_DEAD);
		return;
	}
	audit->report->lines[AUDIT_USERS].checked++;
	if (report->users != census->slots[report->ref.frame])
		suspect(census, report, SUSPECT_USERS);
	if (!report->private)
		verify(audit, report->ref);
}

static void look_at(struct census *census, const struct frame_report *report)
{
	struct audit *audit = census->audit;

	if (report->place == FRAME_PLACE_FRESH)
		return;
	audit->report->lines[AUDIT_LISTS].checked++;
	if (report->place == FRAME_PLACE_QUEUED)
		look_at_queued(census, report);
	else if (report->place == FRAME_PLACE_TAKEN && report->users)
		suspect(census, report, SUSPECT_UNQUEUED);
	else if (report->users)
		audit_found(audit, AUDIT_LISTS, "frame %u: it is not live, but has %u users",
			    report->ref.frame, report->users);
}

static errint_t look_at_all(struct census *census)
{
	struct page_store *store = census->audit->subject->store;
	struct frame_report reports[BATCH];
	uint32_t frame;
	unsigned count;
	unsigned i;

	for (frame = 0; frame < census->frames; frame += count) {
		if (audit_is_cancelled(census->audit))
			return -ECANCELED;
		count = census->frames - frame < BATCH ? census->frames - frame : BATCH;
		fold_rcu_read_lock();
		page_store_report(store, frame, count, reports);
		for (i = 0; i < count; i++)
			look_at(census, &reports[i]);
		fold_rcu_read_unlock();
	}
	return 0;
}

/* ---- further looks at a few ---- */

static bool is_in_order(const struct suspect *suspect, const struct frame_report *report,
			uint32_t slots)
{
	if (report->ref.generation != suspect->ref.generation)
		return true;
	switch (suspect->suspicion) {
	case SUSPECT_USERS:
		return !report->users || report->users == slots;
	case SUSPECT_UNQUEUED:
		return !report->users || report->place != FRAME_PLACE_TAKEN;
	default:
		return report->users || report->place != FRAME_PLACE_QUEUED;
	}
}

static void look_again(struct census *census, struct suspect *suspect)
{
	uint32_t slots = census->slots[suspect->ref.frame];
	struct frame_report report;

	page_store_report(census->audit->subject->store, suspect->ref.frame, 1, &report);
	suspect->cleared = is_in_order(suspect, &report, slots);
	suspect->changed |= report.users != suspect->users || slots != suspect->slots;
	suspect->users = report.users;
	suspect->slots = slots;
}

/* Drop the suspects that are in order. */
static void drop_cleared(struct census *census)
{
	unsigned kept = 0;
	unsigned i;

	for (i = 0; i < census->count; i++)
		if (!census->suspects[i].cleared)
			census->suspects[kept++] = census->suspects[i];
	census->count = kept;
}

static errint_t follow_suspects(struct census *census)
{
	struct audit *audit = census->audit;
	errint_t error = 0;
	unsigned round;
	unsigned i;

	for (round = 1; census->count && round < audit_rounds(audit); round++) {
		error = audit_settle(audit, round);
		if (!error)
			error = count_slots(census);
		if (error)
			return error;
		for (i = 0; i < census->count; i++)
			look_again(census, &census->suspects[i]);
		drop_cleared(census);
	}
	return 0;
}

static void accuse(struct audit *audit, const struct suspect *suspect)
{
	bool users = suspect->suspicion == SUSPECT_USERS;
	enum audit_check check = users ? AUDIT_USERS : AUDIT_LISTS;

	if (suspect->changed && !audit->idle)
		audit->report->lines[check].unsteady++;
	else if (users)
		audit_found(audit, check, "frame %u: it has %u users, but %u slots use it",
			    suspect->ref.frame, suspect->users, suspect->slots);
	else if (suspect->suspicion == SUSPECT_UNQUEUED)
		audit_found(audit, check, "frame %u: it is live, but in no queue",
			    suspect->ref.frame);
	else
		audit_found(audit, check, "frame %u: it is not live, but in a queue",
			    suspect->ref.frame);
}

errint_t audit_pool(struct audit *audit)
{
	struct census census = {.audit = audit,
				.frames = (uint32_t)frames_in_use(audit->subject->store)};
	errint_t error = 0;
	unsigned i;

	census.slots = calloc(census.frames + 1, sizeof(*census.slots));
	census.suspects = calloc(SUSPECTS_MAX, sizeof(*census.suspects));
	if (!census.slots || !census.suspects)
		error = -ENOMEM;
	audit_took_memory(audit, census.frames * sizeof(*census.slots) +
					 SUSPECTS_MAX * sizeof(*census.suspects));
	if (!error)
		error = count_slots(&census);
	if (!error)
		error = look_at_all(&census);
	if (!error)
		error = follow_suspects(&census);
	for (i = 0; !error && i < census.count; i++)
		accuse(audit, &census.suspects[i]);
	free(census.slots);
	free(census.suspects);
	return error;
}

/* ---- sums ---- */

struct tally {
	uint64_t places[FRAME_PLACES];
	uint64_t taken; /* not live, and in no list */
	uint64_t live;
	uint64_t private;
	uint64_t shared;  /* with two users or more */
	uint64_t sharing; /* users beyond the first */
	uint64_t linked;  /* seen along the links of the two queues */
	uint64_t free;    /* seen along the links of the free list */
	bool moved;       /* frames moved while they were counted */
};

static void tally_frame(struct tally *tally, const struct frame_report *report)
{
	tally->places[report->place]++;
	tally->taken += report->place == FRAME_PLACE_TAKEN && !report->users;
	if (!report->users)
		return;
	tally->live++;
	tally->private += report->private;
	tally->shared += report->users > 1;
	tally->sharing += report->users - 1;
}

static void tally_links(struct page_store *store, uint64_t moves, struct tally *tally)
{
	enum frame_walk_step step = FRAME_WALK_DONE;
	struct frame_walk walk;
	unsigned list;

	for (list = 0; list < FRAME_WALK_LISTS && step == FRAME_WALK_DONE; list++) {
		walk = (struct frame_walk){.moves = moves, .list = (uint8_t)list};
		do
			step = page_store_walk(store, &walk);
		while (step == FRAME_WALK_MORE);
		if (list)
			tally->linked += walk.seen;
		else
			tally->free = walk.seen;
	}
	tally->moved |= step == FRAME_WALK_MOVED;
}

static errint_t take_tally(struct audit *audit, struct frame_lists *ret_lists, struct tally *tally)
{
	struct page_store *store = audit->subject->store;
	uint32_t frames = (uint32_t)frames_in_use(store);
	struct frame_report reports[BATCH];
	struct frame_lists after;
	uint32_t frame;
	unsigned count;
	unsigned i;

	page_store_lists(store, ret_lists);
	for (frame = 0; frame < frames; frame += count) {
		if (audit_is_cancelled(audit))
			return -ECANCELED;
		count = frames - frame < BATCH ? frames - frame : BATCH;
		page_store_report(store, frame, count, reports);
		for (i = 0; i < count; i++)
			tally_frame(tally, &reports[i]);
	}
	tally_links(store, ret_lists->moves, tally);
	page_store_lists(store, &after);
	tally->moved |= after.moves != ret_lists->moves;
	return 0;
}

static void add(struct audit_sum sums[], int *count, const char *what, uint64_t counted,
		uint64_t said, bool busy)
{
	sums[(*count)++] = (struct audit_sum){
		.check = AUDIT_POOL, .what = what, .counted = counted, .said = said, .busy = busy};
}

int audit_pool_sums(struct audit *audit, struct audit_sum sums[])
{
	const struct audit_subject *subject = audit->subject;
	bool at_work = atomic_load_explicit(&subject->filler->at_work, memory_order_relaxed);
	struct page_store_usage usage;
	struct frame_lists lists;
	struct tally tally = {.moved = false};
	const uint32_t *said = lists.length;
	errint_t error = take_tally(audit, &lists, &tally);
	bool moved = tally.moved;
	int count = 0;

	if (error)
		return error;
	page_store_usage(subject->store, &usage);
	add(sums, &count, "frames in the queues", tally.places[FRAME_PLACE_QUEUED],
	    said[FRAME_PLACE_QUEUED], moved);
	add(sums, &count, "frames along the queues' links", tally.linked, said[FRAME_PLACE_QUEUED],
	    moved);
	add(sums, &count, "free frames", tally.places[FRAME_PLACE_FREE], said[FRAME_PLACE_FREE],
	    moved);
	add(sums, &count, "frames along the free list's links", tally.free, said[FRAME_PLACE_FREE],
	    moved);
	add(sums, &count, "frames in limbo", tally.places[FRAME_PLACE_LIMBO],
	    said[FRAME_PLACE_LIMBO], moved);
	/* Frames taken by a read belong to a read that is at work. All others are taken and
	 * returned within one read side. */
	add(sums, &count, "frames that are taken, but by no read", tally.taken, 0,
	    moved || at_work);
	add(sums, &count, "entries of the index", tally.live - tally.private, lists.index_entries,
	    moved);
	add(sums, &count, "frames_used", tally.live, usage.frames_used, moved);
	add(sums, &count, "pages_volatile", tally.private, usage.pages_volatile, moved);
	add(sums, &count, "pages_shared", tally.shared, usage.pages_shared, moved);
	add(sums, &count, "pages_sharing", tally.sharing, usage.pages_sharing, moved);
	return count;
}
