/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit.c - compares a live mount with its source and with itself: the course of it, and sums
 *
 * When a difference is one. Every step that puts two figures out of agreement for a moment is made
 * within one RCU read side, from the first of them to the last: a slot and its frame's users, a
 * frame's life and the gauges, the queue, the index. So two counts with a grace period in between
 * do not see the same step. A difference that stays the same over all rounds is nobody's step.
 * Where a step may take longer (a read that holds frames or a kin while the source is slow, the
 * trimmer in the kernel), its owner says that it is at work, and the sum is `busy`.
 *
 * The inside of a module is its own: page_map, page_store, hash_index, file, family, window and
 * inode tell what they hold, by walkers that change nothing; only comparing is done here.
 */
#include "audit_internal.h"

#include "foldfs/kin_file.h"
#include "foldfs/rcu.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rounds beside traffic: 31 ms of waiting and as many grace periods. */
#define ROUNDS 6u
/* Rounds on an idle mount: about three seconds, for the kernel's last requests to come in. */
#define ROUNDS_IDLE 16u
#define NAP_MAX_MS  300u

bool audit_is_cancelled(const struct audit *audit)
{
	const struct audit_subject *subject = audit->subject;

	return subject->is_cancelled && subject->is_cancelled(subject->context);
}

void audit_found(struct audit *audit, enum audit_check check, const char *format, ...)
{
	struct audit_report *report = audit->report;
	char *text = report->texts[report->findings];
	va_list args;

	report->lines[check].different++;
	if (report->findings == AUDIT_FINDINGS)
		return;
	va_start(args, format);
	vsnprintf(text, AUDIT_TEXT_SIZE, format, args);
	va_end(args);
	/* A path may be any bytes; the report is plain text. */
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
	report->findings++;
}

uint64_t audit_differences(const struct audit_report *report)
{
	uint64_t differences = 0;

	for (unsigned check = 0; check < AUDIT_COUNT; check++)
		differences += report->lines[check].different;
	return differences;
}

void audit_took_memory(struct audit *audit, uint64_t bytes)
{
	audit->report->memory_bytes += bytes;
}

int audit_key_order(const void *a, const void *b)
{
	const struct file_key *left = a;
	const struct file_key *right = b;

	if (left->inode != right->inode)
		return left->inode < right->inode ? -1 : 1;
	return left->device < right->device ? -1 : left->device > right->device;
}

errint_t audit_take_keys(struct audit *audit)
{
	struct file_key *keys;
	size_t count;
	errint_t error = file_table_keys(audit->subject->files, &keys, &count);

	if (error)
		return error;
	free(audit->keys);
	audit->keys = keys;
	audit->key_count = count;
	if (count)
		qsort(keys, count, sizeof(*keys), audit_key_order);
	return 0;
}

errint_t audit_each_file(struct audit *audit, audit_file_fn *visit, void *context)
{
	errint_t error = audit_take_keys(audit);
	struct file *file;
	size_t i;

	for (i = 0; !error && i < audit->key_count; i++) {
		file = file_table_peek(audit->subject->files, &audit->keys[i]);
		if (!file)
			continue;
		visit(context, file);
		file_put(file);
		if (audit_is_cancelled(audit))
			error = -ECANCELED;
	}
	return error;
}

/* ---- rounds ---- */

unsigned audit_rounds(const struct audit *audit)
{
	return audit->idle ? ROUNDS_IDLE : ROUNDS;
}

errint_t audit_settle(const struct audit *audit, unsigned round)
{
	unsigned ms = round < 10 ? 1u << (round - 1) : NAP_MAX_MS;
	struct timespec nap = {.tv_nsec = (ms < NAP_MAX_MS ? ms : NAP_MAX_MS) * 1000000L};

	if (audit_is_cancelled(audit))
		return -ECANCELED;
	nanosleep(&nap, NULL);
	fold_rcu_synchronize();
	return 0;
}

/* One sum over the rounds. */
struct verdict {
	uint64_t counted;
	uint64_t said;
	bool agreed;
	bool changed; /* it was not the same in all rounds, or busy in one */
};

/* Whether every sum has agreed once. */
static bool judge(struct verdict verdicts[], const struct audit_sum sums[], int count,
		  unsigned round)
{
	bool all = true;
	int i;

	for (i = 0; i < count; i++) {
		struct verdict *verdict = &verdicts[i];

		verdict->agreed |= !sums[i].busy && sums[i].counted == sums[i].said;
		verdict->changed |=
			sums[i].busy || (round && (verdict->counted != sums[i].counted ||
						   verdict->said != sums[i].said));
		verdict->counted = sums[i].counted;
		verdict->said = sums[i].said;
		all &= verdict->agreed;
	}
	return all;
}

errint_t audit_sums(struct audit *audit, audit_take_fn *take)
{
	struct verdict verdicts[AUDIT_SUMS_MAX] = {{0}};
	struct audit_sum sums[AUDIT_SUMS_MAX];
	errint_t error = 0;
	int count = 0;
	unsigned round;
	int i;

	for (round = 0; round < audit_rounds(audit); round++) {
		if (round)
			error = audit_settle(audit, round);
		if (error)
			return error;
		count = take(audit, sums);
		if (count < 0)
			return count;
		if (judge(verdicts, sums, count, round))
			break;
	}
	for (i = 0; i < count; i++) {
		struct audit_line *line = &audit->report->lines[sums[i].check];

		line->checked++;
		if (verdicts[i].agreed)
			continue;
		if (verdicts[i].changed && !audit->idle)
			line->unsteady++;
		else
			audit_found(audit, sums[i].check, "%s: %llu were counted, %llu are said",
				    sums[i].what, (unsigned long long)sums[i].counted,
				    (unsigned long long)sums[i].said);
	}
	return 0;
}

/* ---- maps, files, window, inodes ---- */

/* Of one kind of memory: bytes, and what is in it. */
struct amount {
	uint64_t bytes;
	uint64_t count;
};

/* Memory and zero pages of the map of FILE. */
static void count_map(void *context, struct file *file)
{
	struct amount *amount = context;
	struct page_stretch stretches[64];
	struct page_walk walk = {.end = PAGE_WALK_ALL};
	unsigned count;
	unsigned i;

	while (walk.next < walk.end) {
		count = page_map_walk(file_map(file), &walk, 64, stretches);
		for (i = 0; i < count; i++)
			if (stretches[i].kind == STRETCH_ZERO)
				amount->count += stretches[i].pages;
	}
	amount->bytes += walk.bytes;
}

static int take_map_sums(struct audit *audit, struct audit_sum sums[])
{
	const struct audit_subject *subject = audit->subject;
	struct amount maps = {.bytes = 0};
	errint_t error;

	page_map_memory_settle(subject->memory);
	error = audit_each_file(audit, count_map, &maps);
	if (error)
		return error;
	sums[0] = (struct audit_sum){.check = AUDIT_MAPS,
				     .what = "bytes of maps",
				     .counted = maps.bytes,
				     .said = page_map_memory_in_use(subject->memory)};
	sums[1] = (struct audit_sum){.check = AUDIT_MAPS,
				     .what = "zero pages",
				     .counted = maps.count,
				     .said = page_map_memory_zero_pages(subject->memory)};
	sums[2] = (struct audit_sum){.check = AUDIT_MAPS,
				     .what = "bytes of files",
				     .counted = file_table_count_bytes(subject->files),
				     .said = file_table_bytes(subject->files)};
	return 3;
}

static void count_kin(void *context, struct file *file)
{
	struct amount *amount = context;
	struct kin *kin = kin_of(file);

	if (!kin)
		return;
	for (unsigned n = 0; n < KIN_FAMILIES; n++)
		amount->count += kin_family(kin, n) != NULL;
	amount->bytes += kin_bytes(kin);
	kin_put(kin);
}

static int take_family_sums(struct audit *audit, struct audit_sum sums[])
{
	const struct audit_subject *subject = audit->subject;
	struct family_count count;
	struct amount kins = {.bytes = 0};
	errint_t error = audit_each_file(audit, count_kin, &kins);
	bool at_work;

	if (error)
		return error;
	family_table_recount(subject->families, &count);
	/* A read may hold the kin that its file has lost, and a claim. */
	at_work = atomic_load_explicit(&subject->filler->at_work, memory_order_relaxed);
	sums[0] = (struct audit_sum){.check = AUDIT_MAPS,
				     .what = "references to families",
				     .counted = kins.count,
				     .said = count.references,
				     .busy = at_work};
	sums[1] = (struct audit_sum){.check = AUDIT_MAPS,
				     .what = "bytes of families",
				     .counted = kins.bytes + count.bytes,
				     .said = family_table_in_use(subject->families),
				     .busy = at_work};
	sums[2] = (struct audit_sum){.check = AUDIT_MAPS,
				     .what = "claims of nobody",
				     .counted = count.claims,
				     .busy = at_work};
	return 3;
}

static int take_window_sums(struct audit *audit, struct audit_sum sums[])
{
	struct window_count count;

	window_count(audit->subject->window, &count);
	sums[0] = (struct audit_sum){.check = AUDIT_WINDOW,
				     .what = "pages noted in the window",
				     .counted = count.pages,
				     .said = count.pages_said,
				     .busy = count.trimming};
	sums[1] = (struct audit_sum){.check = AUDIT_WINDOW,
				     .what = "pages on their way out of the window",
				     .counted = count.closing,
				     .said = count.closing_said,
				     .busy = count.trimming};
	sums[2] = (struct audit_sum){.check = AUDIT_WINDOW,
				     .what = "regions of the window in the wrong list",
				     .counted = count.misplaced};
	/* Past the budget only as long as the trimmer is about to see it. */
	sums[3] = (struct audit_sum){.check = AUDIT_WINDOW,
				     .what = "pages in the window past its budget",
				     .counted = count.trims && count.pages_said > count.budget
							? count.pages_said - count.budget
							: 0,
				     .busy = count.trimming || count.closing_said};
	sums[4] = (struct audit_sum){.check = AUDIT_WINDOW,
				     .what = "bytes of the window",
				     .counted = count.memory,
				     .said = count.memory_said};
	return 5;
}

static int take_inode_sums(struct audit *audit, struct audit_sum sums[])
{
	struct audit_inodes count;

	audit->subject->count_inodes(audit->subject->context, &count);
	sums[0] = (struct audit_sum){.check = AUDIT_INODES,
				     .what = "inodes",
				     .counted = count.live,
				     .said = count.live_said};
	sums[1] = (struct audit_sum){.check = AUDIT_INODES,
				     .what = "inodes that are found by number",
				     .counted = count.hashed,
				     .said = count.hashed_said};
	sums[2] = (struct audit_sum){
		.check = AUDIT_INODES, .what = "inodes astray", .counted = count.astray};
	sums[3] = (struct audit_sum){.check = AUDIT_INODES,
				     .what = "bytes of inodes",
				     .counted = count.slab,
				     .said = count.slab_said};
	return 4;
}

/* ---- the course of it ---- */

errint_t audit_run(const struct audit_subject *subject, bool idle, struct audit_report *ret_report)
{
	struct audit audit = {.subject = subject, .report = ret_report, .idle = idle};
	errint_t error;

	memset(ret_report, 0, sizeof(*ret_report));
	error = audit_content(&audit);
	if (!error)
		error = audit_pairs(&audit);
	if (!error)
		error = audit_pool(&audit);
	if (!error)
		error = audit_sums(&audit, audit_pool_sums);
	if (!error)
		error = audit_sums(&audit, take_map_sums);
	if (!error && subject->families)
		error = audit_sums(&audit, take_family_sums);
	if (!error && subject->window)
		error = audit_sums(&audit, take_window_sums);
	if (!error && subject->count_inodes)
		error = audit_sums(&audit, take_inode_sums);
	free(audit.keys);
	return error;
}
