/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_window_forget.c - a file that goes wakes the trimmer only for what is noted of it: a
 * directory that is emptied would else switch threads for each name
 */
#include "window_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define FILES 1000u

/* The linker's names. */
int __wrap_pthread_cond_signal(pthread_cond_t *condition);
int __real_pthread_cond_signal(pthread_cond_t *condition);

static atomic_uint signals;

int __wrap_pthread_cond_signal(pthread_cond_t *condition)
{
	signals++;
	return __real_pthread_cond_signal(condition);
}

static errint_t nothing(void *context, uint64_t node, off_t offset, off_t length)
{
	(void)context;
	(void)node;
	(void)offset;
	(void)length;
	return 0;
}

static void forget_files(struct window *window, bool noted)
{
	struct window_file *file;

	for (uint64_t node = 0; node < FILES; node++) {
		assert_int_equal(window_file_new(window, node, 0, &file), 0);
		if (noted)
			window_note(file, 0, 1);
		window_file_forget(file);
	}
}

static void who_leaves_nothing_wakes_nobody(void **state)
{
	struct window *window;

	(void)state;
	assert_int_equal(window_new(1 << 20, nothing, NULL, &window), 0);
	signals = 0;
	forget_files(window, false);
	assert_int_equal(signals, 0);
	forget_files(window, true);
	assert_true(signals >= FILES);
	window_stop(window);
	window_free(window);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_leaves_nothing_wakes_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
