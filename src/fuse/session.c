/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - what outlives the process that serves a mount
 *
 * A request that comes once more is looked for in the slots of all workers whose slots are kept,
 * the youngest first: each worker takes over in its own slot what is still true.
 */
#include "foldfs/session.h"

#include "foldfs/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* What the calling thread has in hand. */
static __thread uint32_t self;
static __thread struct session_slot *current;
static __thread struct session_slot *earlier;

void session_format(size_t bytes, char ret_format[SESSION_FORMAT_BYTES])
{
	snprintf(ret_format, SESSION_FORMAT_BYTES, "%u-%zx-%zx", SESSION_FORMAT,
		 sizeof(struct session), bytes);
}

/* MAP_FAILED, with errno. MEMORY: -1 for memory that no other program can get. */
static void *map(int memory)
{
	return mmap(NULL, sizeof(struct session), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_NORESERVE | (memory < 0 ? MAP_ANONYMOUS : 0), memory, 0);
}

/* A file for a session. -1: it exceeds the user's limit of file sizes, or there is no memory. */
static int make_memory(void)
{
	int memory = memfd_create("foldfs-session", MFD_CLOEXEC | MFD_NOEXEC_SEAL);

	if (memory < 0 && errno == EINVAL)
		memory = memfd_create("foldfs-session", MFD_CLOEXEC);
	if (memory < 0 || !ftruncate(memory, sizeof(struct session)))
		return memory;
	close(memory);
	return -1;
}

errint_t session_new(const char *format, struct session **ret_session)
{
	int memory = make_memory();
	struct session *session = map(memory);
	errint_t error;

	if (session == MAP_FAILED) {
		error = -errno;
		if (memory >= 0)
			close(memory);
		return error;
	}
	snprintf(session->format, sizeof(session->format), "%s", format);
	session->memory_of_it = memory;
	session->device = -1;
	session->client = -1;
	for (unsigned i = 0; i < SESSION_MEMORIES; i++)
		session->memory[i] = -1;
	*ret_session = session;
	return 0;
}

errint_t session_adopt(int memory, const char *format, struct session **ret_session)
{
	struct session *session = map(memory);
	struct stat st;

	if (session == MAP_FAILED)
		return -errno;
	if (fstat(memory, &st) || st.st_size != (off_t)sizeof(*session) ||
	    strncmp(session->format, format, sizeof(session->format)) != 0) {
		munmap(session, sizeof(*session));
		return -EPROTO;
	}
	*ret_session = session;
	return 0;
}

void session_free(struct session *session)
{
	if (!session)
		return;
	if (session->memory_of_it >= 0)
		close(session->memory_of_it);
	munmap(session, sizeof(*session));
}

static struct session_slot *bank(struct session *session, uint32_t worker)
{
	return session->slots[worker % SESSION_BANKS];
}

/* Without its list: that takes memory only where it was used. */
static void slot_clear(struct session_slot *slot)
{
	atomic_store_explicit(&slot->unique, 0, memory_order_release);
	slot->made = 0;
	slot->began = 0;
	slot->counted = 0;
}

void session_begin(struct session *session)
{
	struct session_slot *slots = bank(session, session->workers);

	/* What is forgotten here is older than all that is kept. */
	if (session->workers < SESSION_BANKS ||
	    !madvise(slots, sizeof(session->slots[0]), MADV_REMOVE))
		return;
	for (unsigned i = 0; i < SESSION_SLOTS; i++)
		slot_clear(&slots[i]);
}

/* Threads that do not end while they wait for the kernel stay in the list. */
static bool is_left(int pid, uint32_t thread)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%u", pid, thread);
	return access(path, F_OK) == 0;
}

bool session_is_busy(struct session *session, int pid)
{
	struct session_slot *slots = bank(session, session->workers);

	for (unsigned i = 0; i < SESSION_SLOTS; i++)
		if (atomic_load(&slots[i].unique) && is_left(pid, slots[i].thread))
			return true;
	return false;
}

uint64_t session_progress(struct session *session)
{
	const struct session_slot *slots = bank(session, session->workers);
	uint64_t progress = 0;

	for (unsigned i = 0; i < SESSION_SLOTS; i++)
		progress = progress * 31 +
			   atomic_load_explicit(&slots[i].unique, memory_order_relaxed);
	return progress;
}

/*
 * The kernel copies a request into the buffer. If it has to get memory for that while the process is
 * being killed, it gives up, and the client gets EIO (fuse_dev_do_read() in fs/fuse/dev.c; seen with
 * Linux 6.18). So where a death is to be survived, the memory is there before.
 */
bool session_buffer_fill(struct session *session, unsigned index)
{
	return session->survives &&
	       !madvise(session->buffers[index], SESSION_BUFFER_BYTES, MADV_POPULATE_WRITE);
}

void *session_buffer(struct session *session, unsigned index)
{
	return session->buffers[index];
}

void session_buffer_clear(struct session *session, unsigned index)
{
	(void)madvise(session->buffers[index], SESSION_BUFFER_BYTES, MADV_REMOVE);
}

const void *session_last_read(struct session *session, unsigned index, uint32_t *ret_counted)
{
	const struct session_slot *slot = &bank(session, session->workers - 1)[index];

	*ret_counted = atomic_load(&slot->unique) ? slot->counted : 0;
	return session->buffers[index];
}

struct session_slot *session_slot(struct session *session, unsigned index)
{
	return &bank(session, session->workers)[index];
}

static struct session_slot *find(struct session *session, uint64_t unique)
{
	for (uint32_t age = 1; age < SESSION_BANKS && age < session->workers; age++) {
		struct session_slot *slots = bank(session, session->workers - age);

		for (unsigned i = 0; i < SESSION_SLOTS; i++)
			if (atomic_load(&slots[i].unique) == unique)
				return &slots[i];
	}
	return NULL;
}

void session_request_begin(struct session *session, struct session_slot *slot, uint64_t unique)
{
	earlier = unique & SESSION_RESENT ? find(session, unique & ~SESSION_RESENT) : NULL;
	if (!self)
		self = (uint32_t)gettid();
	slot->thread = self;
	if (earlier) {
		slot->facts[0] = earlier->facts[0];
		slot->facts[1] = earlier->facts[1];
		slot->began = earlier->began;
	}
	atomic_store_explicit(&slot->unique, unique & ~SESSION_RESENT, memory_order_release);
	current = slot;
}

void session_request_end(void)
{
	if (current)
		slot_clear(current);
	current = NULL;
	earlier = NULL;
}

struct session_slot *session_earlier(void)
{
	return earlier;
}

void session_change_begins(uint64_t fact, uint64_t other_fact)
{
	struct timespec now;

	if (!current || current->began)
		return;
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	current->facts[0] = fact;
	current->facts[1] = other_fact;
	atomic_signal_fence(memory_order_release);
	*(volatile int64_t *)&current->began = now.tv_sec * NS_PER_S + now.tv_nsec;
}

bool session_change_had_begun(int64_t *ret_began, uint64_t ret_facts[2])
{
	if (!earlier || !earlier->began)
		return false;
	*ret_began = earlier->began;
	memcpy(ret_facts, earlier->facts, sizeof(earlier->facts));
	return true;
}

void session_has_made(enum session_memory memory, uint64_t number)
{
	if (!current)
		return;
	current->made_in = memory;
	atomic_signal_fence(memory_order_release);
	*(volatile uint64_t *)&current->made = number;
}

/* ---- look-up counts ---- */

static void change_begin(struct session_slot *slot, uint64_t node, uint64_t after, uint32_t counted)
{
	slot->lookups_after = after;
	slot->counted_after = counted;
	atomic_store_explicit(&slot->node, node, memory_order_release);
	/* Not to be reordered with the change of the count, which follows. */
	atomic_signal_fence(memory_order_seq_cst);
}

static void change_end(struct session_slot *slot)
{
	atomic_signal_fence(memory_order_seq_cst);
	slot->counted = slot->counted_after;
	atomic_store_explicit(&slot->node, 0, memory_order_release);
}

void session_count_begin(uint64_t node, uint64_t after)
{
	if (!current || current->counted == SESSION_COUNTED)
		return;
	current->nodes[current->counted] = node;
	change_begin(current, node, after, current->counted + 1);
}

void session_count_end(void)
{
	if (current && atomic_load_explicit(&current->node, memory_order_relaxed))
		change_end(current);
}

void session_uncount_begin(struct session_slot *slot, uint64_t after)
{
	change_begin(slot, slot->nodes[slot->counted - 1], after, slot->counted - 1);
}

void session_uncount_end(struct session_slot *slot)
{
	change_end(slot);
}

void session_settle(struct session *session,
		    void (*change)(void *context, uint64_t node, uint64_t lookups), void *context)
{
	for (unsigned i = 0; i < SESSION_BANKS * SESSION_SLOTS; i++) {
		struct session_slot *slot = &session->slots[i / SESSION_SLOTS][i % SESSION_SLOTS];
		uint64_t node = atomic_load(&slot->node);

		if (!node)
			continue;
		change(context, node, slot->lookups_after);
		change_end(slot);
	}
}

/* ---- settings ---- */

void session_note_settings(struct session *session, const char *said)
{
	uint32_t at = atomic_load(&session->settings_at) == 1 ? 2 : 1;

	strcpy(session->settings[at - 1], said);
	atomic_store(&session->settings_at, at);
}

const char *session_settings(const struct session *session)
{
	uint32_t at = atomic_load(&session->settings_at);

	return at ? session->settings[at - 1] : NULL;
}
