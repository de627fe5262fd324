/* SPDX-License-Identifier: Apache-2.0 */
/* foldctl_explain.c - foldctl explain: how a file is served, and why */
#include "foldctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The mount that FD, an open descriptor of PATH, is on. */
static int mount_of(int fd, const char *path, struct mount_entry *ret_entry)
{
	errint_t error = mount_entry_of_fd(fd, ret_entry);

	if (error)
		return fail("cannot find the mount of %s: %s.", path, strerror(-error));
	if (strncmp(ret_entry->type, "fuse", 4) == 0)
		return EXIT_SUCCESS;
	fail("%s is not on a foldfs mount: it is on %s.", path, ret_entry->type);
	mount_entry_clear(ret_entry);
	return EXIT_FAILURE;
}

static int64_t bytes_of(int64_t count)
{
	return bytes_of_pages(count, FOLD_PAGE_SIZE);
}

/* Print what is known of the file's pages, one line for each kind. */
static void print_pages(const json_t *answer)
{
	struct human_buffer a, b;
	int64_t known = number(answer, "known_pages");
	int64_t pooled = number(answer, "pool_pages");
	int64_t shared = number(answer, "shared_pages");
	int64_t zero = number(answer, "zero_pages");

	if (pooled > 0)
		printf("%s of it are in the pool. %s of that are shared with other pages.\n",
		       human_size(bytes_of(pooled), &a), human_size(bytes_of(shared), &b));
	if (zero > 0)
		printf("%s of it are known to be zero, and are kept nowhere.\n",
		       human_size(bytes_of(zero), &a));
	if (known)
		printf("A scan has found %s of its pages in another file, at the same places.\n",
		       human_count(known, &a));
}

static void print_answer(const json_t *answer, const char *path)
{
	human_print_foreign(stdout, path);
	printf(": ");
	human_print_foreign(stdout, text(answer, "plan"));
	printf(json_is_true(json_object_get(answer, "open")) ? ", because "
							     : ", once it is opened, because ");
	human_print_foreign(stdout, text(answer, "reason"));
	printf(".\n");
	print_pages(answer);
}

static int explain(int fd, const char *path, bool as_json)
{
	struct mount_entry entry;
	char request[80];
	json_t *answer = NULL;
	struct stat st;
	int result;

	if (fstat(fd, &st))
		return fail("cannot look at %s: %s.", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return fail("%s is not a regular file.", path);
	if (mount_of(fd, path, &entry))
		return EXIT_FAILURE;
	/* jansson's integers are signed; the daemon turns the number back into an unsigned one. */
	snprintf(request, sizeof(request), "{\"request\":\"explain\",\"inode\":%" PRId64 "}\n",
		 (int64_t)st.st_ino);
	result = ask(&entry, request, ANSWER_MS, &answer);
	if (!result && as_json) {
		json_dumpf(answer, stdout, JSON_INDENT(2));
		putchar('\n');
	} else if (!result) {
		print_answer(answer, path);
	}
	json_decref(answer);
	mount_entry_clear(&entry);
	return result ? result : finish_output();
}

/* Hold PATH open, so that the daemon still knows its inode when it is asked. It is not opened for
 * reading, which would give it a plan. */
static int hold(const char *path, int *ret_fd)
{
	*ret_fd = open(path, O_PATH | O_CLOEXEC);
	return *ret_fd < 0 ? fail("cannot open %s: %s.", path, strerror(errno)) : EXIT_SUCCESS;
}

static bool is_on_fuse(int fd)
{
	struct mount_entry entry;
	bool is = false;

	if (!mount_entry_of_fd(fd, &entry)) {
		is = strncmp(entry.type, "fuse", 4) == 0;
		mount_entry_clear(&entry);
	}
	return is;
}

int command_explain(char *argv[])
{
	const char *path;
	char *shown = NULL;
	bool as_json;
	int result;
	int fd;

	if (!take_arguments(argv, "--json", &path, &as_json))
		return EXIT_FAILURE;
	if (!path)
		return fail("explain needs a FILE.");
	if (hold(path, &fd))
		return EXIT_FAILURE;
	result = is_on_fuse(fd) ? EXIT_SUCCESS : find_shown(path, &shown);
	/* A file of a source means the same file of the mount. */
	if (!result && shown) {
		close(fd);
		result = hold(shown, &fd);
	}
	if (!result)
		result = explain(fd, shown ? shown : path, as_json);
	if (fd >= 0)
		close(fd);
	free(shown);
	return result;
}
