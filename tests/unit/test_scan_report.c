/* SPDX-License-Identifier: Apache-2.0 */
/* test_scan_report.c - how far a scan is, in one line of any terminal */
#include "helpers.h"

#include "foldfs/scan_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The line at COLUMNS, without what wipes out the last one; the caller's. */
static char *line_of(const struct scan_progress *progress, double seconds, int columns)
{
	static const char wipe[] = "\r\033[K";
	char *text = NULL;
	size_t length;
	FILE *stream = open_memstream(&text, &length);

	assert_non_null(stream);
	scan_report_progress(stream, progress, seconds, columns);
	assert_int_equal(fclose(stream), 0);
	assert_memory_equal(text, wipe, strlen(wipe));
	memmove(text, text + strlen(wipe), strlen(text + strlen(wipe)) + 1);
	return text;
}

static void a_line_fits_into_the_terminal(void **state)
{
	static const struct scan_progress cases[] = {
		{.step = SCAN_READING},
		{.step = SCAN_READING,
		 .files = 156984,
		 .bytes = UINT64_C(123) << 30,
		 .total_files = 999999,
		 .total_bytes = UINT64_C(997) << 30},
		{.step = SCAN_COMPARING,
		 .files = UINT64_MAX / 4,
		 .bytes = UINT64_MAX / 4,
		 .total_files = UINT64_MAX / 2,
		 .total_bytes = UINT64_MAX / 2},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (int columns = 20; columns < 140; columns++) {
			char *line = line_of(&cases[i], 12345.6, columns);

			assert_in_range(strlen(line), 9, columns - 1);
			free(line);
		}
}

/* At 80 columns all is told, and beside it is a bar. */
static void nothing_is_left_out_at_80_columns(void **state)
{
	const struct scan_progress progress = {.step = SCAN_READING,
					       .files = 156984,
					       .bytes = UINT64_C(12) << 30,
					       .total_files = 999999,
					       .total_bytes = UINT64_C(24) << 30};
	char *line = line_of(&progress, 100, 80);

	(void)state;
	assert_non_null(strstr(line, "#."));
	assert_non_null(
		strstr(line, "]  50 %  156 984 files, 12.0 GiB, 123 MiB/s, 1 min 40 s left"));
	free(line);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_fits_into_the_terminal),
		cmocka_unit_test(nothing_is_left_out_at_80_columns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
