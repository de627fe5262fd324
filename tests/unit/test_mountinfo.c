/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_mountinfo.c - mounts are found by what the kernel lists, by any name that leads to them
 *
 * The tests that mount something do so in a mount namespace of their own; where that is not allowed
 * they are skipped, and say so.
 */
#include "foldfs/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "scratch.h"

static char base[64]; /* where a test may mount; removed at the end */
static bool may_mount;

static int set_up(void **state)
{
	(void)state;
	may_mount =
		unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	assert_true(scratch_name(base, "mounts", SCRATCH_ANY));
	assert_non_null(mkdtemp(base));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	assert_int_equal(chdir("/"), 0);
	return rmdir(base);
}

/* Begin a test: an empty file system on base, and the working directory there. */
static void begin(void)
{
	if (!may_mount) {
		print_message("mounting is not allowed here\n");
		skip();
	}
	assert_int_equal(mount("base", base, "tmpfs", 0, NULL), 0);
	assert_int_equal(chdir(base), 0);
}

static void end(void)
{
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(umount2(base, MNT_DETACH), 0);
}

static void make_mount(const char *source, const char *path)
{
	assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
	assert_int_equal(mount(source, path, "tmpfs", 0, NULL), 0);
}

static void expect_mount(const char *path, const char *source)
{
	struct mount_entry entry;

	assert_int_equal(mount_entry_find(path, &entry), 0);
	assert_string_equal(entry.source, source);
	assert_string_equal(entry.type, "tmpfs");
	assert_int_equal(entry.owner, 0);
	mount_entry_clear(&entry);
	assert_null(entry.source);
}

static void expect_none(const char *path, errint_t error)
{
	struct mount_entry entry;

	assert_int_equal(mount_entry_find(path, &entry), error);
}

static void the_root_is_a_mount(void **state)
{
	struct mount_entry entry;
	struct stat st;

	(void)state;
	assert_int_equal(mount_entry_find("/", &entry), 0);
	assert_string_equal(entry.mountpoint, "/");
	mount_entry_clear(&entry);
	assert_int_equal(mount_entry_find("/proc", &entry), 0);
	assert_string_equal(entry.type, "proc");
	assert_int_equal(stat("/proc", &st), 0);
	assert_int_equal(entry.device_major, major(st.st_dev));
	assert_int_equal(entry.device_minor, minor(st.st_dev));
	mount_entry_clear(&entry);
}

static void what_is_no_mount_is_not_found(void **state)
{
	(void)state;
	expect_none("/proc/self", -ENOENT);
	expect_none("/proc/nonexistent", -ENOENT);
	expect_none("/nonexistent/deeper", -ENOENT);
	expect_none("/proc/version/deeper", -ENOENT);
	expect_none("", -ENOENT);
}

static void every_name_leads_there(void **state)
{
	char path[PATH_MAX];

	(void)state;
	begin();
	make_mount("one", "dir");
	assert_int_equal(mkdir("dir/inner", 0755), 0);
	assert_int_equal(symlink("dir", "link"), 0);
	assert_int_equal(symlink("link", "link2"), 0);
	assert_int_equal(symlink("loop", "loop"), 0);
	snprintf(path, sizeof(path), "%s/dir", base);
	assert_int_equal(symlink(path, "absolute"), 0);
	expect_mount(path, "one");
	expect_mount("dir", "one");
	expect_mount("./dir", "one");
	expect_mount("dir/", "one");
	expect_mount("dir///", "one");
	expect_mount("dir/.", "one");
	expect_mount("dir/inner/..", "one");
	expect_mount("dir/inner/../../dir", "one");
	expect_mount("link", "one");
	expect_mount("link/", "one");
	expect_mount("link2", "one");
	expect_mount("absolute", "one");
	expect_mount(".", "base");
	expect_none("loop", -ELOOP);
	expect_none("dir/inner", -ENOENT);
	assert_int_equal(chdir("dir"), 0);
	expect_mount(".", "one");
	expect_mount("..", "base");
	assert_int_equal(chdir(base), 0);
	assert_int_equal(umount("dir"), 0);
	end();
}

static void hard_names_are_unescaped(void **state)
{
	static const char *const names[] = {"a b",   "tab\there", "line\nbreak", "back\\slash",
					    "a - b", "\\040",     "\xff\xfe"};

	(void)state;
	begin();
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		make_mount("a source - with 'all' of\tit", names[i]);
		expect_mount(names[i], "a source - with 'all' of\tit");
		assert_int_equal(umount(names[i]), 0);
		expect_none(names[i], -ENOENT);
	}
	end();
}

static void the_topmost_of_a_stack_counts(void **state)
{
	(void)state;
	begin();
	make_mount("lower", "dir");
	make_mount("middle", "dir");
	make_mount("upper", "dir");
	expect_mount("dir", "upper");
	assert_int_equal(umount("dir"), 0);
	expect_mount("dir", "middle");
	assert_int_equal(umount("dir"), 0);
	assert_int_equal(umount("dir"), 0);
	end();
}

/* Something that a mount over a directory above hides is not what the path leads to. */
static void a_hidden_mount_does_not_count(void **state)
{
	(void)state;
	begin();
	assert_int_equal(mkdir("above", 0755), 0);
	make_mount("hidden", "above/dir");
	expect_mount("above/dir", "hidden");
	make_mount("cover", "above");
	expect_none("above/dir", -ENOENT);
	assert_int_equal(mkdir("above/dir", 0755), 0);
	expect_none("above/dir", -ENOENT);
	make_mount("visible", "above/dir");
	expect_mount("above/dir", "visible");
	assert_int_equal(umount("above/dir"), 0);
	assert_int_equal(umount("above"), 0);
	expect_mount("above/dir", "hidden");
	end();
}

static int try_open(const struct mount_entry *entry)
{
	int fd = mount_entry_open(entry);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

/* A FUSE mount that nobody serves: whoever asked it anything would wait for ever, or fail. */
static void a_dead_mount_is_found(void **state)
{
	struct mount_entry entry;
	char options[128];
	struct stat st;
	int device;

	(void)state;
	begin();
	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (device < 0) {
		print_message("/dev/fuse is not there\n");
		end();
		skip();
	}
	assert_int_equal(mkdir("dir", 0755), 0);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=4711,group_id=42", device);
	assert_int_equal(mount("/the/source", "dir", "fuse.foldfs", 0, options), 0);
	for (int dead = 0; dead < 2; dead++) {
		alarm(20); /* a look-up that waits for the mount is killed, and fails the test */
		assert_int_equal(mount_entry_find("dir", &entry), 0);
		assert_int_equal(try_open(&entry), 0);
		alarm(0);
		assert_string_equal(entry.type, "fuse.foldfs");
		assert_string_equal(entry.source, "/the/source");
		assert_int_equal(entry.owner, 4711);
		assert_int_equal(entry.group, 42);
		mount_entry_clear(&entry);
		if (!dead)
			close(device);
	}
	assert_int_equal(stat("dir", &st), -1);
	assert_int_equal(umount2("dir", MNT_DETACH), 0);
	end();
}

static void a_descriptor_names_its_mount(void **state)
{
	struct mount_entry entry;
	int fd;

	(void)state;
	begin();
	make_mount("one", "dir");
	assert_int_equal(mkdir("dir/inner", 0755), 0);
	fd = open("dir/inner", O_PATH | O_CLOEXEC);
	make_mount("over", "dir");
	assert_int_equal(mount_entry_of_fd(fd, &entry), 0);
	assert_string_equal(entry.source, "one"); /* covered, but the descriptor is still on it */
	mount_entry_clear(&entry);
	close(fd);
	assert_int_equal(mount_entry_of_fd(-1, &entry), -EBADF);
	assert_int_equal(umount("dir"), 0);
	assert_int_equal(umount("dir"), 0);
	end();
}

/* Wherever it is moved, and not something else that has come to its place. */
static void a_mount_is_found_again(void **state)
{
	struct mount_entry entry, again;

	(void)state;
	begin();
	make_mount("one", "dir");
	assert_int_equal(mount_entry_find("dir", &entry), 0);
	assert_int_equal(mkdir("moved", 0755), 0);
	assert_int_equal(mkdir("bound", 0755), 0);
	assert_int_equal(mount("dir", "moved", NULL, MS_MOVE, NULL), 0);
	make_mount("other", "dir");
	assert_int_equal(try_open(&entry), -ENOENT);
	assert_int_equal(mount_entry_find_again(&entry, false, &again), 0);
	assert_string_equal(strrchr(again.mountpoint, '/'), "/moved");
	assert_int_equal(again.id, entry.id);
	assert_int_equal(try_open(&again), 0);
	make_mount("over", "moved");
	assert_int_equal(try_open(&again), -ENOENT);
	assert_int_equal(umount("moved"), 0);
	assert_int_equal(mount("moved", "bound", NULL, MS_BIND, NULL), 0);
	assert_int_equal(umount("moved"), 0);
	mount_entry_clear(&again);
	assert_int_equal(mount_entry_find_again(&entry, false, &again), -ENOENT);
	assert_int_equal(mount_entry_find_again(&entry, true, &again), 0);
	assert_string_equal(strrchr(again.mountpoint, '/'), "/bound");
	mount_entry_clear(&again);
	assert_int_equal(umount("bound"), 0);
	assert_int_equal(umount("dir"), 0);
	assert_int_equal(mount_entry_find_again(&entry, true, &again), -ENOENT);
	mount_entry_clear(&entry);
	end();
}

static void sockets_are_named_by_device(void **state)
{
	struct mount_entry entry = {.device_major = 0, .device_minor = 57, .owner = 0};
	char name[MOUNT_SOCKET_NAME];

	(void)state;
	mount_socket_name(&entry, name);
	assert_string_equal(name, "0:57.sock");
	entry.device_major = entry.device_minor = UINT32_MAX;
	mount_socket_name(&entry, name);
	assert_string_equal(name, "4294967295:4294967295.sock");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_root_is_a_mount),
		cmocka_unit_test(what_is_no_mount_is_not_found),
		cmocka_unit_test(every_name_leads_there),
		cmocka_unit_test(hard_names_are_unescaped),
		cmocka_unit_test(the_topmost_of_a_stack_counts),
		cmocka_unit_test(a_hidden_mount_does_not_count),
		cmocka_unit_test(a_dead_mount_is_found),
		cmocka_unit_test(a_descriptor_names_its_mount),
		cmocka_unit_test(a_mount_is_found_again),
		cmocka_unit_test(sockets_are_named_by_device),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
