/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode_number.c - the inode numbers that clients see
 *
 * A space is all numbers of one device that have the same upper part. It has a token of 28 bits,
 * which is a hash of the two. If another space has that token already, the space gets the next free
 * one.
 *
 * Invariants:
 *  N.1  A token belongs to one space, and a space keeps its token to the end. So if a number is
 *       shown twice, it is one object.
 *  N.2  Two devices never have the same identity at the same time.
 *  N.3  An identity comes from what the file system itself says, as long as that distinguishes it
 *       from the others. The device number would not do: that of a subvolume or a network file
 *       system changes from mount to mount. So tokens are the same in the next mount, except where
 *       two spaces collided in 28 bits.
 *  N.4  A number of the source's own device that contains the mark is shown like one of another
 *       device. Such numbers exist: overlayfs uses the uppermost bits, and so do file systems whose
 *       numbers are hashes.
 *
 * Spaces of a device that is gone are kept. So its number cannot come to mean another object while
 * the kernel may still know the old one.
 */
#include "inode_number.h"

#include "foldfs/mountinfo.h"
#include "links.h"

#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>

#define MARK        UINT64_C(0x5f) /* positive even if it is taken for a signed number */
#define MARK_SHIFT  56
#define LOW_BITS    28
#define LOW_MASK    ((UINT64_C(1) << LOW_BITS) - 1)
#define FIRST_SLOTS 16u
#define IDENTITIES  3u /* ways to identify a file system, the better ones first */

struct slot {
	uint64_t key; /* 0: free */
	uint64_t value;
	uint64_t extra;
};

/* Open addressing; entries are never removed. */
struct table {
	struct slot *slots;
	size_t size; /* a power of two */
	size_t used;
};

struct inode_numbers {
	dev_t root; /* constant */
	pthread_rwlock_t lock;
	bool root_parts;      /* constant: links may be parted on the root's device */
	struct table devices; /* device + 1 -> identity, said_of(); under lock */
	/* identity -> the last device + 1 that got it; that device may have another identity by
	 * now; under lock */
	struct table identities;
	struct table spaces; /* token + 1 -> identity, upper part of numbers; under lock */
};

/* What a file system says about itself. */
struct answer {
	uint64_t type;
	uint64_t id; /* 0: none */
};

static uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * UINT64_C(0xff51afd7ed558ccd);
	hash = (hash ^ hash >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
	return hash ^ hash >> 29;
}

static uint64_t mix_text(uint64_t hash, const char *text)
{
	for (; *text; text++)
		hash = mix(hash, (unsigned char)*text);
	return mix(hash, 0);
}

/* ---- tables ---- */

/* The slot of KEY, or the free one where it belongs. */
static struct slot *table_find(const struct table *table, uint64_t key)
{
	size_t index = mix(0, key) & (table->size - 1);

	while (table->slots[index].key && table->slots[index].key != key)
		index = (index + 1) & (table->size - 1);
	return &table->slots[index];
}

static errint_t table_init(struct table *table, size_t size)
{
	table->slots = calloc(size, sizeof(struct slot));
	table->size = table->slots ? size : 0;
	table->used = 0;
	return table->slots ? 0 : -ENOMEM;
}

static errint_t table_grow(struct table *table)
{
	struct table grown;
	errint_t error = table_init(&grown, table->size * 2);

	if (error)
		return error;
	for (size_t index = 0; index < table->size; index++)
		if (table->slots[index].key)
			*table_find(&grown, table->slots[index].key) = table->slots[index];
	grown.used = table->used;
	free(table->slots);
	*table = grown;
	return 0;
}

/* Set the value of KEY, which is not 0. */
static errint_t table_set(struct table *table, uint64_t key, uint64_t value, uint64_t extra)
{
	struct slot *slot = table_find(table, key);
	errint_t error;

	if (!slot->key) {
		error = table->used >= table->size / 2 ? table_grow(table) : 0;
		if (error)
			return error;
		slot = table_find(table, key);
		table->used++;
	}
	*slot = (struct slot){.key = key, .value = value, .extra = extra};
	return 0;
}

/* ---- devices ---- */

/* What is stored of ANSWER, to recognize it. The lowest bit is left for whether links may be
 * parted. */
static uint64_t said_of(const struct answer *answer)
{
	return mix(answer->type, answer->id) & ~UINT64_C(1);
}

static const struct slot *device_find_locked(const struct inode_numbers *numbers, dev_t device)
{
	const struct slot *slot = table_find(&numbers->devices, device + 1);

	return slot->key ? slot : NULL;
}

/* The device that has IDENTITY now. -ENOENT: none has it. */
static errint_t device_of_locked(const struct inode_numbers *numbers, uint64_t identity,
				 dev_t *ret_device)
{
	const struct slot *last = table_find(&numbers->identities, identity);
	const struct slot *device;

	if (!last->key)
		return -ENOENT;
	device = table_find(&numbers->devices, last->value);
	if (!device->key || device->value != identity)
		return -ENOENT;
	*ret_device = last->value - 1;
	return 0;
}

/* DEVICE has IDENTITY from now on, and its file system said SAID. -EAGAIN: another device has
 * IDENTITY. */
static errint_t device_set_locked(struct inode_numbers *numbers, dev_t device, uint64_t identity,
				  uint64_t said)
{
	dev_t has;
	errint_t error;

	if (!device_of_locked(numbers, identity, &has) && has != device)
		return -EAGAIN;
	error = table_set(&numbers->identities, identity, device + 1, 0);
	return error ? error : table_set(&numbers->devices, device + 1, identity, said);
}

/* A file system that cannot be asked gets no id. */
static struct answer answer_of(int fd)
{
	struct answer answer = {0};
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return answer;
	answer.type = (uint64_t)fs.f_type;
	/* Overlayfs returns the id of its upper layer, which other file systems may have too. */
	if (fs.f_type != OVERLAYFS_SUPER_MAGIC)
		memcpy(&answer.id, &fs.f_fsid, sizeof(answer.id));
	return answer;
}

/* Identity number WAY of the file system that FD is on. Way 0 uses its id, way 1 also where it is
 * mounted, way 2 the device number. 0: there is no identity of that kind. */
static uint64_t identity_of(int fd, dev_t device, const struct answer *answer, unsigned way)
{
	uint64_t identity = mix(mix(way + 1, answer->type), answer->id);
	struct mount_entry entry = {0};

	if (way == 0 && !answer->id)
		return 0;
	if (way == 1) {
		if (mount_entry_of_fd(fd, &entry))
			return 0;
		identity = mix_text(mix_text(identity, entry.source), entry.mountpoint);
		mount_entry_clear(&entry);
	}
	return way == 2 ? mix(identity, device) : identity;
}

/* Find out what DEVICE is. The identities are determined without the lock, because that asks the
 * file system. */
static errint_t device_learn(struct inode_numbers *numbers, int fd, dev_t device,
			     const struct answer *answer)
{
	uint64_t said = said_of(answer) | links_may_part(fd);
	uint64_t identity = 0;
	errint_t error = -EAGAIN;

	for (unsigned way = 0; error == -EAGAIN && way <= IDENTITIES; way++) {
		/* After the last way, try the number after the last identity. */
		identity = way < IDENTITIES ? identity_of(fd, device, answer, way) : identity + 1;
		if (!identity)
			continue;
		pthread_rwlock_wrlock(&numbers->lock);
		error = device_set_locked(numbers, device, identity, said);
		pthread_rwlock_unlock(&numbers->lock);
	}
	return error == -EAGAIN ? -EOVERFLOW : error;
}

errint_t inode_numbers_meet(struct inode_numbers *numbers, int fd, dev_t device, bool crossed)
{
	const struct slot *slot;
	struct answer answer;
	bool known;

	if (device == numbers->root)
		return 0;
	if (crossed)
		answer = answer_of(fd);
	pthread_rwlock_rdlock(&numbers->lock);
	slot = device_find_locked(numbers, device);
	known = slot && (!crossed || (slot->extra & ~UINT64_C(1)) == said_of(&answer));
	pthread_rwlock_unlock(&numbers->lock);
	if (known)
		return 0;
	if (!crossed)
		answer = answer_of(fd);
	return device_learn(numbers, fd, device, &answer);
}

bool inode_numbers_part(struct inode_numbers *numbers, dev_t device)
{
	const struct slot *slot;
	bool result;

	if (device == numbers->root)
		return numbers->root_parts;
	pthread_rwlock_rdlock(&numbers->lock);
	slot = device_find_locked(numbers, device);
	result = slot && slot->extra & 1;
	pthread_rwlock_unlock(&numbers->lock);
	return result;
}

/* ---- spaces ---- */

/* The slot of a space, or the free slot that it would get. *ret_token is its token. */
static struct slot *space_find_locked(const struct inode_numbers *numbers, uint64_t identity,
				      uint64_t upper, uint64_t *ret_token)
{
	uint64_t token = mix(identity, upper) & LOW_MASK;
	struct slot *slot = table_find(&numbers->spaces, token + 1);

	while (slot->key && (slot->value != identity || slot->extra != upper)) {
		token = (token + 1) & LOW_MASK;
		slot = table_find(&numbers->spaces, token + 1);
	}
	*ret_token = token;
	return slot;
}

/* -ENOENT: there is no such space yet; -EOVERFLOW: DEVICE was never met. */
static errint_t space_get_locked(const struct inode_numbers *numbers, dev_t device, uint64_t upper,
				 uint64_t *ret_token)
{
	const struct slot *known = device_find_locked(numbers, device);

	if (!known)
		return -EOVERFLOW;
	return space_find_locked(numbers, known->value, upper, ret_token)->key ? 0 : -ENOENT;
}

static errint_t space_make_locked(struct inode_numbers *numbers, dev_t device, uint64_t upper,
				  uint64_t *ret_token)
{
	errint_t error = space_get_locked(numbers, device, upper, ret_token);

	if (error != -ENOENT)
		return error;
	if (numbers->spaces.used >= INODE_NUMBER_SPACES)
		return -EOVERFLOW;
	return table_set(&numbers->spaces, *ret_token + 1,
			 device_find_locked(numbers, device)->value, upper);
}

errint_t inode_numbers_show(struct inode_numbers *numbers, dev_t device, ino_t number,
			    ino_t *ret_shown)
{
	uint64_t token;
	errint_t error;

	if (device == numbers->root && number >> MARK_SHIFT != MARK) {
		*ret_shown = number;
		return 0;
	}
	pthread_rwlock_rdlock(&numbers->lock);
	error = space_get_locked(numbers, device, number >> LOW_BITS, &token);
	pthread_rwlock_unlock(&numbers->lock);
	if (error == -ENOENT) {
		pthread_rwlock_wrlock(&numbers->lock);
		error = space_make_locked(numbers, device, number >> LOW_BITS, &token);
		pthread_rwlock_unlock(&numbers->lock);
	}
	if (!error)
		*ret_shown = MARK << MARK_SHIFT | token << LOW_BITS | (number & LOW_MASK);
	return error;
}

errint_t inode_numbers_find(struct inode_numbers *numbers, ino_t shown, dev_t *ret_device,
			    ino_t *ret_number)
{
	const struct slot *slot;
	errint_t error = -ENOENT;

	if (shown >> MARK_SHIFT != MARK) {
		*ret_device = numbers->root;
		*ret_number = shown;
		return 0;
	}
	pthread_rwlock_rdlock(&numbers->lock);
	slot = table_find(&numbers->spaces, (shown >> LOW_BITS & LOW_MASK) + 1);
	if (slot->key) {
		*ret_number = slot->extra << LOW_BITS | (shown & LOW_MASK);
		error = device_of_locked(numbers, slot->value, ret_device);
	}
	pthread_rwlock_unlock(&numbers->lock);
	return error;
}

/* ---- all of them ---- */

errint_t inode_numbers_new(int root_fd, dev_t device, struct inode_numbers **ret_numbers)
{
	struct inode_numbers *numbers = calloc(1, sizeof(*numbers));
	struct answer answer;
	errint_t error;

	if (!numbers)
		return -ENOMEM;
	numbers->root = device;
	numbers->root_parts = links_may_part(root_fd);
	pthread_rwlock_init(&numbers->lock, NULL);
	error = table_init(&numbers->devices, FIRST_SLOTS);
	if (!error)
		error = table_init(&numbers->identities, FIRST_SLOTS);
	if (!error)
		error = table_init(&numbers->spaces, FIRST_SLOTS);
	if (!error) {
		answer = answer_of(root_fd);
		error = device_learn(numbers, root_fd, device, &answer);
	}
	if (error) {
		inode_numbers_free(numbers);
		return error;
	}
	*ret_numbers = numbers;
	return 0;
}

void inode_numbers_free(struct inode_numbers *numbers)
{
	if (!numbers)
		return;
	free(numbers->devices.slots);
	free(numbers->identities.slots);
	free(numbers->spaces.slots);
	pthread_rwlock_destroy(&numbers->lock);
	free(numbers);
}

uint64_t inode_numbers_bytes(struct inode_numbers *numbers)
{
	uint64_t slots;

	pthread_rwlock_rdlock(&numbers->lock);
	slots = numbers->devices.size + numbers->identities.size + numbers->spaces.size;
	pthread_rwlock_unlock(&numbers->lock);
	return sizeof(*numbers) + slots * sizeof(struct slot);
}
