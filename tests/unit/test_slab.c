/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_slab.c - objects by number: chunks come and go, a number is given out once, and a successor
 * finds what was there
 */
#include "fuse/slab.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define OBJECTS 5000
#define THREADS 4
#define RUNS    20000

struct object {
	struct slab_slot slot;
	uint64_t value;
	char more[80];
};

struct fixture {
	struct slab *slab;
	struct object *objects[OBJECTS];
	uint64_t ids[OBJECTS];
};

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	assert_int_equal(slab_new("test", sizeof(struct object), &fixture->slab), 0);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	slab_free(fixture->slab);
	free(fixture);
	return 0;
}

static struct object *take(struct slab *slab, uint64_t value, uint64_t *ret_id)
{
	struct slab_slot *slot;
	struct object *object;

	assert_int_equal(slab_take(slab, &slot, ret_id), 0);
	assert_null(slab_get(slab, *ret_id));
	object = (struct object *)slot;
	assert_int_equal(object->value, 0);
	object->value = value;
	slab_publish(slot, *ret_id);
	assert_ptr_equal(slab_get(slab, *ret_id), slot);
	return object;
}

static void take_all(struct fixture *fixture)
{
	for (int i = 0; i < OBJECTS; i++) {
		uint64_t old = fixture->ids[i];

		fixture->objects[i] = take(fixture->slab, (uint64_t)i, &fixture->ids[i]);
		assert_null(old ? slab_get(fixture->slab, old) : NULL);
	}
}

static void give(struct fixture *fixture, int i)
{
	slab_give(fixture->slab, &fixture->objects[i]->slot, fixture->ids[i]);
}

static void memory_goes_back_and_numbers_come_once(void **state)
{
	struct fixture *fixture = *state;
	uint64_t full;

	for (int round = 0; round < 3; round++) {
		take_all(fixture);
		full = slab_bytes(fixture->slab);
		assert_int_equal(slab_live(fixture->slab), OBJECTS);
		for (int i = 0; i < OBJECTS; i++)
			give(fixture, i);
		assert_int_equal(slab_live(fixture->slab), 0);
		assert_true(slab_bytes(fixture->slab) < full / 4);
	}
}

static void bogus_numbers_are_nobodys(void **state)
{
	struct fixture *fixture = *state;
	uint64_t id;

	(void)take(fixture->slab, 1, &id);
	assert_null(slab_get(fixture->slab, 0));
	assert_null(slab_get(fixture->slab, 1));
	assert_null(slab_get(fixture->slab, id + 1));
	assert_null(slab_get(fixture->slab, id + (UINT64_C(1) << 32)));
	assert_null(slab_get(fixture->slab, UINT64_MAX));
	assert_null(slab_get(fixture->slab, (UINT64_C(1) << 32) | 1000000));
}

/* As if the process had ended: the slab is gone, its file is not. */
static void succeed(struct fixture *fixture)
{
	int memory = dup(slab_memory(fixture->slab));

	assert_true(memory >= 0);
	slab_free(fixture->slab);
	assert_int_equal(slab_adopt(memory, &fixture->slab), 0);
}

static void a_successor_finds_the_objects(void **state)
{
	struct fixture *fixture = *state;
	struct slab_count count;
	uint64_t half_made;
	struct slab_slot *slot;
	unsigned expected = 0;

	take_all(fixture);
	/* Some chunks are gone, others have gaps. */
	for (int i = 0; i < OBJECTS; i++) {
		if (i < OBJECTS / 2 || i % 3 == 0)
			give(fixture, i);
		else
			expected++;
	}
	assert_int_equal(slab_take(fixture->slab, &slot, &half_made), 0);
	for (int round = 0; round < 2; round++) {
		succeed(fixture);
		assert_int_equal(slab_live(fixture->slab), expected);
		slab_recount(fixture->slab, &count);
		assert_int_equal(count.live, expected);
		assert_int_equal(count.bytes, slab_bytes(fixture->slab));
		assert_int_equal(slab_object_bytes(fixture->slab) % 64, 0);
		assert_null(slab_get(fixture->slab, half_made));
		for (int i = 0; i < OBJECTS; i++) {
			bool gone = i < OBJECTS / 2 || i % 3 == 0;

			slot = slab_get(fixture->slab, fixture->ids[i]);
			assert_int_equal(!slot, gone);
			if (slot)
				assert_int_equal(((struct object *)slot)->value, i);
		}
	}
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a;
	const uint64_t *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void numbers_come_once_over_successors(void **state)
{
	enum { ROUNDS = 5 };
	static uint64_t all[ROUNDS * OBJECTS];
	struct fixture *fixture = *state;

	for (int round = 0; round < ROUNDS; round++) {
		take_all(fixture);
		memcpy(all + round * OBJECTS, fixture->ids, sizeof(fixture->ids));
		for (int i = 0; i < OBJECTS; i++)
			if (i >= round)
				give(fixture, i);
		succeed(fixture);
		/* Those that a successor finds can be given back, too. */
		for (int i = 0; i < round; i++) {
			fixture->objects[i] =
				(struct object *)slab_get(fixture->slab, fixture->ids[i]);
			assert_non_null(fixture->objects[i]);
			give(fixture, i);
		}
	}
	assert_int_equal(slab_live(fixture->slab), 0);
	qsort(all, ROUNDS * OBJECTS, sizeof(*all), compare);
	for (int i = 1; i < ROUNDS * OBJECTS; i++)
		assert_int_not_equal(all[i], all[i - 1]);
}

static void nothing_else_is_adopted(void **state)
{
	struct slab *slab = NULL;
	FILE *file = tmpfile();
	int fd = file ? dup(fileno(file)) : -1;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(slab_adopt(fd, &slab), -EPROTO);
	assert_int_equal(ftruncate(fd, 8192), 0);
	assert_int_equal(slab_adopt(fd, &slab), -EPROTO);
	assert_null(slab);
	close(fd);
	fclose(file);
}

static void count_visit(void *context, struct slab_slot *slot)
{
	struct fixture *fixture = context;

	fixture->ids[((struct object *)slot)->value]++;
}

static void each_is_visited_once(void **state)
{
	struct fixture *fixture = *state;

	take_all(fixture);
	memset(fixture->ids, 0, sizeof(fixture->ids));
	slab_each(fixture->slab, count_visit, fixture);
	for (int i = 0; i < OBJECTS; i++)
		assert_int_equal(fixture->ids[i], 1);
}

/* Each thread finds its own objects, and those of others are gone or whole. */
static void *race(void *argument)
{
	struct slab *slab = argument;

	for (uint64_t run = 0; run < RUNS; run++) {
		struct slab_slot *slot;
		uint64_t id;

		if (slab_take(slab, &slot, &id))
			return "take";
		((struct object *)slot)->value = id;
		slab_publish(slot, id);
		if (slab_get(slab, id) != slot || ((struct object *)slot)->value != id)
			return "get";
		(void)slab_get(slab, id ^ run);
		slab_give(slab, slot, id);
		if (slab_get(slab, id))
			return "gone";
	}
	return NULL;
}

static void threads_race(void **state)
{
	struct fixture *fixture = *state;
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, race, fixture->slab), 0);
	for (int i = 0; i < THREADS; i++) {
		void *failed;

		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	assert_int_equal(slab_live(fixture->slab), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(memory_goes_back_and_numbers_come_once, setup,
						teardown),
		cmocka_unit_test_setup_teardown(bogus_numbers_are_nobodys, setup, teardown),
		cmocka_unit_test_setup_teardown(a_successor_finds_the_objects, setup, teardown),
		cmocka_unit_test_setup_teardown(numbers_come_once_over_successors, setup, teardown),
		cmocka_unit_test(nothing_else_is_adopted),
		cmocka_unit_test_setup_teardown(each_is_visited_once, setup, teardown),
		cmocka_unit_test_setup_teardown(threads_race, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
