/* SPDX-License-Identifier: Apache-2.0 */
/* test_frame_queue.c - who is evicted next: S3-FIFO, with shared frames worth their users */
#include "helpers.h"

#include "frame_queue.h"

#include <limits.h>

#define FRAMES 1000u

struct fixture {
	struct frame_queue queue;
	struct frame_meta *metas;
};

static void fixture_open(struct fixture *fixture)
{
	fixture->metas = aligned_alloc(64, FRAMES * sizeof(*fixture->metas));
	expect(fixture->metas);
	memset(fixture->metas, 0, FRAMES * sizeof(*fixture->metas));
	expect(!frame_queue_init(&fixture->queue, fixture->metas, FRAMES, FRAMES));
}

static void fixture_close(struct fixture *fixture)
{
	frame_queue_destroy(&fixture->queue);
	free(fixture->metas);
}

/* FRAME, with a content of its own number and so many users. */
static void insert_content(struct fixture *fixture, uint32_t frame, uint64_t content,
			   uint32_t users)
{
	struct frame_meta *meta = &fixture->metas[frame];

	meta->node.digest = (struct digest){.low = mix64(content), .high = mix64(~content)};
	atomic_store(&meta->life, (uint64_t)7 << 32 | users);
	frame_queue_insert(&fixture->queue, frame);
}

static void insert(struct fixture *fixture, uint32_t frame)
{
	insert_content(fixture, frame, frame, 1);
}

static void hit(struct fixture *fixture, uint32_t frame, unsigned times)
{
	atomic_store(&fixture->metas[frame].hot,
		     (uint8_t)(times < FRAME_HOT_MAX ? times : FRAME_HOT_MAX));
}

/* However many have to be looked at. */
static uint32_t victim(struct fixture *fixture)
{
	unsigned looks = UINT_MAX;

	return frame_queue_victim(&fixture->queue, &looks);
}

static void a_frame_is_one_cache_line(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct frame_meta), 64);
}

static void an_empty_queue_has_no_victim(void **state)
{
	struct fixture fixture;

	(void)state;
	fixture_open(&fixture);
	assert_int_equal(victim(&fixture), FRAME_NONE);
	frame_queue_remove(&fixture.queue, 5); /* in no queue: nothing */
	insert(&fixture, 3);
	assert_int_equal(victim(&fixture), 3);
	assert_int_equal(victim(&fixture), FRAME_NONE);
	fixture_close(&fixture);
}

static void unused_frames_leave_in_order(void **state)
{
	struct fixture fixture;

	(void)state;
	fixture_open(&fixture);
	for (uint32_t frame = 0; frame < FRAMES; frame++)
		insert(&fixture, frame);
	for (uint32_t frame = 100; frame < 200; frame++)
		frame_queue_remove(&fixture.queue, frame);
	for (uint32_t frame = 0; frame < FRAMES; frame++)
		if (frame < 100 || frame >= 200)
			assert_int_equal(victim(&fixture), frame);
	assert_int_equal(victim(&fixture), FRAME_NONE);
	fixture_close(&fixture);
}

/* Remove from the front, the middle and the end, in both queues, and go on. */
static void any_frame_can_be_removed(void **state)
{
	struct rng rng = rng_of_test(__func__);
	struct fixture fixture;
	bool in[FRAMES] = {false};
	unsigned count = 0;

	(void)state;
	fixture_open(&fixture);
	for (unsigned round = 0; round < 100000; round++) {
		uint32_t frame = (uint32_t)rng_below(&rng, FRAMES);

		if (!in[frame]) {
			insert_content(&fixture, frame, rng_below(&rng, 2000),
				       1 + (uint32_t)rng_below(&rng, 10));
			in[frame] = true;
			count++;
		} else if (rng_below(&rng, 3)) {
			hit(&fixture, frame, (unsigned)rng_below(&rng, 5));
		} else {
			frame_queue_remove(&fixture.queue, frame);
			in[frame] = false;
			count--;
		}
		if (rng_below(&rng, 6))
			continue;
		frame = victim(&fixture);
		assert_int_equal(frame == FRAME_NONE, count == 0);
		if (frame == FRAME_NONE)
			continue;
		assert_true(in[frame]);
		in[frame] = false;
		count--;
	}
	while ((count = victim(&fixture)) != FRAME_NONE) {
		assert_true(in[count]);
		in[count] = false;
	}
	for (unsigned frame = 0; frame < FRAMES; frame++)
		assert_false(in[frame]);
	fixture_close(&fixture);
}

static void what_is_used_again_outlives_a_scan(void **state)
{
	struct fixture fixture;

	(void)state;
	fixture_open(&fixture);
	for (uint32_t frame = 0; frame < 200; frame++)
		insert(&fixture, frame);
	for (uint32_t frame = 0; frame < 200; frame += 2)
		hit(&fixture, frame, 3);
	for (uint32_t frame = 200; frame < FRAMES; frame++)
		insert(&fixture, frame);
	for (unsigned i = 0; i < 700; i++) {
		uint32_t frame = victim(&fixture);

		assert_true(frame >= 200 || frame % 2 == 1);
	}
	fixture_close(&fixture);
}

/* The ghost knows digests: content that comes back, in whatever frame, is taken in for longer. */
static void content_that_comes_back_is_remembered(void **state)
{
	struct fixture fixture;

	(void)state;
	fixture_open(&fixture);
	for (uint32_t frame = 0; frame < 300; frame++)
		insert_content(&fixture, frame, 5000 + frame, 1);
	for (uint32_t frame = 0; frame < 300; frame++)
		assert_int_equal(victim(&fixture), frame);
	for (uint32_t frame = 0; frame < 100; frame++) /* back, in other frames */
		insert_content(&fixture, 999 - frame, 5000 + frame, 1);
	for (uint32_t frame = 0; frame < 300; frame++) /* and new ones */
		insert_content(&fixture, frame, 9000 + frame, 1);
	for (uint32_t frame = 0; frame < 200; frame++)
		assert_int_equal(victim(&fixture), frame);
	fixture_close(&fixture);
}

static void private_frames_have_no_ghost(void **state)
{
	struct fixture fixture;

	(void)state;
	fixture_open(&fixture);
	for (unsigned twice = 0; twice < 2; twice++)
		for (uint32_t frame = 0; frame < 300; frame++) {
			fixture.metas[frame].private = true;
			insert_content(&fixture, frame, 1, 1);
			assert_int_equal(fixture.metas[frame].where, FRAME_SMALL);
			assert_int_equal(victim(&fixture), frame);
		}
	fixture_close(&fixture);
}

/* Evicting it would cost each of its users a miss. */
static void a_shared_frame_outlives_its_equals(void **state)
{
	struct fixture fixture;
	unsigned place[4] = {0};

	(void)state;
	fixture_open(&fixture);
	/* All of them in the main queue; four with 1, 2, 4 and 8 users first of all. */
	for (uint32_t frame = 0; frame < 200; frame++) {
		insert_content(&fixture, frame, frame, frame < 4 ? 1u << frame : 1);
		hit(&fixture, frame, 3);
	}
	for (unsigned i = 1; i <= 200; i++) {
		uint32_t frame = victim(&fixture);

		assert_true(frame != FRAME_NONE);
		if (frame < 4)
			place[frame] = i;
	}
	assert_true(place[0] && place[0] < place[1]);
	assert_true(place[1] < place[2] || place[1] > 190);
	assert_true(place[2] < place[3] || place[2] > 190);
	assert_true(place[3] > 190);
	/* And it does leave. */
	assert_int_equal(victim(&fixture), FRAME_NONE);
	fixture_close(&fixture);
}

/* Where all is in use, a search ends after as many as it may look at, and the next one goes on:
 * after as many laps as there are hot bits it finds one. */
static void a_search_is_bounded(void **state)
{
	struct fixture fixture;
	unsigned searches = 0;
	uint32_t frame;

	(void)state;
	fixture_open(&fixture);
	for (frame = 0; frame < FRAMES; frame++) {
		insert(&fixture, frame);
		hit(&fixture, frame, FRAME_HOT_MAX);
	}
	do {
		unsigned looks = 10;

		frame = frame_queue_victim(&fixture.queue, &looks);
		assert_true(frame != FRAME_NONE || !looks);
		for (uint32_t i = 0; frame == FRAME_NONE && searches < 300 && i < FRAMES; i++)
			if (fixture.metas[i].where == FRAME_MAIN)
				hit(&fixture, i, FRAME_HOT_MAX);
	} while (frame == FRAME_NONE && ++searches < 10000);
	assert_in_range(searches, 300, 300 + FRAMES * (FRAME_HOT_MAX + 1) / 10);
	assert_int_equal(fixture.queue.small.length + fixture.queue.main.length, FRAMES - 1);
	fixture_close(&fixture);
}

static void the_eldest_goes_whatever_its_use(void **state)
{
	struct fixture fixture;

	(void)state;
	fixture_open(&fixture);
	assert_int_equal(frame_queue_eldest(&fixture.queue), FRAME_NONE);
	insert_content(&fixture, 7, 1, 100);
	insert(&fixture, 8);
	hit(&fixture, 7, FRAME_HOT_MAX);
	assert_int_equal(frame_queue_eldest(&fixture.queue), 7);
	assert_int_equal(frame_queue_eldest(&fixture.queue), 8);
	assert_int_equal(frame_queue_eldest(&fixture.queue), FRAME_NONE);
	fixture_close(&fixture);
}

static void the_ghost_is_small(void **state)
{
	struct fixture fixture;

	(void)state;
	fixture_open(&fixture);
	assert_true(frame_queue_bytes(&fixture.queue) <= FRAMES * 4);
	fixture_close(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_frame_is_one_cache_line),
		cmocka_unit_test(an_empty_queue_has_no_victim),
		cmocka_unit_test(unused_frames_leave_in_order),
		cmocka_unit_test(any_frame_can_be_removed),
		cmocka_unit_test(what_is_used_again_outlives_a_scan),
		cmocka_unit_test(content_that_comes_back_is_remembered),
		cmocka_unit_test(private_frames_have_no_ghost),
		cmocka_unit_test(a_shared_frame_outlives_its_equals),
		cmocka_unit_test(a_search_is_bounded),
		cmocka_unit_test(the_eldest_goes_whatever_its_use),
		cmocka_unit_test(the_ghost_is_small),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
