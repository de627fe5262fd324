/* SPDX-License-Identifier: Apache-2.0 */
/*
 * whole_model.c - files that are equal as a whole, and what each descriptor may show
 *
 * What a descriptor shows is decided when it is opened:
 *
 * - Opened for writing: it shows what its file is.
 * - Opened for reading before anybody began to open the file for a change: it shows, for ever, what
 *   the file was made as.
 * - Opened for reading after a change: it shows what the file is.
 * - Opened for reading between the two, or beside them: it shows one or the other, and stays with
 *   it.
 * - With --behind nobody changes a file; instead a name is given to another file. A descriptor
 *   shows one of the files that had the name between the beginning and the end of the open. If
 *   names are cached for a while, it may also show a file that had the name before.
 *
 * For the second item all files must be served as equal ones from the start. The program that
 * starts a play ensures this (rounds.py).
 */
#include "whole.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Of contents that no operation wrote: "worker 127". */
#define MADE (UNIQUE | 0x7fu << 24)

#define OPEN_TRIES 1000u

size_t class_content(const struct play *play, unsigned class, uint8_t *bytes)
{
	uint32_t number = (uint32_t)random_of(play->seed, 1, 0) & 0xffff00;
	size_t page;

	/* Every third page is that of the next class too. */
	for (page = 0; page < WHOLE_BYTES / PAGE; page++)
		content_fill(MADE | number | (page % 3 ? class : class | 1), 0, page * PAGE,
			     bytes + page * PAGE, PAGE);
	return WHOLE_BYTES - random_of(play->seed, 2, class) % (WHOLE_BYTES / 2);
}

static void lock_init(pthread_rwlock_t *lock)
{
	pthread_rwlock_init(lock, NULL);
}

struct whole *whole_new(const uint8_t *bytes, size_t length)
{
	struct whole *file = calloc(1, sizeof(*file));

	if (!file)
		return NULL;
	file->first = calloc(1, WHOLE_BYTES);
	file->now = calloc(1, WHOLE_BYTES);
	if (!file->first || !file->now) {
		free(file->first);
		free(file->now);
		free(file);
		return NULL;
	}
	lock_init(&file->lock);
	memcpy(file->first, bytes, length);
	memcpy(file->now, bytes, length);
	file->first_size = file->size = length;
	atomic_init(&file->state, STATE_CHANGED);
	return file;
}

errint_t model_make(struct play *play)
{
	uint8_t *bytes = malloc(WHOLE_BYTES);
	unsigned i;

	if (!bytes)
		return -ENOMEM;
	for (i = 0; i < play->names; i++) {
		size_t size = class_content(play, i % play->classes, bytes);
		struct whole *file = whole_new(bytes, size);

		if (!file)
			break;
		atomic_store(&file->state, STATE_EQUAL);
		lock_init(&play->table[i].lock);
		atomic_store(&play->table[i].versions[0], file);
	}
	free(bytes);
	return i < play->names ? -ENOMEM : 0;
}

bool has_second(const struct play *play, unsigned name)
{
	return !play->behind && name % 2 == 0;
}

struct whole *whole_named(struct play *play, unsigned name)
{
	struct name *entry = &play->table[name];

	return atomic_load(&entry->versions[atomic_load(&entry->done)]);
}

void whole_opened(struct whole *file)
{
	int equal = STATE_EQUAL;

	atomic_compare_exchange_strong(&file->state, &equal, STATE_OPENED);
}

void whole_changed(struct whole *file)
{
	atomic_store(&file->state, STATE_CHANGED);
}

/* ---- descriptors ---- */

static void may_show(struct descriptor *d, struct whole *file, bool now)
{
	d->shown[d->count++] = (struct shown){.file = file, .now = now};
}

static int open_name(struct player *p, const struct descriptor *d, const char *suffix)
{
	char path[4200];
	unsigned tries = 0;
	int fd;

	path_in(p->play->mount, d->name, suffix, path, sizeof(path));
	/* Who gives names away behind the mount can do so again before the kernel's second try. */
	do
		fd = open(path, d->flags | O_CLOEXEC);
	while (fd < 0 && p->play->behind && (errno == ESTALE || errno == ENOENT) &&
	       ++tries < OPEN_TRIES);
	if (fd < 0)
		complain(p, "open %s with flags %#x: %s", path, (unsigned)d->flags,
			 strerror(errno));
	return fd;
}

static void open_behind(struct player *p, struct descriptor *d)
{
	struct name *entry = &p->play->table[d->name];
	unsigned version = p->play->believe ? 0 : atomic_load(&entry->done);

	d->fd = open_name(p, d, "");
	for (; version <= atomic_load(&entry->started); version++)
		may_show(d, atomic_load(&entry->versions[version]), false);
}

static void open_here(struct player *p, struct descriptor *d)
{
	struct name *entry = &p->play->table[d->name];
	bool writes = (d->flags & O_ACCMODE) != O_RDONLY;
	const char *suffix = "";
	struct whole *file;
	int before;
	int after;

	pthread_rwlock_rdlock(&entry->lock);
	file = whole_named(p->play, d->name);
	if (has_second(p->play, d->name) && !atomic_load(&entry->done) && draw(p, 2))
		suffix = ".b";
	if (writes)
		whole_opened(file);
	before = atomic_load(&file->state);
	d->fd = open_name(p, d, suffix);
	after = atomic_load(&file->state);
	if (!writes && before != STATE_CHANGED)
		may_show(d, file, false);
	if (writes || after != STATE_EQUAL)
		may_show(d, file, true);
	pthread_rwlock_unlock(&entry->lock);
}

bool descriptor_open(struct player *p, struct descriptor *d, unsigned name, int flags)
{
	d->name = name;
	d->flags = flags;
	d->count = 0;
	if (p->play->behind)
		open_behind(p, d);
	else
		open_here(p, d);
	return d->fd >= 0;
}

void descriptor_close(struct descriptor *d, bool keep_map)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
	if (keep_map || !d->map)
		return;
	munmap(d->map, WHOLE_BYTES);
	d->map = NULL;
}

struct whole *descriptor_follows(const struct descriptor *d)
{
	unsigned i;

	for (i = 0; i < d->count; i++)
		if (d->shown[i].now)
			return d->shown[i].file;
	return NULL;
}

static bool agrees(const struct player *p, const struct shown *shown, bool mapped, size_t at,
		   size_t wanted, ssize_t got)
{
	const uint8_t *bytes = shown->now ? shown->file->now : shown->file->first;
	size_t length = shown->now ? shown->file->size : shown->file->first_size;
	size_t size = mapped ? (length + PAGE - 1) / PAGE * PAGE : length;
	size_t expected = at >= size ? 0 : wanted < size - at ? wanted : size - at;

	return got == (ssize_t)expected && memcmp(p->bytes, bytes + at, expected) == 0;
}

/* The first byte of what was read that is not that of SHOWN, in words. */
static void describe(const struct player *p, const struct shown *shown, size_t at, size_t got,
		     char *text, size_t room)
{
	const uint8_t *bytes = shown->now ? shown->file->now : shown->file->first;
	size_t size = shown->now ? shown->file->size : shown->file->first_size;
	char found[128];
	char wanted[128];
	size_t i;

	for (i = 0; i < got && at + i < size && p->bytes[i] == bytes[at + i]; i++)
		;
	if (i >= got || at + i >= size) {
		snprintf(text, room, "a size of %zu", size);
		return;
	}
	content_describe(p->bytes, got, i, found, sizeof(found));
	content_describe(bytes + at, size - at, i, wanted, sizeof(wanted));
	snprintf(text, room, "at byte %zu (page %zu) found %s, not %s", at + i, (at + i) / PAGE,
		 found, wanted);
}

void descriptor_seen(struct player *p, struct descriptor *d, const char *how, bool mapped,
		     size_t at, size_t wanted, ssize_t got)
{
	struct shown last = d->shown[0];
	char text[512];
	unsigned left = 0;
	unsigned i;

	if (got < 0) {
		complain(p, "file %u, flags %#x: %s of %zu bytes at %zu: %s", d->name,
			 (unsigned)d->flags, how, wanted, at, strerror((int)-got));
		return;
	}
	for (i = 0; i < d->count; i++)
		if (agrees(p, &d->shown[i], mapped, at, wanted, got))
			d->shown[left++] = d->shown[i];
	if (!left) {
		describe(p, &last, at, (size_t)got, text, sizeof(text));
		complain(p,
			 "file %u, flags %#x: %s of %zu bytes at %zu, %zd found, is none of the %u "
			 "states that it may show; of the first, %s: %s",
			 d->name, (unsigned)d->flags, how, wanted, at, got, d->count,
			 last.now ? "what the file is" : "what the file was made as", text);
		return;
	}
	d->count = left;
	atomic_fetch_add(&p->play->figures.bytes_read, (uint64_t)got);
	if (!p->play->behind && !descriptor_follows(d) &&
	    atomic_load(&d->shown[0].file->state) == STATE_CHANGED)
		atomic_fetch_add(&p->play->figures.bytes_kept, (uint64_t)got);
}
