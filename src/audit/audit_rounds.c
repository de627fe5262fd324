/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_rounds.c - what each part of an audit does: looks at files, compares in rounds, reports
 *
 * When does something count as a difference? Every step that puts two figures out of agreement for
 * a moment runs within one RCU read side, from its first change to its last: a slot and its frame's
 * users, a frame's life and the gauges, the queue, the index. So two counts with a grace period in
 * between do not see the same step. If a difference stays the same over all rounds, no step
 * explains it. Some steps may take longer: a read that holds frames or a kin while the source is
 * slow, or the trimmer in the kernel. There the owner of the step says that it is at work, and the
 * sum is `busy`.
 */
#include "audit_internal.h"

#include "foldfs/rcu.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Rounds beside traffic: 31 ms of waiting, and as many grace periods as waits. */
#define ROUNDS 6u
/* Rounds on an idle mount: about three seconds, so that the kernel's last requests arrive. */
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
	/* A path may contain any bytes; the report is plain text. */
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
	report->findings++;
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

/* One sum, over all rounds. */
struct verdict {
	uint64_t counted;
	uint64_t said;
	bool agreed;
	bool changed; /* it differed between rounds, or was busy in one */
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
			audit_found(audit, sums[i].check,
				    "%s: %llu were counted, but %llu are recorded", sums[i].what,
				    (unsigned long long)sums[i].counted,
				    (unsigned long long)sums[i].said);
	}
	return 0;
}
