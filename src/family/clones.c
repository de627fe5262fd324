/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clones.c - files that have blocks of the disk in common, found when they are opened
 *
 * Nominating. A sketch is kept of each file that has shared extents: the smallest hashes of pairs
 * (where its MiB N is, how far that is from where the extent lies on the disk). The distance is the
 * same for all pieces of an extent, however it was split since. Sketches of files that have extents
 * in common at the same offsets have values in common. A file that had no clone when it was opened
 * has no sketch: it gets one when another file of its size is opened that has shared extents. While
 * the transaction that made an extent shared is being committed, btrfs does not say that it is
 * shared. So a file without shared extents is asked again at its next open.
 *
 * Proving. C is the file that is opened, T a file that was opened before:
 *
 *   A  Nobody but this mount can have either of them open for writing when the proof begins: the
 *      kernel grants a lease on the description that the daemon uses, which is given back at once.
 *      This rules out direct I/O and stores through a mapping that have begun and move no stamp any
 *      more.
 *
 *   B  No change of ours is under way, and the stamp is one that no later change can leave.
 *
 *   C  The file system is asked where T's extents are, then C's, then T's again; each time it has
 *      written what is dirty before. An extent counts if it is plain, said to be shared, in the
 *      same place at the same offset, and the same in both answers for T. So a block that T gave up
 *      and C was given does not count: T cannot have it before and after.
 *
 *   D  Both stamps are what they were. So nobody changed either file between A and D, and at the
 *      moment of C's answer both had these bytes.
 *
 *   E  T may speak for C (writers.h). If T is of a family, its kin is true of T as it is now, and C
 *      joins with the pages that T has not cut. Otherwise T founds a family with all its pages; or
 *      C founds it, if it is C that may speak for T.
 *
 * Both kins are set under the stamps of D, which are checked once more when the kins are there
 * (file_set_kin). From then on they are as true as those that a scan has found, and by the same
 * rules (kin.h). A family that was founded here has a number of 63 random bits and the highest bit
 * set, which the catalogue does not give.
 *
 * What T holds in the pool already is told to the family, for the pages that the two have in
 * common. T's slots are true under its stamp. The kin is set before they are looked at, and a
 * page's cut is looked at after its slot, as in fill_family.c.
 *
 * One file is looked at a time: two threads that founded families of the same files would separate
 * them. Only first opens of files with shared extents wait for each other. EXTENTS_MOST bounds how
 * long, except for the disk's time.
 */
#include "foldfs/clones.h"

#include "foldfs/extents.h"
#include "foldfs/kin_file.h"
#include "foldfs/lease.h"
#include "foldfs/rcu.h"

#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statfs.h>

/* Most values in a sketch. */
#define SKETCH 32u
/* Most extents that are looked at. The rest of a more fragmented file is not known to be equal,
 * which is not untrue. */
#define EXTENTS_MOST 16384u
/* Pages that two files must have in common; as in a scan. */
#define COMMON_LEAST 16u
/* Most files that a file is compared with, the likeliest first. */
#define CANDIDATES 4u
/* Most files without a sketch, of the opened file's size, that get a sketch at one open. */
#define SKETCHED_AT_ONCE 64u
/* How often two files that are being written are compared at most. */
#define ATTEMPTS         3u
#define FAMILY_IN_MEMORY (UINT64_C(1) << 63)

struct sketch {
	unsigned count;
	uint64_t values[SKETCH]; /* ascending */
};

struct member {
	struct source_stamp stamp; /* as of its last open */
	uint64_t seen;             /* when that was; 0: the place is empty */
	bool looked;               /* it was looked at under this stamp */
	struct sketch sketch;
};

struct clones {
	struct file_table *files; /* all constant, to has_clones */
	struct lease_table *leases;
	clones_open_fn *open_file;
	clones_found_fn *on_found;
	void *context;
	bool has_clones; /* the file system; constant */
	_Atomic uint64_t found;
	pthread_mutex_t learning;         /* one file at a time, see the head of this file; before
					   * lock */
	pthread_mutex_t lock;             /* of what follows; a leaf of the lock order */
	_Atomic(struct member *) members; /* CLONES_KNOWN; NULL before the first one. Set once */
	uint64_t opens;
};

errint_t clones_new(struct file_table *files, struct lease_table *leases, int root_fd,
		    clones_open_fn *open_file, clones_found_fn *on_found, void *context,
		    struct clones **ret_clones)
{
	struct clones *clones = calloc(1, sizeof(*clones));
	struct statfs fs;

	if (!clones)
		return -ENOMEM;
	if (fstatfs(root_fd, &fs)) {
		free(clones);
		return -errno;
	}
	clones->files = files;
	clones->leases = leases;
	clones->open_file = open_file;
	clones->on_found = on_found;
	clones->context = context;
	clones->has_clones = fs.f_type == XFS_SUPER_MAGIC || fs.f_type == BTRFS_SUPER_MAGIC;
	pthread_mutex_init(&clones->learning, NULL);
	pthread_mutex_init(&clones->lock, NULL);
	*ret_clones = clones;
	return 0;
}

void clones_free(struct clones *clones)
{
	if (!clones)
		return;
	free(atomic_load(&clones->members));
	pthread_mutex_destroy(&clones->lock);
	pthread_mutex_destroy(&clones->learning);
	free(clones);
}

uint64_t clones_bytes(const struct clones *clones)
{
	return sizeof(*clones) +
	       (atomic_load(&clones->members) ? CLONES_KNOWN * sizeof(struct member) : 0);
}

uint64_t clones_found(const struct clones *clones)
{
	return atomic_load_explicit(&clones->found, memory_order_relaxed);
}

/* ---- sketches ---- */

static void sketch_add(struct sketch *sketch, uint64_t distance, uint64_t mib)
{
	uint64_t value =
		(distance ^ mib * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xff51afd7ed558ccd);
	unsigned at = sketch->count;

	value ^= value >> 32;
	if (at == SKETCH && value >= sketch->values[SKETCH - 1])
		return;
	while (at && sketch->values[at - 1] > value)
		at--;
	if (at && sketch->values[at - 1] == value)
		return;
	if (sketch->count < SKETCH)
		sketch->count++;
	memmove(&sketch->values[at + 1], &sketch->values[at],
		(sketch->count - 1 - at) * sizeof(value));
	sketch->values[at] = value;
}

static void sketch_add_all(struct sketch *sketch, const union extents *extents)
{
	for (unsigned i = 0; i < extents->map.fm_mapped_extents; i++) {
		const struct fiemap_extent *extent = &extents->map.fm_extents[i];
		uint64_t last = extent->fe_logical + extent->fe_length - 1;

		if (!extents_is_shared(extent))
			continue;
		for (uint64_t mib = extent->fe_logical >> 20; mib <= last >> 20; mib++)
			sketch_add(sketch, extent->fe_physical - extent->fe_logical, mib);
	}
}

/* Make the sketch of the file open as FD. Empty: the file has no shared extents among its first
 * ones. Dirty pages do not matter: a sketch proves nothing. */
static void sketch_make(int fd, struct sketch *ret_sketch)
{
	union extents extents;
	uint64_t start = 0;

	ret_sketch->count = 0;
	for (unsigned asked = 0; asked < EXTENTS_MOST && start != UINT64_MAX;
	     asked += EXTENTS_AT_ONCE) {
		if (!extents_map(fd, start, false, &extents))
			return;
		sketch_add_all(ret_sketch, &extents);
		if (!ret_sketch->count)
			return;
		start = extents_end(&extents);
	}
}

static unsigned count_common(const struct sketch *a, const struct sketch *b)
{
	unsigned common = 0;
	unsigned j = 0;

	for (unsigned i = 0; i < a->count; i++) {
		while (j < b->count && b->values[j] < a->values[i])
			j++;
		common += j < b->count && b->values[j] == a->values[i];
	}
	return common;
}

/* ---- files that were opened ---- */

/* The place of the file of DEVICE and INODE. If it has none, an empty place, or that of the file
 * whose open is longest ago. */
static struct member *place_locked(struct clones *clones, dev_t device, ino_t inode)
{
	struct member *members = atomic_load(&clones->members);
	struct member *oldest = members;

	for (unsigned i = 0; i < CLONES_KNOWN; i++) {
		struct member *member = &members[i];

		if (member->seen && member->stamp.inode == inode && member->stamp.device == device)
			return member;
		if (member->seen < oldest->seen)
			oldest = member;
	}
	*oldest = (struct member){.stamp = {.device = device, .inode = inode}};
	return oldest;
}

/* Note that the file with STAMP is open. Returns whether it is to be looked at: not if it was
 * looked at in its present state. */
static bool note(struct clones *clones, const struct source_stamp *stamp)
{
	struct member *member;
	bool known = false;

	pthread_mutex_lock(&clones->lock);
	if (!atomic_load(&clones->members))
		atomic_store(&clones->members, calloc(CLONES_KNOWN, sizeof(*member)));
	if (atomic_load(&clones->members)) {
		member = place_locked(clones, stamp->device, stamp->inode);
		known = member->looked && source_stamp_equal(&member->stamp, stamp);
		member->stamp = *stamp;
		member->seen = ++clones->opens;
		member->looked = true;
	}
	pthread_mutex_unlock(&clones->lock);
	return !known;
}

/* Keep SKETCH for the file with STAMP. LOOKED: it need not be looked at again at its next open, if
 * it has the same stamp. */
static void keep(struct clones *clones, const struct source_stamp *stamp,
		 const struct sketch *sketch, bool looked)
{
	struct member *member;

	pthread_mutex_lock(&clones->lock);
	member = place_locked(clones, stamp->device, stamp->inode);
	if (member->seen) {
		member->sketch = *sketch;
		member->looked = member->looked && looked;
	}
	pthread_mutex_unlock(&clones->lock);
}

/* A file to compare with. */
struct candidate {
	struct source_stamp stamp;
	unsigned common;
};

/* List the files without a sketch that have the size of the file with STAMP. Returns how many. */
static unsigned list_unsketched(struct clones *clones, const struct source_stamp *stamp,
				struct source_stamp list[])
{
	struct member *members = atomic_load(&clones->members);
	unsigned count = 0;

	pthread_mutex_lock(&clones->lock);
	for (unsigned i = 0; i < CLONES_KNOWN && count < SKETCHED_AT_ONCE; i++)
		if (members[i].seen && !members[i].sketch.count &&
		    members[i].stamp.size == stamp->size && members[i].stamp.inode != stamp->inode)
			list[count++] = members[i].stamp;
	pthread_mutex_unlock(&clones->lock);
	return count;
}

/* List the candidates, the likeliest first. Returns how many. */
static unsigned nominate(struct clones *clones, const struct source_stamp *stamp,
			 const struct sketch *sketch, struct candidate list[CANDIDATES])
{
	struct member *members = atomic_load(&clones->members);
	unsigned count = 0;

	pthread_mutex_lock(&clones->lock);
	for (unsigned i = 0; i < CLONES_KNOWN; i++) {
		unsigned common = count_common(&members[i].sketch, sketch);
		unsigned at = count;

		if (!common || members[i].stamp.inode == stamp->inode)
			continue;
		while (at && list[at - 1].common < common)
			at--;
		if (at == CANDIDATES)
			continue;
		count += count < CANDIDATES;
		memmove(&list[at + 1], &list[at], (count - 1 - at) * sizeof(*list));
		list[at] = (struct candidate){.stamp = members[i].stamp, .common = common};
	}
	pthread_mutex_unlock(&clones->lock);
	return count;
}

/* ---- two files ---- */

struct side {
	struct file *file;
	struct source *source;
	struct source_stamp stamp;
	uint64_t writers;
};

/* The file that is opened (C), and one that was opened before (T). */
struct pair {
	struct clones *clones;
	struct side c;
	struct side t;
	uint64_t end; /* bytes to compare */
	struct catalogue_run *runs;
	size_t count;
	uint64_t pages; /* in `runs` */
};

static int fd_of(const struct side *side)
{
	return source_fd(side->source);
}

/* Rule A. A proven kin shows it too, by a lease on the same description. */
static bool is_ours_alone(struct lease_table *leases, const struct side *side)
{
	struct kin *kin = kin_of(side->file);
	bool proven = kin && kin_is_proven(kin);

	if (kin)
		kin_put(kin);
	return proven || !lease_check_unwritten(leases, side->source);
}

/* Rules A and B. */
static bool side_begin(const struct clones *clones, struct side *side)
{
	enum file_truth truth;
	bool size_known;
	struct stat st;

	if (!is_ours_alone(clones->leases, side) || fstat(fd_of(side), &st) ||
	    file_judge(side->file, fd_of(side), &truth, &size_known) || truth != FILE_IS_TRUE)
		return false;
	source_stamp_of(&st, &side->stamp);
	side->writers = writers_of(file_view(side->file), fd_of(side), &st);
	return !file_table_doubts(clones->files, &side->stamp);
}

/* Rule D. */
static bool side_end(const struct side *side)
{
	struct source_stamp stamp;
	struct stat st;

	if (fstat(fd_of(side), &st))
		return false;
	source_stamp_of(&st, &stamp);
	return source_stamp_equal(&stamp, &side->stamp);
}

static errint_t add_run(struct pair *pair, uint64_t first, uint64_t pages)
{
	struct catalogue_run *last = pair->count ? &pair->runs[pair->count - 1] : NULL;
	struct catalogue_run *runs;

	pair->pages += pages;
	if (last && last->first + last->pages == first) {
		last->pages += pages;
		return 0;
	}
	/* By doubling. */
	if ((pair->count & (pair->count - 1)) == 0) {
		runs = realloc(pair->runs, (pair->count ? pair->count * 2 : 1) * sizeof(*runs));
		if (!runs)
			return -ENOMEM;
		pair->runs = runs;
	}
	pair->runs[pair->count++] = (struct catalogue_run){.first = first, .pages = pages};
	return 0;
}

/* Bytes FROM..TO are in the same place in both files: add their whole pages, and the last page if
 * both files end in it. */
static errint_t add_bytes(struct pair *pair, uint64_t from, uint64_t to)
{
	from = (from + FOLD_PAGE_MASK) & ~(uint64_t)FOLD_PAGE_MASK;
	to = to < pair->end ? to & ~(uint64_t)FOLD_PAGE_MASK : pair->end;
	return from < to ? add_run(pair, fold_page_of(from), fold_pages_in(from, to - from)) : 0;
}

/* Add what A and B say is in the same place, between bytes START and END. */
static errint_t add_common(struct pair *pair, const union extents *a, const union extents *b,
			   uint64_t start, uint64_t end)
{
	unsigned i = 0;
	unsigned j = 0;
	errint_t error = 0;

	while (i < a->map.fm_mapped_extents && j < b->map.fm_mapped_extents && !error) {
		const struct fiemap_extent *x = &a->map.fm_extents[i];
		const struct fiemap_extent *y = &b->map.fm_extents[j];
		uint64_t x_end = x->fe_logical + x->fe_length;
		uint64_t y_end = y->fe_logical + y->fe_length;
		uint64_t from = x->fe_logical > y->fe_logical ? x->fe_logical : y->fe_logical;
		uint64_t to = x_end < y_end ? x_end : y_end;

		from = from > start ? from : start;
		to = to < end ? to : end;
		if (from < to && extents_is_shared(x) && extents_is_shared(y) &&
		    x->fe_physical - x->fe_logical == y->fe_physical - y->fe_logical)
			error = add_bytes(pair, from, to);
		i += x_end <= y_end;
		j += y_end <= x_end;
	}
	return error;
}

/* Rule C. -EAGAIN: T's extents do not stay where they are; -EOPNOTSUPP; -ENOMEM. */
static errint_t compare(struct pair *pair, union extents maps[3])
{
	uint64_t start = 0;
	errint_t error = 0;

	for (unsigned asked = 0; asked < EXTENTS_MOST && start < pair->end && !error;
	     asked += EXTENTS_AT_ONCE) {
		uint64_t end;

		if (!extents_map(fd_of(&pair->t), start, true, &maps[0]) ||
		    !extents_map(fd_of(&pair->c), start, true, &maps[1]) ||
		    !extents_map(fd_of(&pair->t), start, true, &maps[2]))
			return -EOPNOTSUPP;
		if (!extents_same(&maps[0], &maps[2]))
			return -EAGAIN;
		end = extents_end(&maps[0]);
		if (extents_end(&maps[1]) < end)
			end = extents_end(&maps[1]);
		error = add_common(pair, &maps[0], &maps[1], start, end);
		start = end;
	}
	return error;
}

/* The end of what can be compared: whole pages, except if both files end at the same byte. */
static uint64_t common_end(const struct pair *pair)
{
	uint64_t c = (uint64_t)pair->c.stamp.size;
	uint64_t t = (uint64_t)pair->t.stamp.size;

	return c == t ? c : (c < t ? c : t) & ~(uint64_t)FOLD_PAGE_MASK;
}

/* -EAGAIN: one of the files is being changed, or may be. */
static errint_t prove_once(struct pair *pair)
{
	union extents *maps;
	errint_t error;

	if (!side_begin(pair->clones, &pair->c) || !side_begin(pair->clones, &pair->t))
		return -EAGAIN;
	maps = malloc(3 * sizeof(*maps));
	if (!maps)
		return -ENOMEM;
	pair->end = common_end(pair);
	pair->count = 0;
	pair->pages = 0;
	error = compare(pair, maps);
	free(maps);
	if (!error && (!side_end(&pair->c) || !side_end(&pair->t)))
		error = -EAGAIN;
	return error;
}

static errint_t prove(struct pair *pair)
{
	errint_t error = -EAGAIN;

	for (unsigned i = 0; i < ATTEMPTS && error == -EAGAIN; i++)
		error = prove_once(pair);
	return error;
}

/* ---- families ---- */

/* SIDE is of the family NUMBER from now on, with RUNS. False: its kin was not set. */
static bool set_kin(const struct clones *clones, const struct side *side, uint64_t number,
		    const struct catalogue_run runs[], size_t count)
{
	struct kin *kin = kin_new(file_families(side->file), &side->stamp, side->writers, number,
				  runs, count);
	struct kin *set;

	if (!kin)
		return false;
	file_set_kin(side->file, kin, fd_of(side));
	fold_rcu_read_lock();
	set = file_kin(side->file);
	fold_rcu_read_unlock();
	/* Only the address is compared. */
	if (set != kin)
		return false;
	clones->on_found(clones->context, side->stamp.device, side->stamp.inode);
	return true;
}

/* Tell the family what SIDE, whose kin is KIN, holds of the pages of RUN in the pool. */
static void tell_run(const struct side *side, struct kin *kin, const struct catalogue_run *run)
{
	struct page_walk walk = {.next = run->first, .end = run->first + run->pages};
	struct page_stretch stretches[64];

	while (walk.next < walk.end) {
		fold_rcu_read_lock();
		unsigned count = file_kin(side->file) == kin
					 ? page_map_walk(file_map(side->file), &walk, 64, stretches)
					 : 0;

		for (unsigned i = 0; i < count; i++)
			if (stretches[i].kind == STRETCH_SHARED)
				kin_tell(kin, stretches[i].first, stretches[i].pages,
					 stretches[i].ref);
		if (file_kin(side->file) != kin)
			walk.next = walk.end;
		fold_rcu_read_unlock();
	}
}

static void tell(const struct pair *pair, const struct side *side)
{
	struct kin *kin = kin_of(side->file);

	for (size_t i = 0; kin && i < pair->count; i++)
		tell_run(side, kin, &pair->runs[i]);
	if (kin)
		kin_put(kin);
}

/* Found a family of the two files. Neither has a kin. */
static bool found_family(struct pair *pair)
{
	bool by_t = writers_may_speak(pair->t.writers, pair->c.writers);
	const struct side *founder = by_t ? &pair->t : &pair->c;
	const struct side *joiner = by_t ? &pair->c : &pair->t;
	const struct catalogue_run all = {
		.first = 0,
		.pages = fold_pages_in(0, (uint64_t)founder->stamp.size),
	};
	uint64_t number;

	if (!by_t && !writers_may_speak(pair->c.writers, pair->t.writers))
		return false;
	if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
		return false;
	number |= FAMILY_IN_MEMORY;
	if (!set_kin(pair->clones, founder, number, &all, 1) ||
	    !set_kin(pair->clones, joiner, number, pair->runs, pair->count))
		return false;
	tell(pair, &pair->t);
	return true;
}

/* Reduce the common pages of PAIR to those that T has in KIN. -ENOMEM. */
static errint_t keep_uncut(struct pair *pair, const struct kin *kin)
{
	struct pair kept = {0};
	errint_t error = 0;

	for (size_t i = 0; i < pair->count && !error; i++) {
		const struct catalogue_run *run = &pair->runs[i];

		for (uint64_t page = run->first; page < run->first + run->pages && !error; page++)
			if (kin_has(kin, page))
				error = add_run(&kept, page, 1);
	}
	free(pair->runs);
	pair->runs = kept.runs;
	pair->count = kept.count;
	pair->pages = kept.pages;
	return error;
}

/* Let C join T's family. T has KIN, which was true of it while the two were compared. */
static bool join_family(struct pair *pair, struct kin *kin)
{
	return writers_may_speak(pair->t.writers, pair->c.writers) &&
	       kin_has_writers(kin, pair->t.file, fd_of(&pair->t)) &&
	       (kin_is_exact(kin, fd_of(&pair->t)) || kin_is_proven(kin)) &&
	       !keep_uncut(pair, kin) && pair->pages >= COMMON_LEAST &&
	       set_kin(pair->clones, &pair->c, kin_number(kin), pair->runs, pair->count);
}

/* 0: C has a kin now. -ENOENT: it has none, and need not be looked at again in its present state.
 * -EAGAIN: it may get one another time. */
static errint_t learn_from(struct pair *pair)
{
	struct kin *kin;
	bool unchanged;
	errint_t error = file_validate(pair->t.file, fd_of(&pair->t), &unchanged);

	if (!error)
		error = prove(pair);
	if (error || pair->pages < COMMON_LEAST)
		return error == -EAGAIN ? error : -ENOENT;
	kin = kin_of(pair->t.file);
	if (!kin)
		return found_family(pair) ? 0 : -EAGAIN;
	error = join_family(pair, kin) ? 0 : -EAGAIN;
	kin_put(kin);
	return error;
}

/* Open the file with STAMP as a side; the caller puts its file and its source. False: it is not
 * known any more, or cannot be opened. */
static bool side_open(struct clones *clones, const struct source_stamp *stamp,
		      struct side *ret_side)
{
	const struct file_key key = {.device = stamp->device, .inode = stamp->inode};

	ret_side->file = file_table_peek(clones->files, &key);
	if (!ret_side->file)
		return false;
	ret_side->source =
		clones->open_file(clones->context, ret_side->file, key.device, key.inode);
	if (ret_side->source)
		return true;
	file_put(ret_side->file);
	return false;
}

static void side_close(struct side *side)
{
	source_put(side->source);
	file_put(side->file);
}

/* Make sketches of the files that the one with STAMP may have been cloned from. */
static void sketch_others(struct clones *clones, const struct source_stamp *stamp)
{
	struct source_stamp list[SKETCHED_AT_ONCE];
	unsigned count = list_unsketched(clones, stamp, list);
	struct sketch sketch;
	struct side side;

	for (unsigned i = 0; i < count; i++) {
		if (!side_open(clones, &list[i], &side))
			continue;
		sketch_make(fd_of(&side), &sketch);
		if (sketch.count)
			keep(clones, &list[i], &sketch, true);
		side_close(&side);
	}
}

/* As learn_from(), with the likeliest file for which it succeeds. */
static errint_t learn(struct clones *clones, const struct source_stamp *stamp,
		      const struct sketch *sketch, const struct side *side)
{
	struct pair pair = {.clones = clones, .c = *side};
	struct candidate list[CANDIDATES];
	unsigned count;
	errint_t error = -ENOENT;
	bool again = false;

	sketch_others(clones, stamp);
	count = nominate(clones, stamp, sketch, list);
	for (unsigned i = 0; i < count && error; i++) {
		if (!side_open(clones, &list[i].stamp, &pair.t))
			continue;
		error = learn_from(&pair);
		again |= error == -EAGAIN;
		side_close(&pair.t);
	}
	free(pair.runs);
	return error && again ? -EAGAIN : error;
}

void clones_learn(struct clones *clones, struct file *file, struct source *source)
{
	const struct side side = {.file = file, .source = source};
	struct source_stamp stamp;
	struct sketch sketch;
	struct stat st;
	errint_t error;

	if (!clones->has_clones || file_size(file) < CLONES_LEAST || fstat(fd_of(&side), &st))
		return;
	source_stamp_of(&st, &stamp);
	if (!note(clones, &stamp) || !file_wants_kin(file))
		return;
	sketch_make(fd_of(&side), &sketch);
	if (!sketch.count) {
		keep(clones, &stamp, &sketch, false);
		return;
	}
	pthread_mutex_lock(&clones->learning);
	error = learn(clones, &stamp, &sketch, &side);
	keep(clones, &stamp, &sketch, error != -EAGAIN);
	pthread_mutex_unlock(&clones->learning);
	if (!error)
		atomic_fetch_add_explicit(&clones->found, 1, memory_order_relaxed);
}
