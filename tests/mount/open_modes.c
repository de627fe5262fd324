/* SPDX-License-Identifier: Apache-2.0 */
/*
 * open_modes.c - a file system whose files are opened as the test says, to see what the kernel
 *takes
 *
 *	open_modes DIRECTORY CONTROL DEPTH HOW MOUNTPOINT
 *
 * Serves the files a, b, c and d of DIRECTORY. At each open CONTROL is read, words without order:
 *
 *	direct, keep    FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE
 *	a, b, c, d      FOPEN_PASSTHROUGH with the backing id of that file: one for each, as long as
 *	                the server lives
 *
 * DEPTH is max_backing_stack_depth. HOW: "plain"; "writeback": with the kernel's write-back cache;
 * "powerless": without CAP_SYS_ADMIN once it is mounted; "view": backing files are opened through a
 * view of DIRECTORY that is read-only. What fails is answered as it failed.
 */
#include "foldfs/passthrough.h"
#include "foldfs/thread_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What passthrough.c asks of thread_identity.h: here every thread is root, and stays it. */
__thread bool identity_is_own = true;

void identity_make_own_slowly(void)
{
}

errint_t identity_give_up_rights(void)
{
	return 0;
}

#define FILES 4

static int directory_fd;
static const char *control;
static const char *how;
static unsigned depth;
static struct passthrough *backing;
static int ids[FILES]; /* 0: not registered yet */

static int open_file(size_t file)
{
	const char name[] = {(char)('a' + file), '\0'};

	return openat(directory_fd, name, O_RDWR | O_CLOEXEC);
}

static int attributes_of(fuse_ino_t ino, struct stat *ret_st)
{
	int fd = ino == FUSE_ROOT_ID ? dup(directory_fd) : open_file(ino - 2);
	int error = fd < 0 || fstat(fd, ret_st) ? errno : 0;

	if (fd >= 0)
		close(fd);
	ret_st->st_ino = ino;
	return error;
}

static void op_init(void *context, struct fuse_conn_info *conn)
{
	(void)context;
	conn->max_backing_stack_depth = depth;
	fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH);
	fuse_set_feature_flag(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
	if (strcmp(how, "writeback") == 0)
		fuse_set_feature_flag(conn, FUSE_CAP_WRITEBACK_CACHE);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = {0};
	int error = ENOENT;

	(void)parent;
	if (name[0] >= 'a' && name[0] < 'a' + FILES && !name[1]) {
		entry.ino = (fuse_ino_t)(name[0] - 'a' + 2);
		error = attributes_of(entry.ino, &entry.attr);
	}
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_entry(req, &entry);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int error = attributes_of(ino, &st);

	(void)fi;
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_attr(req, &st, 0);
}

/* The backing id of FILE, or -errno. */
static int id_of(size_t file)
{
	const char name[] = {(char)('a' + file), '\0'};

	if (ids[file] <= 0) {
		int fd = strcmp(how, "view") == 0 ? passthrough_open_read_only(backing, name)
						  : open_file(file);

		ids[file] = passthrough_register(backing, fd);
		close(fd);
	}
	return ids[file];
}

static int obey(struct fuse_file_info *fi)
{
	char words[64] = "";
	int fd = open(control, O_RDONLY | O_CLOEXEC);
	ssize_t length = read(fd, words, sizeof(words) - 1);

	close(fd);
	for (char *word = length > 0 ? strtok(words, " ") : NULL; word; word = strtok(NULL, " ")) {
		if (strcmp(word, "direct") == 0)
			fi->direct_io = 1;
		else if (strcmp(word, "keep") == 0)
			fi->keep_cache = 1;
		else
			fi->backing_id = id_of((size_t)(word[0] - 'a'));
	}
	return fi->backing_id < 0 ? -fi->backing_id : 0;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int error = obey(fi);
	int fd = error ? -1 : open_file(ino - 2);

	fi->fh = (uint64_t)fd;
	if (error)
		fuse_reply_err(req, error);
	else if (fd < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_open(req, fi);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	close((int)fi->fh);
	fuse_reply_err(req, 0);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t at,
		    struct fuse_file_info *fi)
{
	char *buffer = malloc(size);
	ssize_t length = pread((int)fi->fh, buffer, size, at);

	(void)ino;
	/* To be told from what the kernel reads by itself. */
	if (length > 0)
		buffer[0] = 'S';
	if (length < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buffer, (size_t)length);
	free(buffer);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buffer, size_t size, off_t at,
		     struct fuse_file_info *fi)
{
	ssize_t length = pwrite((int)fi->fh, buffer, size, at);

	(void)ino;
	if (length < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)length);
}

static const struct fuse_lowlevel_ops operations = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.open = op_open,
	.release = op_release,
	.read = op_read,
	.write = op_write,
};

static int drop_power(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, data))
		return -1;
	data[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
	return (int)syscall(SYS_capset, &header, data);
}

int main(int argc, char *argv[])
{
	char *words[] = {argv[0], "-oallow_other,default_permissions,fsname=open_modes", NULL};
	struct fuse_args arguments = FUSE_ARGS_INIT(2, words);
	struct fuse_session *session;

	if (argc != 6) {
		fprintf(stderr, "usage: %s DIRECTORY CONTROL DEPTH HOW MOUNTPOINT\n", argv[0]);
		return 2;
	}
	directory_fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	control = argv[2];
	depth = (unsigned)atoi(argv[3]);
	how = argv[4];
	session = fuse_session_new(&arguments, &operations, sizeof(operations), NULL);
	if (directory_fd < 0 || !session ||
	    passthrough_new(passthrough_open_view(directory_fd), &backing) ||
	    fuse_session_mount(session, argv[5]))
		return 1;
	passthrough_session(backing, fuse_session_fd(session), NULL);
	if (strcmp(how, "powerless") == 0 && drop_power())
		return 1;
	fuse_session_loop(session);
	fuse_session_destroy(session);
	passthrough_free(backing);
	return 0;
}
