/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unique_pages.c - counts what a set of files holds, without foldfs
 *
 * It reads every file, hashes every 4096-byte page that is not all zero (XXH3-128), and counts the
 * different ones: the base against which the footprint is judged. It shares no code with foldfs.
 * With --span it also finds, in each file, the stretch of that many bytes that has the most
 * non-zero pages: the part that the timed reads use. Prints one JSON object.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#define PAGE_BYTES  4096u
#define CHUNK_BYTES (1u << 20)

struct count {
	XXH128_hash_t *digests;
	size_t used;
	size_t room;
	uint64_t pages;
	uint64_t span_chunks;
};

static void die(const char *what)
{
	fprintf(stderr, "unique_pages: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int compare(const void *a, const void *b)
{
	return XXH128_cmp(a, b);
}

static int is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE_BYTES - 1) == 0;
}

static void add(struct count *count, const uint8_t *page)
{
	if (count->used == count->room) {
		count->room = count->room ? count->room * 2 : 1u << 16;
		count->digests = realloc(count->digests, count->room * sizeof(*count->digests));
		if (!count->digests)
			die("digests");
	}
	count->digests[count->used++] = XXH3_128bits(page, PAGE_BYTES);
}

/* Count LENGTH bytes of BUFFER, the last page filled up with zeroes. Returns its non-zero pages. */
static unsigned count_chunk(struct count *count, uint8_t *buffer, size_t length)
{
	unsigned found = 0;

	memset(buffer + length, 0, (PAGE_BYTES - length % PAGE_BYTES) % PAGE_BYTES);
	for (size_t at = 0; at < length; at += PAGE_BYTES) {
		count->pages++;
		if (is_zero(buffer + at))
			continue;
		add(count, buffer + at);
		found++;
	}
	return found;
}

/* Bytes read at OFFSET, fewer than a chunk only at the end of the file. */
static size_t read_chunk(int fd, uint8_t *buffer, off_t offset, const char *path)
{
	size_t done = 0;

	while (done < CHUNK_BYTES) {
		ssize_t got = pread(fd, buffer + done, CHUNK_BYTES - done, offset + (off_t)done);
		if (got < 0)
			die(path);
		if (!got)
			break;
		done += (size_t)got;
	}
	return done;
}

/* Where SPAN neighbouring chunks have the highest sum. */
static uint64_t densest(const unsigned *chunks, uint64_t count, uint64_t span)
{
	uint64_t sum = 0;
	uint64_t best = 0;
	uint64_t best_at = 0;

	for (uint64_t i = 0; i < count; i++) {
		sum += chunks[i];
		if (i >= span)
			sum -= chunks[i - span];
		if (i + 1 >= span && sum > best) {
			best = sum;
			best_at = i + 1 - span;
		}
	}
	return best_at * CHUNK_BYTES;
}

static void count_file(struct count *count, const char *path, int first)
{
	static uint8_t buffer[CHUNK_BYTES + PAGE_BYTES];
	uint64_t nonzero = 0;
	uint64_t at = 0;
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st))
		die(path);
	unsigned *chunks = calloc((uint64_t)st.st_size / CHUNK_BYTES + 2, sizeof(*chunks));
	if (!chunks)
		die(path);
	for (size_t got; (got = read_chunk(fd, buffer, (off_t)(at * CHUNK_BYTES), path)) > 0;) {
		if (at > (uint64_t)st.st_size / CHUNK_BYTES) {
			errno = ESTALE;
			die(path);
		}
		chunks[at] = count_chunk(count, buffer, got);
		nonzero += chunks[at++];
	}
	close(fd);
	printf("%s\n  {\"bytes\": %" PRIu64 ", \"nonzero\": %" PRIu64 ", \"dense_offset\": %" PRIu64
	       "}",
	       first ? "" : ",", (uint64_t)st.st_size, nonzero,
	       densest(chunks, at, count->span_chunks));
	free(chunks);
}

int main(int argc, char *argv[])
{
	struct count count = {.span_chunks = 64};
	int first = 1;

	if (argc > 2 && strcmp(argv[1], "--span") == 0) {
		count.span_chunks = strtoumax(argv[2], NULL, 10) / CHUNK_BYTES;
		first = 3;
	}
	if (first >= argc || !count.span_chunks) {
		fprintf(stderr, "usage: unique_pages [--span BYTES] FILE ...\n");
		return 2;
	}
	printf("{\"files\": [");
	for (int i = first; i < argc; i++)
		count_file(&count, argv[i], i == first);

	uint64_t unique = 0;
	if (count.used)
		qsort(count.digests, count.used, sizeof(*count.digests), compare);
	for (size_t i = 0; i < count.used; i++)
		unique += i == 0 || compare(&count.digests[i - 1], &count.digests[i]) != 0;
	printf("],\n \"pages\": %" PRIu64 ", \"nonzero\": %zu, \"unique\": %" PRIu64 "}\n",
	       count.pages, count.used, unique);
	free(count.digests);
	return 0;
}
