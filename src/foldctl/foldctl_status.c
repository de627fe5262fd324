/* SPDX-License-Identifier: Apache-2.0 */
/* foldctl_status.c - foldctl status: the figures of a mount */
#include "foldctl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int64_t bytes_of(const json_t *status, const char *count)
{
	return bytes_of_pages(number(status, count), number(status, "frame_bytes"));
}

static void print_count(const char *label, int64_t count, const char *meaning)
{
	struct human_buffer a;

	printf("  %-10s %15s  %s\n", label, human_count(count, &a), meaning);
}

static void print_size(const char *label, int64_t bytes, const char *meaning)
{
	struct human_buffer a;

	printf("  %-10s %15s  %s\n", label, human_size(bytes, &a), meaning);
}

static void print_saved(const json_t *status)
{
	printf("\nSaved\n");
	print_size("sharing", bytes_of(status, "pages_sharing"),
		   "pages that need no frame of their own");
	print_size("zeroes", bytes_of(status, "zero_pages"), "all-zero pages, kept nowhere");
	print_size("profit", number(status, "general_profit"),
		   "both, less the memory that finding them takes");
	if (number(status, "equal.files") > 0)
		print_size("equal", number(status, "equal.saved_bytes"),
			   "equal files that the kernel caches once, at most");
	if (number(status, "copies") > 0)
		print_size("copies", number(status, "copies_bytes"),
			   "copies of equal files on disk, for coherence=overlay");
}

static void print_pool(const json_t *status)
{
	int64_t used = number(status, "frames_used"), total = number(status, "frames_total");
	char meaning[64];

	printf("\nPool\n");
	snprintf(meaning, sizeof(meaning), "%.1f %% of %" PRId64 " MiB",
		 total > 0 ? 100.0 * (double)used / (double)total : 0.0,
		 bytes_of(status, "frames_total") >> 20);
	print_size("in use", bytes_of(status, "frames_used"), meaning);
	print_count("shared", number(status, "pages_shared"), "frames with two users or more");
	print_count("unshared", number(status, "pages_unshared"), "frames with one user");
	print_count("evicted", number(status, "evictions"), "frames given up for others");
	print_count("bypassed", number(status, "bypassed"), "pages that found no free frame");
}

static void print_reads(const json_t *status)
{
	int64_t hits = number(status, "hits"), misses = number(status, "misses");
	double all = (double)hits + (double)misses;
	char meaning[64] = "pages read from the pool";

	if (all > 0)
		snprintf(meaning, sizeof(meaning), "pages read from the pool: %.1f %%",
			 100.0 * (double)hits / all);
	printf("\nTraffic\n");
	print_count("hits", hits, meaning);
	print_count("misses", misses, "pages read from the source, with a reader waiting");
	print_count("readahead", number(status, "readahead"), "pages read from the source ahead");
	print_count("merged", number(status, "merges"), "pages found equal to one in the pool");
	print_count("broken", number(status, "breaks"), "pages in the pool that changed");
	print_count("threads", number(status, "serving.threads"),
		    "threads that read or handle requests");
	print_count("parked", number(status, "serving.parked"),
		    "requests that wait: their user's share of threads is used up");
}

static void print_memory(const json_t *status)
{
	char meaning[64];
	struct human_buffer a;
	int64_t budget = number(status, "window.budget_bytes");

	printf("\nMemory\n");
	print_size("pool", number(status, "memory.pool_bytes"),
		   "frames and what is kept about them");
	print_size("maps", number(status, "memory.maps_bytes"), "which frame holds which page");
	print_size("index", number(status, "memory.index_bytes"), "which frame has which digest");
	print_size("inodes", number(status, "memory.inodes_bytes"),
		   "what the kernel knows by number");
	print_size("notes", number(status, "memory.notes_bytes"), "what the window holds");
	print_size("handles", number(status, "memory.handles_bytes"), "open files, directories");
	print_size("locks", number(status, "memory.locks_bytes"), "who has one, who waits for one");
	print_size("transport", number(status, "memory.transport_bytes"), "buffers of requests");
	if (number(status, "memory.scan_bytes") > 0)
		print_size("scan", number(status, "memory.scan_bytes"), "tables of the scan");
	print_size("total", number(status, "memory.total_bytes"), "of the daemon");
	if (budget > 0)
		snprintf(meaning, sizeof(meaning), "of %s, in the kernel's cache, not in the total",
			 human_size(budget, &a));
	else
		snprintf(meaning, sizeof(meaning), "direct I/O: the kernel caches nothing");
	print_size("window", number(status, "window.bytes"), meaning);
}

/* Print one line: whether the daemon runs with as few privileges as it can. */
static void print_privileges(const json_t *status)
{
	printf("\n  system calls %s",
	       strcmp(text(status, "privileges.seccomp"), "on") == 0 ? "filtered" : "not filtered");
	if (number(status, "privileges.refused_calls") > 0)
		printf(" (%" PRId64 " refused)", number(status, "privileges.refused_calls"));
	printf(", capabilities: ");
	human_print_foreign(stdout, *text(status, "privileges.capabilities")
					    ? text(status, "privileges.capabilities")
					    : "none");
}

/* Print one line: how far clients' locks reach. */
static void print_locks(const json_t *status)
{
	bool in_source = strcmp(text(status, "locks.where"), "source") == 0;

	/* The daemon may be older. */
	if (*text(status, "locks.where") == '?')
		return;
	printf("\n  locks hold %s", in_source ? "in the source too" : "among its clients alone");
	if (number(status, "locks.held") > 0)
		printf(": %" PRId64 " held", number(status, "locks.held"));
	if (number(status, "locks.waiting") > 0)
		printf(", %" PRId64 " awaited", number(status, "locks.waiting"));
}

static void print_status(const json_t *status)
{
	struct human_buffer up;

	/* The mount point is empty if only another mount namespace has the mount. */
	human_print_foreign(stdout, *text(status, "mountpoint") ? text(status, "mountpoint")
								: "(elsewhere)");
	printf("\n  serves ");
	human_print_foreign(stdout, text(status, "source"));
	printf("\n  foldfs ");
	human_print_foreign(stdout, text(status, "version"));
	printf(", up for %s, over ", human_duration(number(status, "uptime_s"), &up));
	human_print_foreign(stdout, text(status, "transport"));
	if (*text(status, "state")) {
		printf("\n  keeps its catalogue in ");
		human_print_foreign(stdout, text(status, "state"));
	}
	if (*text(status, "passthrough") && *text(status, "passthrough") != '?') {
		printf("\n  no kernel passthrough, because ");
		human_print_foreign(stdout, text(status, "passthrough"));
	}
	print_privileges(status);
	print_locks(status);
	putchar('\n');
	print_saved(status);
	print_pool(status);
	print_reads(status);
	print_memory(status);
}

static int show_status(const char *path, bool as_json)
{
	struct mount_entry entry;
	json_t *status = NULL;
	int result = find_mount(path, &entry);

	if (result)
		return result;
	result = ask(&entry, "{\"request\":\"status\"}\n", ANSWER_MS, &status);
	mount_entry_clear(&entry);
	if (result)
		return result;
	if (as_json) {
		json_dumpf(status, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print_status(status);
	}
	json_decref(status);
	return finish_output();
}

int command_status(char *argv[])
{
	const char *word;
	bool as_json;

	if (!take_arguments(argv, "--json", &word, &as_json))
		return EXIT_FAILURE;
	return word ? show_status(word, as_json) : fail("status needs a MOUNTPOINT.");
}
