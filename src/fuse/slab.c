/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.c - objects that come back as raw 64-bit numbers, in memory that can outlive its process
 *
 * The file has a page of its own (struct head), then the objects. All of it is mapped once, for as
 * many objects as there may ever be. Untouched parts take no memory. CHUNK_SLOTS neighbours are a
 * chunk, which is the unit that takes memory and gives it back. A chunk lies at its place for good.
 *
 * Invariants:
 *  - slot.id is the object's number while it is live, 0 while it is not. The counter of a place
 *    increases with every object taken there, and outlives the chunk. So a number is given out once
 *    (until a counter of 32 bits has wrapped).
 *  - Of this, a successor finds only the objects and the highest counter of all. It begins all its
 *    counters there.
 *  - A place is in the partial list exactly while it has a chunk with a free slot.
 *
 * slab_get() reads without a lock, whatever number it is given. The mapping is always there. A
 * place without a chunk reads as zero, as does one whose memory is just going back to the system.
 *
 * A stale answer of slab_get() is safe. It can only be for a number whose object ends at the same
 * moment, and a caller that may use a number keeps its object from ending.
 */
#include "slab.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)   ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

#define CHUNK_SLOTS 256u
#define PLACES      (1u << 20) /* 268 million objects */
#define NONE        UINT32_MAX
#define HEAD_MAGIC  0x62616c73u

/* The first page of the file. */
struct head {
	uint32_t magic;     /* constant, like the next field */
	uint32_t stride;    /* bytes from one object to the next */
	uint32_t places;    /* how many ever had a chunk; under mutex */
	uint32_t count_max; /* the highest counter of any place; under mutex */
};

/* All under mutex, except where marked. */
struct place {
	uint32_t count;      /* objects ever taken here */
	uint32_t live;       /* of the chunk */
	uint32_t first_free; /* index of a slot, NONE: none */
	uint32_t next;       /* in the list that the place is in: partial or empty */
	uint32_t previous;   /* in partial */
	atomic_bool chunk;   /* there is a chunk; read without the mutex */
};

struct slab {
	int memory;   /* constant, like the next six fields */
	bool adopted; /* memory is somebody else's */
	size_t stride;
	size_t chunk_bytes;
	struct head *head; /* the mapping; NULL: not mapped yet */
	char *objects;
	struct place *places;   /* its untouched pages cost nothing */
	pthread_mutex_t mutex;  /* a leaf */
	uint32_t partial;       /* first place with a free slot, NONE: none; under mutex */
	uint32_t empty;         /* first place that lost its chunk, NONE: none; under mutex */
	_Atomic uint64_t live;  /* written under mutex */
	_Atomic uint64_t bytes; /* written under mutex */
};

static size_t mapping_bytes(const struct slab *slab)
{
	return FOLD_PAGE_SIZE + (size_t)PLACES * slab->chunk_bytes;
}

static char *chunk_at(const struct slab *slab, uint32_t place)
{
	return slab->objects + place * slab->chunk_bytes;
}

static struct slab_slot *slot_at(const struct slab *slab, uint32_t index)
{
	return (struct slab_slot *)(slab->objects + index * slab->stride);
}

/* ---- places, under the mutex ---- */

static void partial_add_locked(struct slab *slab, uint32_t place)
{
	slab->places[place].next = slab->partial;
	slab->places[place].previous = NONE;
	if (slab->partial != NONE)
		slab->places[slab->partial].previous = place;
	slab->partial = place;
}

static void partial_remove_locked(struct slab *slab, uint32_t place)
{
	uint32_t next = slab->places[place].next;
	uint32_t previous = slab->places[place].previous;

	if (next != NONE)
		slab->places[next].previous = previous;
	if (previous != NONE)
		slab->places[previous].next = next;
	else
		slab->partial = next;
}

static void empty_add_locked(struct slab *slab, uint32_t place)
{
	slab->places[place].next = slab->empty;
	slab->empty = place;
}

/* A place for a chunk. -ENFILE: all are taken. */
static errint_t place_take_locked(struct slab *slab, uint32_t *ret_place)
{
	if (slab->empty != NONE) {
		*ret_place = slab->empty;
		slab->empty = slab->places[slab->empty].next;
		return 0;
	}
	if (slab->head->places == PLACES)
		return -ENFILE;
	*ret_place = slab->head->places++;
	return 0;
}

/* Make the slots of PLACE that are not live the free ones. */
static void chunk_begin_locked(struct slab *slab, uint32_t place)
{
	struct place *p = &slab->places[place];

	p->live = 0;
	p->first_free = NONE;
	for (uint32_t i = CHUNK_SLOTS; i-- > 0;) {
		struct slab_slot *slot = slot_at(slab, place * CHUNK_SLOTS + i);

		if (atomic_load_explicit(&slot->id, memory_order_relaxed)) {
			p->live++;
			continue;
		}
		slot->next_free = p->first_free;
		p->first_free = i;
	}
	atomic_store_explicit(&p->chunk, true, memory_order_release);
	atomic_fetch_add_explicit(&slab->bytes, slab->chunk_bytes, memory_order_relaxed);
	atomic_fetch_add_explicit(&slab->live, p->live, memory_order_relaxed);
	if (p->first_free != NONE)
		partial_add_locked(slab, place);
}

/* Give the memory of PLACE's chunk back to the system. */
static void chunk_end_locked(struct slab *slab, uint32_t place)
{
	atomic_store_explicit(&slab->places[place].chunk, false, memory_order_relaxed);
	atomic_fetch_sub_explicit(&slab->bytes, slab->chunk_bytes, memory_order_relaxed);
	/* If this fails, the memory stays until the chunk is used again. */
	(void)madvise(chunk_at(slab, place), slab->chunk_bytes, MADV_REMOVE);
	empty_add_locked(slab, place);
}

/*
 * A new chunk, in the partial list. Without memory left, touching a mapping of a file ends the
 * process, so the memory is asked for first.
 */
static errint_t chunk_new_locked(struct slab *slab)
{
	uint32_t place;
	errint_t error = place_take_locked(slab, &place);

	if (error)
		return error;
	if (fallocate(slab->memory, 0, chunk_at(slab, place) - (char *)slab->head,
		      (off_t)slab->chunk_bytes)) {
		error = errno == ENOSPC || errno == EFBIG ? -ENOMEM : -errno;
		empty_add_locked(slab, place);
		return error;
	}
	chunk_begin_locked(slab, place);
	return 0;
}

/* ---- objects ---- */

/* The first free slot of PLACE, which has one. */
static struct slab_slot *place_slot_locked(struct slab *slab, uint32_t place, uint64_t *ret_id)
{
	struct place *p = &slab->places[place];
	uint32_t index = place * CHUNK_SLOTS + p->first_free;
	struct slab_slot *slot = slot_at(slab, index);

	p->first_free = slot->next_free;
	p->live++;
	if (p->first_free == NONE)
		partial_remove_locked(slab, place);
	if (++p->count == 0)
		p->count = 1;
	if (p->count > slab->head->count_max)
		slab->head->count_max = p->count;
	atomic_fetch_add_explicit(&slab->live, 1, memory_order_relaxed);
	*ret_id = (uint64_t)p->count << 32 | index;
	return slot;
}

errint_t slab_take(struct slab *slab, struct slab_slot **ret_slot, uint64_t *ret_id)
{
	struct slab_slot *slot = NULL;
	errint_t error = 0;

	pthread_mutex_lock(&slab->mutex);
	if (slab->partial == NONE)
		error = chunk_new_locked(slab);
	if (!error)
		slot = place_slot_locked(slab, slab->partial, ret_id);
	pthread_mutex_unlock(&slab->mutex);
	if (error)
		return error;
	ASAN_UNPOISON_MEMORY_REGION(slot + 1, slab->stride - sizeof(*slot));
	memset(slot + 1, 0, slab->stride - sizeof(*slot));
	*ret_slot = slot;
	return 0;
}

void slab_publish(struct slab_slot *slot, uint64_t id)
{
	atomic_store_explicit(&slot->id, id, memory_order_release);
}

void slab_withdraw(struct slab_slot *slot)
{
	atomic_store_explicit(&slot->id, 0, memory_order_release);
}

void slab_give(struct slab *slab, struct slab_slot *slot, uint64_t id)
{
	uint32_t place = (uint32_t)id / CHUNK_SLOTS;
	struct place *p = &slab->places[place];

	slab_withdraw(slot);
	/* AddressSanitizer then finds a use after this, as it does for what free(3) frees. */
	ASAN_POISON_MEMORY_REGION(slot + 1, slab->stride - sizeof(*slot));
	pthread_mutex_lock(&slab->mutex);
	slot->next_free = p->first_free;
	if (p->first_free == NONE)
		partial_add_locked(slab, place);
	p->first_free = (uint32_t)id % CHUNK_SLOTS;
	atomic_fetch_sub_explicit(&slab->live, 1, memory_order_relaxed);
	/* The only one with free slots stays: the next object would need a chunk again. */
	if (--p->live == 0 && (p->next != NONE || p->previous != NONE)) {
		partial_remove_locked(slab, place);
		chunk_end_locked(slab, place);
	}
	pthread_mutex_unlock(&slab->mutex);
}

struct slab_slot *slab_get(const struct slab *slab, uint64_t id)
{
	uint32_t index = (uint32_t)id;
	struct slab_slot *slot;

	if (id >> 32 == 0 || index / CHUNK_SLOTS >= PLACES ||
	    !atomic_load_explicit(&slab->places[index / CHUNK_SLOTS].chunk, memory_order_acquire))
		return NULL;
	slot = slot_at(slab, index);
	return atomic_load_explicit(&slot->id, memory_order_acquire) == id ? slot : NULL;
}

void slab_each(struct slab *slab, void (*visit)(void *context, struct slab_slot *slot),
	       void *context)
{
	for (uint32_t place = 0; place < slab->head->places; place++) {
		for (uint32_t i = 0; i < CHUNK_SLOTS; i++) {
			struct slab_slot *slot = slot_at(slab, place * CHUNK_SLOTS + i);

			if (!atomic_load(&slab->places[place].chunk))
				break;
			if (atomic_load(&slot->id) != 0)
				visit(context, slot);
		}
	}
}

/* ---- start and end ---- */

/* Map SLAB's file for objects of STRIDE bytes. The mapping reaches beyond the file's end: only
 * chunks that exist are touched. */
static errint_t map(struct slab *slab, size_t stride)
{
	void *mapping;

	slab->stride = stride;
	slab->chunk_bytes = CHUNK_SLOTS * stride;
	slab->places = calloc(PLACES, sizeof(*slab->places));
	if (!slab->places)
		return -ENOMEM;
	mapping = mmap(NULL, mapping_bytes(slab), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_NORESERVE, slab->memory, 0);
	if (mapping == MAP_FAILED)
		return -errno;
	slab->head = mapping;
	slab->objects = (char *)mapping + FOLD_PAGE_SIZE;
	return 0;
}

static struct slab *slab_with(int memory)
{
	struct slab *slab = calloc(1, sizeof(*slab));

	if (!slab)
		return NULL;
	slab->memory = memory;
	slab->partial = NONE;
	slab->empty = NONE;
	pthread_mutex_init(&slab->mutex, NULL);
	return slab;
}

static errint_t begin(struct slab *slab, const char *name, size_t object_bytes)
{
	errint_t error;

	slab->memory = memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL);
	if (slab->memory < 0 && errno == EINVAL)
		slab->memory = memfd_create(name, MFD_CLOEXEC);
	if (slab->memory < 0)
		return -errno;
	if (fallocate(slab->memory, 0, 0, FOLD_PAGE_SIZE))
		return errno == ENOSPC ? -ENOMEM : -errno;
	error = map(slab, (object_bytes + SLAB_ALIGNMENT - 1) & ~(size_t)(SLAB_ALIGNMENT - 1));
	if (!error)
		*slab->head = (struct head){.magic = HEAD_MAGIC, .stride = (uint32_t)slab->stride};
	return error;
}

errint_t slab_new(const char *name, size_t object_bytes, struct slab **ret_slab)
{
	struct slab *slab = slab_with(-1);
	errint_t error = slab ? begin(slab, name, object_bytes) : -ENOMEM;

	if (error)
		slab_free(slab);
	else
		*ret_slab = slab;
	return error;
}

/* Whether the file, of BYTES, has a chunk at PLACE. -errno: that cannot be found out. */
static errint_t look_for_chunk(const struct slab *slab, uint32_t place, off_t bytes, bool *ret_has)
{
	off_t begin = chunk_at(slab, place) - (char *)slab->head;
	off_t end = begin + (off_t)slab->chunk_bytes;
	off_t data = bytes < end ? end : lseek(slab->memory, begin, SEEK_DATA);

	if (data < 0 && errno != ENXIO)
		return -errno;
	*ret_has = data >= 0 && data < end;
	return 0;
}

/* No other thread knows SLAB yet, so the mutex is not needed. */
static errint_t adopt(struct slab *slab)
{
	struct head head;
	struct stat st;
	errint_t error;
	bool has = false;

	if (fstat(slab->memory, &st))
		return -errno;
	if (pread(slab->memory, &head, sizeof(head), 0) != sizeof(head) ||
	    head.magic != HEAD_MAGIC || !head.stride || head.stride % SLAB_ALIGNMENT ||
	    head.places > PLACES)
		return -EPROTO;
	error = map(slab, head.stride);
	for (uint32_t place = head.places; place-- > 0 && !error;) {
		error = look_for_chunk(slab, place, st.st_size, &has);
		slab->places[place].count = head.count_max;
		if (error)
			break;
		if (has)
			chunk_begin_locked(slab, place);
		else
			empty_add_locked(slab, place);
	}
	return error;
}

errint_t slab_adopt(int memory, struct slab **ret_slab)
{
	struct slab *slab = slab_with(memory);
	errint_t error = -ENOMEM;

	if (slab) {
		slab->adopted = true;
		error = adopt(slab);
	}
	if (error)
		slab_free(slab);
	else
		*ret_slab = slab;
	return error;
}

size_t slab_object_bytes(const struct slab *slab)
{
	return slab->stride;
}

int slab_memory(const struct slab *slab)
{
	return slab->memory;
}

void slab_free(struct slab *slab)
{
	if (!slab)
		return;
	if (slab->head) {
		ASAN_UNPOISON_MEMORY_REGION(slab->objects, slab->head->places * slab->chunk_bytes);
		munmap(slab->head, mapping_bytes(slab));
	}
	if (slab->memory >= 0 && !slab->adopted)
		close(slab->memory);
	pthread_mutex_destroy(&slab->mutex);
	free(slab->places);
	free(slab);
}

/* ---- figures ---- */

uint64_t slab_bytes(const struct slab *slab)
{
	return atomic_load_explicit(&slab->bytes, memory_order_relaxed);
}

uint64_t slab_live(const struct slab *slab)
{
	return atomic_load_explicit(&slab->live, memory_order_relaxed);
}

static void place_recount_locked(const struct slab *slab, uint32_t place, struct slab_count *count)
{
	if (!atomic_load_explicit(&slab->places[place].chunk, memory_order_relaxed))
		return;
	count->bytes += slab->chunk_bytes;
	for (uint32_t i = 0; i < CHUNK_SLOTS; i++)
		count->live += atomic_load_explicit(&slot_at(slab, place * CHUNK_SLOTS + i)->id,
						    memory_order_relaxed) != 0;
}

void slab_recount(struct slab *slab, struct slab_count *ret_count)
{
	struct slab_count count = {0};
	uint32_t place;
	bool more = true;

	for (place = 0; more; place++) {
		pthread_mutex_lock(&slab->mutex);
		more = place < slab->head->places;
		if (more)
			place_recount_locked(slab, place, &count);
		pthread_mutex_unlock(&slab->mutex);
	}
	*ret_count = count;
}
