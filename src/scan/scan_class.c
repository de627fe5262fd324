/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_class.c - the second and third step: counts what each file shares, and finds equal files
 *
 * The second step goes through the catalogue once. A record whose path does not lead to a file with
 * that stamp is removed: the file has changed, moved or gone. For the others, the digests tell how
 * many pages are found elsewhere.
 *
 * Where pages were sampled, that number is an estimate. If m of a file's n pages are in the sample
 * and k of these are found elsewhere, the estimate is n * k / m. Equal pages come into the sample
 * together, so its variance is that of a ratio of clusters. If all pages that were seen are of one
 * kind, that variance would be zero; so it is at least the spread of a proportion with one more
 * page of each kind. A file of which no page is in the sample counts as shared as a whole, with an
 * error as large.
 *
 * The third step nominates files that have the same size and digest, and has each group compared.
 * Nominees are kept by a hash, in as many rounds as memory needs.
 *
 * In each group the other files are compared with a trusted file, preferably one that is in a class
 * already. Those that are not equal to it are compared among themselves in the same way. Where no
 * trusted file is left, files are compared with a file of their own writers (writers.h). So each
 * member of a class was compared with a file that may speak for it. By induction, it is in the
 * class by the word of trusted files and of files of its own writers.
 *
 * Records are looked up in the catalogue only as they are needed: for a large group, all of them
 * would take ten times the nominees' memory.
 */
#include "scan_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ROUND_LEAST 1024u
/* Changes to records are written in batches of this many. */
#define CHANGES 1024u
/* Equal files are reported in parts of this many, or a few more. */
#define CLASS_PART 4096u

/* ---- counting ---- */

struct change {
	struct source_stamp stamp;
	bool gone; /* remove it */
	uint64_t elsewhere;
	uint64_t error;
};

struct changes {
	struct change *list; /* of CHANGES */
	unsigned count;
};

struct share {
	uint64_t sampled; /* pages */
	uint64_t many;    /* of these, found elsewhere */
	double squares;   /* over their different values: sum of (number of times)^2 */
};

static void set_share(const void *context, struct catalogue_record *record)
{
	const struct change *change = context;

	record->pages_elsewhere = change->elsewhere;
	record->pages_error = change->error;
}

static errint_t apply(struct scan *scan, struct changes *changes)
{
	struct catalogue_batch *batch;
	errint_t error;

	if (!changes->count)
		return 0;
	error = catalogue_begin(scan->options.catalogue, &batch);
	if (error)
		return error;
	for (unsigned i = 0; i < changes->count && !error; i++) {
		const struct change *change = &changes->list[i];
		const struct source_stamp *stamp = &change->stamp;

		if (change->gone)
			error = catalogue_remove(batch, stamp->device, stamp->inode);
		else
			error = catalogue_amend(batch, stamp, set_share, change);
		if (error == -ENOENT)
			error = 0;
	}
	changes->count = 0;
	if (!error)
		return catalogue_commit(batch);
	catalogue_abort(batch);
	return error;
}

static bool is_still_there(const struct scan *scan, const struct catalogue_member *file)
{
	struct source_stamp stamp;
	struct stat st;

	if (fstatat(scan->root_fd, file->path, &st, AT_SYMLINK_NOFOLLOW))
		return errno != ENOENT && errno != ENOTDIR;
	source_stamp_of(&st, &stamp);
	return source_stamp_equal(&stamp, &file->stamp);
}

static int by_value(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a;
	uint64_t right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

/* Changes DIGESTS. */
static void add_share(const struct scan *scan, uint64_t digests[], size_t count,
		      struct share *share)
{
	size_t many = 0;
	size_t first = 0;

	for (size_t i = 0; i < count; i++) {
		enum distinct_found found = distinct_find(scan->pages, digests[i]);

		share->sampled += found != DISTINCT_LEFT_OUT;
		if (found == DISTINCT_MANY)
			digests[many++] = digests[i];
	}
	share->many += many;
	if (distinct_share(scan->pages) == 1)
		return;
	qsort(digests, many, sizeof(*digests), by_value);
	for (size_t i = 1; i <= many; i++) {
		if (i < many && digests[i] == digests[first])
			continue;
		share->squares += (double)(i - first) * (double)(i - first);
		first = i;
	}
}

static void estimate(const struct scan *scan, uint64_t pages, const struct share *share,
		     struct change *change)
{
	double part = distinct_share(scan->pages);
	double sampled = (double)share->sampled;
	double ratio;
	double smooth;
	double clusters;
	double variance;

	change->elsewhere = share->many;
	change->error = 0;
	if (part == 1)
		return;
	if (!share->sampled) {
		change->elsewhere = pages;
		change->error = pages;
		return;
	}
	ratio = (double)share->many / sampled;
	smooth = (double)(share->many + 1) / (sampled + 2);
	clusters = (share->squares * (1 - ratio) * (1 - ratio) +
		    (sampled - (double)share->many) * ratio * ratio) /
		   (sampled * sampled);
	variance = (1 - part) * fmax(clusters, smooth * (1 - smooth) / sampled);
	change->elsewhere = (uint64_t)llround((double)pages * ratio);
	change->error = pages ? (uint64_t)llround(ceil((double)pages * sqrt(variance))) : 0;
}

static errint_t count_one(struct scan *scan, const struct catalogue_member *file,
			  const struct catalogue_record *record, struct changes *changes)
{
	struct change change = {.stamp = file->stamp};
	struct share share = {0};
	uint64_t parts = (record->pages + CATALOGUE_PART - 1) / CATALOGUE_PART;
	uint64_t *digests;
	size_t count;
	errint_t error = 0;

	change.gone = !is_still_there(scan, file);
	for (uint64_t part = 0; part < parts && !change.gone && !error; part++) {
		error = catalogue_digests(scan->options.catalogue, &file->stamp, part, &digests,
					  &count);
		if (error)
			break;
		add_share(scan, digests, count, &share);
		free(digests);
	}
	/* A file whose digests are not all there is removed, so the next scan reads it again. */
	if (error == -ENOENT)
		change.gone = true;
	else if (error)
		return error;
	estimate(scan, record->pages, &share, &change);
	if (change.gone || change.elsewhere != record->pages_elsewhere ||
	    change.error != record->pages_error)
		changes->list[changes->count++] = change;
	return changes->count == CHANGES ? apply(scan, changes) : 0;
}

errint_t scan_count_records(struct scan *scan)
{
	struct changes changes = {.list = calloc(CHANGES, sizeof(*changes.list))};
	struct catalogue_member *file = malloc(sizeof(*file));
	struct catalogue_record record;
	struct source_stamp last;
	errint_t error = changes.list && file ? 0 : -ENOMEM;

	if (!error)
		error = catalogue_next(scan->options.catalogue, NULL, file, &record);
	while (!error && !scan_is_cancelled(scan)) {
		last = file->stamp;
		error = count_one(scan, file, &record, &changes);
		atomic_fetch_add_explicit(&scan->done_files, 1, memory_order_relaxed);
		scan_tell_progress(scan);
		if (!error)
			error = catalogue_next(scan->options.catalogue, &last, file, &record);
	}
	if (!error || error == -ENOENT)
		error = changes.list ? apply(scan, &changes) : -ENOMEM;
	free(file);
	free(changes.list);
	return error;
}

/* ---- nominating ---- */

static uint64_t hash_of(const struct catalogue_member *file, const struct catalogue_record *record)
{
	uint64_t digest = record->content.low ^ record->content.high * UINT64_C(0x9e3779b97f4a7c15);

#if FOLDFS_DIGEST_BITS < 64
	digest &= (UINT64_C(1) << FOLDFS_DIGEST_BITS) - 1;
#endif
	return (digest ^ (uint64_t)file->stamp.size * UINT64_C(0xff51afd7ed558ccd)) *
	       UINT64_C(0x9e3779b97f4a7c15);
}

static size_t round_room(const struct scan *scan)
{
	size_t room = scan->options.memory / 2 / sizeof(struct scan_candidate);

	return room > ROUND_LEAST ? room : ROUND_LEAST;
}

unsigned scan_rounds(const struct scan *scan, uint64_t files)
{
	/* A tenth more, because rounds differ in size. */
	return (unsigned)((files + files / 10) / round_room(scan) + 1);
}

static int by_hash(const void *a, const void *b)
{
	const struct scan_candidate *left = a;
	const struct scan_candidate *right = b;

	if (left->hash != right->hash)
		return left->hash < right->hash ? -1 : 1;
	return (left->inode > right->inode) - (left->inode < right->inode);
}

/* Keep only candidates that share their hash with another one. */
static void drop_single(struct scan *scan)
{
	struct scan_candidate *list = scan->candidates;
	size_t count = scan->candidates_count;
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		bool as_last = kept && list[kept - 1].hash == list[i].hash;
		bool as_next = i + 1 < count && list[i + 1].hash == list[i].hash;

		if (as_last || as_next)
			list[kept++] = list[i];
	}
	scan->candidates_count = kept;
}

errint_t scan_nominate(struct scan *scan, unsigned round, unsigned rounds)
{
	struct catalogue_member *file = malloc(sizeof(*file));
	struct catalogue_record record;
	struct source_stamp last;
	size_t room = round_room(scan);
	errint_t error = file ? 0 : -ENOMEM;

	scan->candidates_count = 0;
	if (!error && !scan->candidates) {
		scan->candidates = calloc(room, sizeof(*scan->candidates));
		error = scan->candidates ? 0 : -ENOMEM;
	}
	if (!error)
		error = catalogue_next(scan->options.catalogue, NULL, file, &record);
	while (!error && !scan_is_cancelled(scan) && scan->candidates_count < room) {
		uint64_t hash = hash_of(file, &record);

		/* Empty files are left out: there is nothing worth sharing. */
		if (file->stamp.size && (hash >> 32) % rounds == round)
			scan->candidates[scan->candidates_count++] = (struct scan_candidate){
				.hash = hash,
				.device = file->stamp.device,
				.inode = file->stamp.inode,
			};
		last = file->stamp;
		scan_tell_progress(scan);
		error = catalogue_next(scan->options.catalogue, &last, file, &record);
	}
	free(file);
	if (error && error != -ENOENT)
		return error;
	qsort(scan->candidates, scan->candidates_count, sizeof(*scan->candidates), by_hash);
	drop_single(scan);
	return 0;
}

/* ---- comparing ---- */

struct comparer {
	struct scan *scan;
	uint8_t *buffers; /* two of SCAN_CHUNK */
	const struct scan_candidate *group;
	bool *done; /* of the group: nothing more can be found out about it */
	size_t count;
};

/* A file that is compared, and its place in the group. */
struct entrant {
	struct scan_twin *twin;
	size_t place;
};

/* The next group of candidates with one hash. The thread that moved the cursor past it owns it. */
static size_t next_group(struct scan *scan, size_t *ret_first)
{
	size_t first = atomic_load(&scan->candidates_next);
	size_t end;

	do {
		end = first;
		while (end < scan->candidates_count &&
		       scan->candidates[end].hash == scan->candidates[first].hash)
			end++;
	} while (!atomic_compare_exchange_weak(&scan->candidates_next, &first, end));
	*ret_first = first;
	return end - first;
}

/* Load the file at PLACE. NULL: it is done; for example, it has changed since it was nominated. */
static errint_t load(struct comparer *comparer, size_t place, struct scan_twin **ret_twin)
{
	const struct scan_candidate *candidate = &comparer->group[place];
	errint_t error;

	*ret_twin = NULL;
	if (comparer->done[place])
		return 0;
	error = scan_twin_load(comparer->scan, candidate->device, candidate->inode, ret_twin);
	if (*ret_twin && hash_of(&(*ret_twin)->file, &(*ret_twin)->record) != candidate->hash) {
		free(*ret_twin);
		*ret_twin = NULL;
	}
	comparer->done[place] = !*ret_twin;
	return error;
}

/* The lower the rank, the better TWIN suits to compare others with. */
static unsigned rank_of(const struct scan_twin *twin)
{
	return (twin->record.writers == WRITERS_TRUSTED ? 0 : 2) + (twin->record.class ? 0 : 1);
}

/* Choose the file that others are compared with: the first one of the best rank. NULL: no file is
 * left that may speak for another. */
static errint_t take_first(struct comparer *comparer, struct scan_twin **ret_first)
{
	struct entrant first = {0};
	struct scan_twin *twin;
	errint_t error = 0;

	for (size_t i = 0; i < comparer->count && !error; i++) {
		error = load(comparer, i, &twin);
		if (!twin)
			continue;
		if (!writers_may_speak(twin->record.writers, twin->record.writers) ||
		    (first.twin && rank_of(twin) >= rank_of(first.twin))) {
			free(twin);
			continue;
		}
		free(first.twin);
		first = (struct entrant){.twin = twin, .place = i};
		if (!rank_of(twin))
			break;
	}
	if (first.twin)
		comparer->done[first.place] = true;
	*ret_first = first.twin;
	return error;
}

static errint_t add_stamp(struct scan_note *note, const struct scan_twin *twin)
{
	struct source_stamp *stamps;

	/* The array grows by doubling. */
	if ((note->count & (note->count - 1)) == 0) {
		stamps = realloc(note->stamps,
				 (note->count ? note->count * 2 : 1) * sizeof(*stamps));
		if (!stamps)
			return -ENOMEM;
		note->stamps = stamps;
	}
	note->stamps[note->count++] = twin->file.stamp;
	note->proved += twin->proved;
	return 0;
}

/* Send *NOTE, a part of the files that are equal to FIRST. If FIRST has no class, it is itself in
 * the first part. *NOTE is a new note then, or NULL for want of memory. */
static errint_t tell_part(struct comparer *comparer, const struct scan_twin *first, bool *told,
			  struct scan_note **note)
{
	errint_t error = 0;

	if (!first->record.class && !*told)
		error = add_stamp(*note, first);
	if (error)
		return error;
	(*note)->class = first->record.class;
	(*note)->stamp = first->file.stamp;
	scan_note_push(comparer->scan, *note);
	*told = true;
	*note = scan_note_new(SCAN_NOTE_CLASS);
	return *note ? 0 : -ENOMEM;
}

/* Compare ENTRANTS, COUNT of them, with the first one. Those that are equal or unfit are done.
 * Frees all of them except the first. */
static errint_t compare_round(struct comparer *comparer, const struct entrant entrants[],
			      unsigned count, struct scan_note *note)
{
	struct scan_twin *twins[SCAN_TWINS_MAX];
	errint_t error;

	for (unsigned i = 0; i < count; i++)
		twins[i] = entrants[i].twin;
	error = count > 1 ? scan_compare(comparer->scan, twins, count, comparer->buffers) : 0;
	for (unsigned i = 1; i < count; i++) {
		if (!error && twins[i]->equal)
			error = add_stamp(note, twins[i]);
		comparer->done[entrants[i].place] = twins[i]->equal || twins[i]->unfit;
		free(twins[i]);
	}
	return error;
}

/* Collect the next files to compare with ENTRANTS[0], from *PLACE on. Files that are in its class
 * already are done. Files that it may not speak for are left for another one. */
static errint_t next_round(struct comparer *comparer, size_t *place, struct entrant entrants[],
			   unsigned *ret_count)
{
	const struct catalogue_record *first = &entrants[0].twin->record;
	struct scan_twin *twin;
	errint_t error = 0;

	*ret_count = 1;
	for (; *place < comparer->count && *ret_count < SCAN_TWINS_MAX && !error; ++*place) {
		error = load(comparer, *place, &twin);
		if (!twin)
			continue;
		if (!writers_may_speak(first->writers, twin->record.writers)) {
			free(twin);
			continue;
		}
		if (first->class && twin->record.class == first->class) {
			comparer->done[*place] = true;
			free(twin);
			continue;
		}
		entrants[(*ret_count)++] = (struct entrant){.twin = twin, .place = *place};
	}
	return error;
}

/* Put FIRST and all files that are equal to it into one class. */
static errint_t compare_first(struct comparer *comparer, struct scan_twin *first)
{
	struct scan_note *note = scan_note_new(SCAN_NOTE_CLASS);
	struct entrant entrants[SCAN_TWINS_MAX] = {{.twin = first}};
	bool told = false;
	size_t place = 0;
	unsigned count;
	errint_t error = note ? 0 : -ENOMEM;

	while (place < comparer->count && !error && !first->unfit) {
		errint_t loaded = next_round(comparer, &place, entrants, &count);

		error = compare_round(comparer, entrants, count, note);
		error = error ? error : loaded;
		if (!error && note->count >= CLASS_PART)
			error = tell_part(comparer, first, &told, &note);
	}
	if (!error && note->count)
		error = tell_part(comparer, first, &told, &note);
	scan_note_free(note);
	return error;
}

static errint_t compare_group(struct comparer *comparer, size_t first, size_t count)
{
	struct scan *scan = comparer->scan;
	struct scan_twin *twin;
	bool left = true;
	errint_t error = 0;

	comparer->group = &scan->candidates[first];
	comparer->count = count;
	comparer->done = calloc(count, sizeof(*comparer->done));
	if (!comparer->done)
		return -ENOMEM;
	while (left && !error) {
		error = take_first(comparer, &twin);
		left = twin;
		if (left && !error)
			error = compare_first(comparer, twin);
		free(twin);
	}
	free(comparer->done);
	atomic_fetch_add_explicit(&scan->done_files, count, memory_order_relaxed);
	return error;
}

void *scan_compare_thread(void *arg)
{
	struct comparer comparer = {.scan = arg};
	size_t first;
	size_t count;
	errint_t error = 0;

	scan_lower_priority();
	comparer.buffers = aligned_alloc(FOLD_PAGE_SIZE, (size_t)2 * SCAN_CHUNK);
	if (!comparer.buffers)
		error = -ENOMEM;
	while (!error && !scan_is_cancelled(comparer.scan) &&
	       (count = next_group(comparer.scan, &first)))
		error = compare_group(&comparer, first, count);
	if (error)
		scan_note_failure(comparer.scan, error);
	free(comparer.buffers);
	scan_worker_end(comparer.scan);
	return NULL;
}
