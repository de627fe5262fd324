/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_report.c - what a scan found, as a table and as JSON, and how far it is
 *
 * The table tells what a mount saves as the pool sees it: each data page that is equal to another
 * one needs no frame of its own. That much is saved once all files have been read through the
 * mount, as long as all of it fits into the pool.
 */
#include "foldfs/human.h"
#include "foldfs/scan_command.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#define BAR         24
#define BAR_MIN     4
#define COLUMNS_MIN 20

static double saved_pages(const struct scan_result *result)
{
	double saved = (double)result->data_pages - result->unique_pages;

	return saved > 0 ? saved : 0;
}

static double files_with_data(const struct scan_result *result)
{
	return (double)(result->files - result->empty_files);
}

static double equal_files(const struct scan_result *result)
{
	double equal = files_with_data(result) - result->different_files;

	return equal > 0 ? equal : 0;
}

static int64_t bytes_of(double pages)
{
	return (int64_t)(pages * FOLD_PAGE_SIZE);
}

/* ---- for people ---- */

static void print_size(FILE *stream, const char *label, int64_t bytes, const char *meaning)
{
	struct human_buffer a;

	fprintf(stream, "  %-12s %15s  %s\n", label, human_size(bytes, &a), meaning);
}

static void print_count(FILE *stream, const char *label, int64_t count, const char *meaning)
{
	struct human_buffer a;

	fprintf(stream, "  %-12s %15s  %s\n", label, human_count(count, &a), meaning);
}

static void print_left_out(FILE *stream, const struct scan_result *result)
{
	if (result->unreadable)
		fprintf(stream, "%" PRIu64 " could not be read and are left out.\n",
			result->unreadable);
	if (result->changed)
		fprintf(stream,
			"%" PRIu64
			" changed while they were read, or are open for writing in a mount: they "
			"are left out.\n",
			result->changed);
	if (result->too_young)
		fprintf(stream, "%" PRIu64 " changed a moment ago and are not kept: scan again.\n",
			result->too_young);
}

static void print_errors(FILE *stream, const struct scan_result *result)
{
	struct human_buffer a;

	if (result->share < 1)
		fprintf(stream,
			"Memory was enough to look at one page in %.0f: unique and saved are "
			"estimates,\nwith a standard error of %s.\n",
			1 / result->share, human_size(bytes_of(result->pages_error), &a));
	if (result->files_share < 1)
		fprintf(stream,
			"Only one in %.0f of the equal files was counted: their number has a "
			"standard error of %.0f.\n",
			1 / result->files_share, result->files_error);
}

errint_t scan_report_table(FILE *stream, const char *path, const struct scan_result *result)
{
	char meaning[96];
	struct human_buffer a;
	double saved = saved_pages(result);

	human_print_foreign(stream, path);
	fputc('\n', stream);
	snprintf(meaning, sizeof(meaning), "%s in all", human_size((int64_t)result->bytes, &a));
	print_count(stream, "files", (int64_t)result->files, meaning);
	print_size(stream, "zeroes", bytes_of((double)result->zero_pages),
		   "pages that are all zero, and holes");
	print_size(stream, "data", bytes_of((double)result->data_pages), "all other pages");
	print_size(stream, "unique", bytes_of(result->unique_pages), "different pages among them");
	print_count(stream, "equal pages", (int64_t)saved,
		    "for each, one page in memory is enough");
	snprintf(meaning, sizeof(meaning), "%s, equal to another file as a whole",
		 human_size((int64_t)result->equal_bytes, &a));
	print_count(stream, "equal files", (int64_t)equal_files(result), meaning);
	snprintf(meaning, sizeof(meaning), "%.1f %% of the data: what a mount saves",
		 result->data_pages ? 100 * saved / (double)result->data_pages : 0.0);
	print_size(stream, "saved", bytes_of(saved), meaning);
	print_errors(stream, result);
	print_left_out(stream, result);
	if (result->family_files)
		fprintf(stream,
			"%" PRIu64 " files were compared page by page: %s of them need not be read "
			"again\nwhere another file has the same.\n",
			result->family_files,
			human_size(bytes_of((double)result->family_pages), &a));
	if (result->known)
		fprintf(stream, "%" PRIu64 " files were known already and were not read again.\n",
			result->known);
	return fflush(stream) || ferror(stream) ? -EIO : 0;
}

/* A bar and PART in percent, within COLUMNS. The bar is left out where there is no room for it. */
static void print_bar(FILE *stream, double part, int columns)
{
	int room = columns - (int)sizeof(" [] 100 %") + 1;
	int width = room < BAR ? room : BAR;
	int full = (int)(part * width);

	if (width >= BAR_MIN) {
		fputs(" [", stream);
		for (int i = 0; i < width; i++)
			fputc(i < full ? '#' : '.', stream);
		fputc(']', stream);
	}
	if (columns >= (int)sizeof(" 100 %"))
		fprintf(stream, " %3.0f %%", part * 100);
}

/* Print what is done, and LEFT, the seconds that are left, if that is known. */
static void print_numbers(FILE *stream, const struct scan_progress *progress, double seconds,
			  double left)
{
	struct human_buffer a;

	fprintf(stream, "  %s files", human_count((int64_t)progress->files, &a));
	if (progress->bytes)
		fprintf(stream, ", %s", human_size((int64_t)progress->bytes, &a));
	if (progress->bytes && seconds > 0.5)
		fprintf(stream, ", %s/s",
			human_size((int64_t)((double)progress->bytes / seconds), &a));
	if (left > 0)
		fprintf(stream, ", %s left", human_duration((int64_t)ceil(left), &a));
}

void scan_report_progress(FILE *stream, const struct scan_progress *progress, double seconds,
			  int columns)
{
	static const char *const steps[] = {"reading", "counting", "comparing", "pairing"};
	bool by_bytes = progress->step == SCAN_READING;
	double done = (double)(by_bytes ? progress->bytes : progress->files);
	double total = (double)(by_bytes ? progress->total_bytes : progress->total_files);
	double left = total > done && done > 0 && seconds > 1 ? seconds * (total - done) / done : 0;
	char numbers[160] = "";
	FILE *text = fmemopen(numbers, sizeof(numbers), "w");
	/* Some terminals wrap a line that fills the last column. */
	int room = (columns > COLUMNS_MIN ? columns : COLUMNS_MIN) - 1;

	if (text) {
		print_numbers(text, progress, seconds, left);
		fclose(text);
	}
	room -= fprintf(stream, "\r\033[K%-9s", steps[progress->step]) - (int)strlen("\r\033[K");
	if (total > 0)
		print_bar(stream, done < total ? done / total : 1, room - (int)strlen(numbers));
	fprintf(stream, "%.*s", room, numbers);
	fflush(stream);
}

void scan_report_progress_end(FILE *stream)
{
	fputs("\r\033[K", stream);
	fflush(stream);
}

/* ---- for programs ---- */

/* JSON has no NaN and no infinity: VALUE is rounded to the nearest number that JSON takes. */
static json_int_t whole(double value)
{
	return value > 0 ? (json_int_t)llround(value) : 0;
}

static json_t *counts_of(const struct scan_result *result)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "files",
			 (json_int_t)result->files, "known_files", (json_int_t)result->known,
			 "changed_files", (json_int_t)result->changed, "unreadable_files",
			 (json_int_t)result->unreadable, "unrecorded_files",
			 (json_int_t)result->too_young, "bytes", (json_int_t)result->bytes,
			 "read_bytes", (json_int_t)result->read_bytes, "zero_pages",
			 (json_int_t)result->zero_pages, "data_pages",
			 (json_int_t)result->data_pages);
}

static json_t *findings_of(const struct scan_result *result)
{
	return json_pack(
		"{s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:I}", "unique_pages",
		whole(result->unique_pages), "equal_pages", whole(saved_pages(result)),
		"pages_error", whole(result->pages_error), "pages_share", result->share,
		"different_files", whole(result->different_files), "equal_files",
		whole(equal_files(result)), "equal_files_bytes", whole(result->equal_bytes),
		"files_error", whole(result->files_error), "files_share", result->files_share,
		"compared_files", (json_int_t)(result->class_files - result->proved_files),
		"proved_files", (json_int_t)result->proved_files, "family_files",
		(json_int_t)result->family_files, "family_pages", (json_int_t)result->family_pages);
}

errint_t scan_report_json(FILE *stream, const char *path, const struct scan_options *options,
			  const struct scan_result *result)
{
	json_t *counts = counts_of(result);
	json_t *report = findings_of(result);
	json_t *name = json_string(path); /* NULL: the path is not UTF-8 */
	errint_t error = -ENOMEM;

	if (counts && report && !json_object_update(report, counts) &&
	    !json_object_set_new(report, "path", name ? name : json_null()) &&
	    !json_object_set_new(report, "saved_bytes",
				 json_integer(bytes_of(saved_pages(result)))) &&
	    !json_object_set_new(report, "complete", json_boolean(result->complete)) &&
	    !json_object_set_new(report, "recorded",
				 json_boolean(options->catalogue && !result->catalogue_error)) &&
	    !json_object_set_new(report, "seconds", json_real(result->seconds)))
		error = json_dumpf(report, stream, JSON_INDENT(2)) || fputc('\n', stream) == EOF ||
					fflush(stream)
				? -EIO
				: 0;
	json_decref(counts);
	json_decref(report);
	return error;
}
