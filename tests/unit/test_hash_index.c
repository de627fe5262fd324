/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_hash_index.c - the digest nominates, the bytes decide; one content is inserted once
 *
 * Every test holds with a digest of 8 bits as well, where nearly every hit is a wrong one.
 */
#include "helpers.h"

#include "foldfs/hash_index.h"

#include <urcu/compiler.h>

/* An owner of nodes as simple as can be. */
struct entry {
	struct hash_index_node node;
	atomic_bool dying;
	struct test_page page;
};

struct owner {
	struct hash_index *index;
	atomic_ulong collisions;
	struct entry *intruder; /* inserted while somebody looks something up, once */
};

static const void *entry_bytes(void *context, const struct hash_index_node *node)
{
	const struct entry *entry = caa_container_of(node, struct entry, node);
	struct owner *owner = context;
	struct entry *intruder = owner->intruder;

	if (intruder) {
		owner->intruder = NULL;
		expect(hash_index_share(owner->index, &intruder->node, &intruder->page) ==
		       &intruder->node);
	}
	return atomic_load(&entry->dying) ? NULL : &entry->page;
}

static void count_collision(void *context)
{
	struct owner *owner = context;

	atomic_fetch_add(&owner->collisions, 1);
}

static void owner_open(struct owner *owner, uint64_t max_entries)
{
	struct hash_index_owner callbacks = {
		.bytes = entry_bytes, .collision = count_collision, .owner = owner};

	atomic_init(&owner->collisions, 0);
	owner->intruder = NULL;
	expect(!hash_index_new(max_entries, &callbacks, &owner->index));
}

static struct entry *entries_new(size_t count)
{
	struct entry *entries = calloc(count, sizeof(*entries));

	expect(entries);
	return entries;
}

static void entry_set(struct owner *owner, struct entry *entry, uint64_t content)
{
	page_make(&entry->page, content, 0);
	hash_index_digest(owner->index, &entry->page, &entry->node.digest);
}

/* Read sides of their own. */
static struct entry *entry_share(struct owner *owner, struct entry *entry)
{
	struct hash_index_node *found;

	fold_rcu_read_lock();
	found = hash_index_share(owner->index, &entry->node, &entry->page);
	fold_rcu_read_unlock();
	return caa_container_of(found, struct entry, node);
}

static void entry_remove(struct owner *owner, struct entry *entry)
{
	fold_rcu_read_lock();
	hash_index_remove(owner->index, &entry->node);
	fold_rcu_read_unlock();
}

static void digest_follows_content(void **state)
{
	struct owner owner;
	struct test_page page;
	struct test_page same;
	struct digest one;
	struct digest two;

	(void)state;
	owner_open(&owner, 16);
	page_make(&page, 1, 1);
	page_make(&same, 1, 1);
	hash_index_digest(owner.index, &page, &one);
	hash_index_digest(owner.index, &same, &two);
	assert_memory_equal(&one, &two, sizeof(one));
#if FOLDFS_DIGEST_BITS == 128
	/* Every byte counts. */
	for (size_t i = 0; i < FOLD_PAGE_SIZE; i += 61) {
		((uint8_t *)&same)[i] ^= 0x80;
		hash_index_digest(owner.index, &same, &two);
		assert_memory_not_equal(&one, &two, sizeof(one));
		((uint8_t *)&same)[i] ^= 0x80;
	}
#else
	assert_true(one.low < 1u << FOLDFS_DIGEST_BITS);
	assert_int_equal(one.high, 0);
#endif
	hash_index_free(owner.index);
}

static void digest_does_not_depend_on_alignment(void **state)
{
	uint8_t buffer[FOLD_PAGE_SIZE + 16];
	struct owner owner;
	struct test_page page;
	struct digest one;
	struct digest two;

	(void)state;
	owner_open(&owner, 16);
	page_make(&page, 2, 2);
	hash_index_digest(owner.index, &page, &one);
	for (size_t skew = 0; skew < 16; skew++) {
		memcpy(buffer + skew, &page, sizeof(page));
		hash_index_digest(owner.index, buffer + skew, &two);
		assert_memory_equal(&one, &two, sizeof(one));
	}
	hash_index_free(owner.index);
}

/* Nobody outside can prepare pages that collide: the secret is made at start-up. */
static void secret_differs_between_indexes(void **state)
{
	struct owner a;
	struct owner b;
	unsigned different = 0;

	(void)state;
	owner_open(&a, 16);
	owner_open(&b, 16);
	for (uint64_t content = 0; content < 64; content++) {
		struct test_page page;
		struct digest one;
		struct digest two;

		page_make(&page, content, 0);
		hash_index_digest(a.index, &page, &one);
		hash_index_digest(b.index, &page, &two);
		different += !!memcmp(&one, &two, sizeof(one));
	}
	assert_true(different > 48);
	hash_index_free(a.index);
	hash_index_free(b.index);
}

static void equal_content_is_found(void **state)
{
	struct owner owner;
	struct entry *e = entries_new(2);

	(void)state;
	owner_open(&owner, 16);
	entry_set(&owner, &e[0], 7);
	entry_set(&owner, &e[1], 7);
	assert_ptr_equal(entry_share(&owner, &e[0]), &e[0]);
	assert_ptr_equal(entry_share(&owner, &e[1]), &e[0]);
	assert_int_equal(atomic_load(&owner.collisions), 0);
	/* The loser is still its caller's: it may carry other content now. */
	entry_set(&owner, &e[1], 8);
	assert_ptr_equal(entry_share(&owner, &e[1]), &e[1]);
	entry_remove(&owner, &e[0]);
	entry_remove(&owner, &e[1]);
	fold_rcu_synchronize();
	hash_index_free(owner.index);
	free(e);
}

/* DESIGN, invariant 4: a digest only nominates. The digests are forged to be equal. */
static void equal_digest_alone_is_not_enough(void **state)
{
	enum { N = 20 };
	struct owner owner;
	struct entry *e = entries_new(N);
	struct entry *probe = entries_new(1);

	(void)state;
	owner_open(&owner, 64);
	for (unsigned i = 0; i < N; i++) {
		page_make(&e[i].page, 0, 0);
		/* One byte differs, at the start, in the middle, at the very end. */
		((uint8_t *)&e[i].page)[i * (FOLD_PAGE_SIZE - 1) / (N - 1)] ^= 1;
		e[i].node.digest = (struct digest){.low = 42, .high = 42};
		assert_ptr_equal(entry_share(&owner, &e[i]), &e[i]);
	}
	assert_true(atomic_load(&owner.collisions) >= N - 1);
	for (unsigned i = 0; i < N; i++) {
		probe->page = e[i].page;
		probe->node.digest = e[i].node.digest;
		assert_ptr_equal(entry_share(&owner, probe), &e[i]);
	}
	for (unsigned i = 0; i < N; i++)
		entry_remove(&owner, &e[i]);
	fold_rcu_synchronize();
	hash_index_free(owner.index);
	free(probe);
	free(e);
}

/* The other half of the digest nominates too: no collision is counted, no bytes are compared. */
static void digests_differ_in_either_half(void **state)
{
	struct owner owner;
	struct entry *e = entries_new(3);

	(void)state;
	owner_open(&owner, 16);
	for (unsigned i = 0; i < 3; i++)
		page_make(&e[i].page, 3, 3);
	e[0].node.digest = (struct digest){.low = 1, .high = 1};
	e[1].node.digest = (struct digest){.low = 1, .high = 2};
	e[2].node.digest = (struct digest){.low = 2, .high = 1};
	for (unsigned i = 0; i < 3; i++)
		assert_ptr_equal(entry_share(&owner, &e[i]), &e[i]);
	assert_int_equal(atomic_load(&owner.collisions), 0);
	for (unsigned i = 0; i < 3; i++)
		entry_remove(&owner, &e[i]);
	fold_rcu_synchronize();
	hash_index_free(owner.index);
	free(e);
}

static void dying_node_is_not_shared(void **state)
{
	struct owner owner;
	struct entry *e = entries_new(3);

	(void)state;
	owner_open(&owner, 16);
	for (unsigned i = 0; i < 3; i++)
		entry_set(&owner, &e[i], 5);
	assert_ptr_equal(entry_share(&owner, &e[0]), &e[0]);
	atomic_store(&e[0].dying, true);
	assert_ptr_equal(entry_share(&owner, &e[1]), &e[1]);
	assert_ptr_equal(entry_share(&owner, &e[2]), &e[1]);
	entry_remove(&owner, &e[0]);
	assert_ptr_equal(entry_share(&owner, &e[2]), &e[1]);
	entry_remove(&owner, &e[1]);
	fold_rcu_synchronize();
	hash_index_free(owner.index);
	free(e);
}

static void removed_node_is_not_found(void **state)
{
	struct owner owner;
	struct entry *e = entries_new(2);

	(void)state;
	owner_open(&owner, 16);
	entry_set(&owner, &e[0], 5);
	entry_set(&owner, &e[1], 5);
	for (unsigned round = 0; round < 100; round++) {
		struct entry *one = &e[round % 2];
		struct entry *other = &e[(round + 1) % 2];

		assert_ptr_equal(entry_share(&owner, one), one);
		assert_ptr_equal(entry_share(&owner, other), one);
		entry_remove(&owner, one);
		if (round % 10 == 0)
			fold_rcu_synchronize();
		else
			fold_rcu_barrier();
		fold_rcu_synchronize();
	}
	hash_index_free(owner.index);
	free(e);
}

/* Look-up and insertion are one step: what comes in between is found. */
static void content_inserted_during_the_look_up_is_found(void **state)
{
	const struct digest forged = {.low = 42, .high = 42};
	struct owner owner;
	struct entry *e = entries_new(3);

	(void)state;
	owner_open(&owner, 64);
	for (unsigned i = 0; i < 3; i++) {
		page_make(&e[i].page, i > 0, 0); /* 1 and 2 are equal, 0 has their digest */
		e[i].node.digest = forged;
	}
	assert_ptr_equal(entry_share(&owner, &e[0]), &e[0]);
	owner.intruder = &e[1];
	assert_ptr_equal(entry_share(&owner, &e[2]), &e[1]);
	entry_remove(&owner, &e[0]);
	entry_remove(&owner, &e[1]);
	fold_rcu_synchronize();
	hash_index_free(owner.index);
	free(e);
}

/* Of many threads with one content, one inserts. */

struct race {
	struct owner owner;
	unsigned contents;
	unsigned threads;
	struct entry *entries;  /* threads * contents */
	struct entry **winners; /* the same: whom each share returned */
};

static void race_to_insert(void *context, unsigned index)
{
	struct race *race = context;

	for (unsigned c = 0; c < race->contents; c++) {
		unsigned i = index * race->contents + c;

		entry_set(&race->owner, &race->entries[i], c);
		race->winners[i] = entry_share(&race->owner, &race->entries[i]);
	}
}

static void one_thread_inserts_one_content(void **state)
{
	struct race race = {.contents = ROUNDS(1600), .threads = 4};
	unsigned all = race.contents * race.threads;

	(void)state;
	owner_open(&race.owner, all);
	race.entries = entries_new(all);
	race.winners = calloc(all, sizeof(*race.winners));
	expect(race.winners);
	crew_run(race.threads, race_to_insert, &race);
	for (unsigned c = 0; c < race.contents; c++) {
		struct entry *winner = race.winners[c];

		assert_true((size_t)(winner - race.entries) % race.contents == c);
		for (unsigned t = 1; t < race.threads; t++)
			assert_ptr_equal(race.winners[t * race.contents + c], winner);
		entry_remove(&race.owner, winner);
	}
	fold_rcu_synchronize();
	hash_index_free(race.owner.index);
	free(race.winners);
	free(race.entries);
}

/* Insert, find, remove and reuse at the same time: whatever is found is alive or was compared
 * whole. */

#define STORM_CONTENTS 40u

static void storm_of_shares(void *context, unsigned index)
{
	struct owner *owner = context;
	struct rng rng = {.state = index + 1};
	struct entry *mine = entries_new(8);

	for (unsigned round = 0; round < ROUNDS(1600); round++) {
		struct entry *entry = &mine[round % 8];
		uint64_t content = rng_below(&rng, STORM_CONTENTS);
		struct entry *found;

		atomic_store(&entry->dying, false);
		entry_set(owner, entry, content);
		fold_rcu_read_lock();
		found = caa_container_of(hash_index_share(owner->index, &entry->node, &entry->page),
					 struct entry, node);
		/* Dying or not, within this read side it stays as it is. */
		expect(page_is(&found->page, content, 0));
		fold_rcu_read_unlock();
		if (found != entry)
			continue;
		atomic_store(&entry->dying, true);
		entry_remove(owner, entry);
		fold_rcu_synchronize();
	}
	free(mine);
}

static void storm_finds_only_what_is_right(void **state)
{
	struct owner owner;

	(void)state;
	owner_open(&owner, 256);
	crew_run(4, storm_of_shares, &owner);
	hash_index_free(owner.index); /* all removed: refuses, and leaks, otherwise */
}

static void grow_keeps_everything(void **state)
{
	enum { N = 8192 };
	struct owner owner;
	struct entry *e = entries_new(N);
	struct entry *probe = entries_new(1);
	uint64_t before;

	(void)state;
	owner_open(&owner, N);
	before = hash_index_bytes(owner.index);
	assert_false(hash_index_wants_to_grow(owner.index));
	for (unsigned i = 0; i < N; i++) {
		entry_set(&owner, &e[i], i);
		assert_ptr_equal(entry_share(&owner, &e[i]), &e[i]);
	}
	assert_true(hash_index_wants_to_grow(owner.index));
	hash_index_grow(owner.index);
	assert_false(hash_index_wants_to_grow(owner.index));
	assert_true(hash_index_bytes(owner.index) > before);
	/* With the frame's 64 bytes: within 96 bytes for each frame. */
	assert_true(hash_index_bytes(owner.index) <= (uint64_t)N * (96 - 64));
	for (unsigned i = 0; i < N; i++) {
		entry_set(&owner, probe, i);
		assert_ptr_equal(entry_share(&owner, probe), &e[i]);
	}
	for (unsigned i = 0; i < N; i++)
		entry_remove(&owner, &e[i]);
	fold_rcu_synchronize();
	hash_index_free(owner.index);
	free(probe);
	free(e);
}

static void insert_or_grow(void *context, unsigned index)
{
	struct race *race = context;

	if (index < race->threads) {
		race_to_insert(race, index);
		return;
	}
	for (unsigned i = 0; i < 64; i++) {
		hash_index_grow(race->owner.index);
		test_nap();
	}
}

static void grow_while_others_insert(void **state)
{
	struct race race = {.contents = 4000, .threads = 2};
	unsigned all = race.contents * race.threads;

	(void)state;
	owner_open(&race.owner, all);
	race.entries = entries_new(all);
	race.winners = calloc(all, sizeof(*race.winners));
	expect(race.winners);
	crew_run(race.threads + 1, insert_or_grow, &race);
	for (unsigned c = 0; c < race.contents; c++) {
		assert_ptr_equal(race.winners[c], race.winners[race.contents + c]);
		entry_remove(&race.owner, race.winners[c]);
	}
	fold_rcu_synchronize();
	hash_index_free(race.owner.index);
	free(race.winners);
	free(race.entries);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(digest_follows_content),
		cmocka_unit_test(digest_does_not_depend_on_alignment),
		cmocka_unit_test(secret_differs_between_indexes),
		cmocka_unit_test(equal_content_is_found),
		cmocka_unit_test(equal_digest_alone_is_not_enough),
		cmocka_unit_test(digests_differ_in_either_half),
		cmocka_unit_test(dying_node_is_not_shared),
		cmocka_unit_test(removed_node_is_not_found),
		cmocka_unit_test(content_inserted_during_the_look_up_is_found),
		cmocka_unit_test(one_thread_inserts_one_content),
		cmocka_unit_test(storm_finds_only_what_is_right),
		cmocka_unit_test(grow_keeps_everything),
		cmocka_unit_test(grow_while_others_insert),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
