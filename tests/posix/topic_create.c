/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_create.c - attributes of new objects: mode, umask, owner, set-gid directories, default ACLs
 */
#include "calls.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Each makes d/x. */
static long by_open(mode_t mode)
{
	return TRY_FD(open("d/x", O_CREAT | O_RDWR, mode));
}

static long by_open_exclusively(mode_t mode)
{
	return TRY_FD(open("d/x", O_CREAT | O_EXCL | O_WRONLY, mode));
}

static long by_mkdir(mode_t mode)
{
	return TRY(mkdir("d/x", mode));
}

static long by_mkfifo(mode_t mode)
{
	return TRY(mkfifo("d/x", mode));
}

static long by_mknod(mode_t mode)
{
	return TRY(mknod("d/x", S_IFREG | mode, 0));
}

static long by_mknod_socket(mode_t mode)
{
	return TRY(mknod("d/x", S_IFSOCK | mode, 0));
}

static long by_mknod_device(mode_t mode)
{
	return TRY(mknod("d/x", S_IFBLK | mode, NUMBER(7, 259)));
}

static long by_symlink(mode_t mode)
{
	(void)mode;
	return TRY(symlink("wherever", "d/x"));
}

static long by_bind(mode_t mode)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "d/x"};
	int fd = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
	long result;

	(void)mode;
	result = TRY(bind(fd, (struct sockaddr *)&address, sizeof(address)));
	close(fd);
	return result;
}

/* A name is given, so that it can be looked at as the others are. */
static long by_tmpfile(mode_t mode)
{
	int fd = open("d", O_TMPFILE | O_RDWR, mode);
	long result;

	if (fd < 0)
		return -errno;
	result = give_name(fd, "d/x");
	close(fd);
	return result;
}

static const struct {
	const char *name;
	long (*make)(mode_t mode);
} makers[] = {
	{"open", by_open},
	{"open-exclusively", by_open_exclusively},
	{"mkdir", by_mkdir},
	{"mkfifo", by_mkfifo},
	{"mknod", by_mknod},
	{"mknod-socket", by_mknod_socket},
	{"mknod-device", by_mknod_device},
	{"symlink", by_symlink},
	{"bind", by_bind},
	{"tmpfile", by_tmpfile},
};

/* Directories to make in: plain, set-gid with a group that some users are in, and that
 * nobody is. */
static const struct {
	const char *name;
	gid_t gid;
	mode_t mode;
} parents[] = {
	{"plain", 0, 0777},
	{"set-gid", OWNER_GROUP, 02777},
	{"set-gid-foreign", 7009, 02777},
	{"sticky-set-id", 0, 07777},
};

static void create_case(unsigned maker, unsigned parent, int user, mode_t mask, mode_t mode,
			bool times)
{
	long result;

	if (!take())
		return;
	MUST(mkdir("d", 0700));
	MUST(chown("d", 0, parents[parent].gid));
	MUST(chmod("d", parents[parent].mode));
	if (times)
		watch("d");
	umask(mask);
	as(user);
	result = makers[maker].make(mode);
	as_root();
	umask(0);
	say(result, "d/x", "%s.%s.%s.umask-%03o.%05o", makers[maker].name, parents[parent].name,
	    users[user].name, mask, mode);
	discard("d");
}

static void create_by_user(void)
{
	static const mode_t masks[] = {0, 022, 0777};
	static const mode_t modes[] = {0666, 02775, 06711, 01777};

	for (unsigned maker = 0; maker < ARRAY_SIZE(makers); maker++)
		for (unsigned parent = 0; parent < ARRAY_SIZE(parents); parent++)
			for (int user = 0; user < USERS; user++)
				for (unsigned mask = 0; mask < ARRAY_SIZE(masks); mask++)
					for (unsigned mode = 0; mode < ARRAY_SIZE(modes); mode++)
						if ((mask == 0 && parent < 3) || mode == 1)
							create_case(maker, parent, user,
								    masks[mask], modes[mode],
								    user == USER_MEMBER);
}

static void create_over(void)
{
	for (unsigned maker = 0; maker < ARRAY_SIZE(makers); maker++)
		for (unsigned kind = 0; kind <= DEVICE; kind++)
			for (int user = 0; user < USERS; user += USER_OTHER) {
				long result;

				if (!take())
					continue;
				/* open(2) of a FIFO for reading and writing does not wait. */
				MUST(mkdir("d", 0777));
				make_owned(kind, "d/x", 0644);
				watch("d");
				as(user);
				result = makers[maker].make(0755);
				as_root();
				say(result, "d/x", "over.%s.%s.%s", makers[maker].name,
				    kind_name(kind), users[user].name);
				discard("d");
				discard("nothing");
			}
}

/* ---- default ACLs ---- */

static void set_default_acl(unsigned which)
{
	const struct acl_entry minimal[] = {{ACL_USER_OBJ, 7, ACL_UNDEFINED},
					    {ACL_GROUP_OBJ, 5, ACL_UNDEFINED},
					    {ACL_OTHER, 0, ACL_UNDEFINED}};
	const struct acl_entry named[] = {{ACL_USER_OBJ, 7, ACL_UNDEFINED},
					  {ACL_USER, 7, 7002},
					  {ACL_GROUP_OBJ, 5, ACL_UNDEFINED},
					  {ACL_GROUP, 6, 7005},
					  {ACL_MASK, which == 1 ? 7 : 2, ACL_UNDEFINED},
					  {ACL_OTHER, 4, ACL_UNDEFINED}};
	size_t length = which ? acl_binary(named, ARRAY_SIZE(named))
			      : acl_binary(minimal, ARRAY_SIZE(minimal));

	MUST(setxattr("d", ACL_DEFAULT, acl_bytes, length, 0));
}

static void create_with_acl(void)
{
	static const mode_t modes[] = {0777, 0640, 0600, 02711};

	for (unsigned maker = 0; maker < ARRAY_SIZE(makers); maker++)
		for (unsigned which = 0; which < 3; which++)
			for (int user = 0; user < USERS; user += USER_OTHER)
				for (unsigned mode = 0; mode < ARRAY_SIZE(modes); mode++) {
					char text[512];
					long result;

					if (!take())
						continue;
					MUST(mkdir("d", 0777));
					MUST(chmod("d", mode & 1 ? 02777 : 0777));
					set_default_acl(which);
					MUST(chmod("d", mode & 1 ? 02777 : 0777));
					umask(0077);
					as(user);
					result = makers[maker].make(modes[mode]);
					as_root();
					umask(0);
					snprintf(text, sizeof(text), "%s, %s", result_name(result),
						 acl_text("d/x", ACL_ACCESS));
					strcat(strcat(text, ", default "),
					       acl_text("d/x", ACL_DEFAULT));
					strcat(strcat(text, ", "), describe("d/x"));
					say_text(text, "acl-%u.%s.%s.%04o", which,
						 makers[maker].name, users[user].name, modes[mode]);
					discard("d");
				}
}

/* ---- odd arguments ---- */

static void mknod_kinds(void)
{
	static const struct {
		const char *name;
		mode_t mode;
		dev_t device;
	} nodes[] = {
		{"none", 0644, 0},
		{"regular", S_IFREG | 0644, 77},
		{"directory", S_IFDIR | 0755, 0},
		{"symlink", S_IFLNK | 0777, 0},
		{"fifo", S_IFIFO | 0600, 5},
		{"char", S_IFCHR | 0600, NUMBER(1, 3)},
		{"char-0", S_IFCHR | 0600, 0},
		{"block-large", S_IFBLK | 0600, NUMBER(4095, 1048575)},
		{"block-0", S_IFBLK | 0600, 0},
		{"bad", 0170000 | 0644, 0},
		{"bad-2", 0030000 | 0644, 0},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(nodes); n++)
		for (int user = 0; user < USERS; user += USER_OTHER) {
			long result;

			as(user);
			result = TRY(mknod("x", nodes[n].mode, nodes[n].device));
			as_root();
			say(result, "x", "node.%s.%s", nodes[n].name, users[user].name);
			discard("x");
		}
}

static void tmpfile_ways(void)
{
	static const int flags[] = {O_RDONLY,         O_WRONLY,         O_RDWR,
				    O_RDWR | O_EXCL,  O_RDWR | O_CREAT, O_RDWR | O_TRUNC,
				    O_RDWR | O_APPEND};

	make(FILE_, "f");
	for (unsigned way = 0; way < ARRAY_SIZE(flags); way++) {
		int fd = open(".", O_TMPFILE | flags[way], 0640);

		if (fd < 0) {
			say(-errno, NULL, "tmpfile.%u", way);
			continue;
		}
		say_fd(0, fd, "tmpfile.%u", way);
		say_fd(TRY(write(fd, "tmp", 3)), fd, "tmpfile.%u.write", way);
		say_fd(TRY(fchmod(fd, 0600)), fd, "tmpfile.%u.chmod", way);
		say_fd(TRY(linkat(fd, "", AT_FDCWD, "named", AT_EMPTY_PATH)), fd, "tmpfile.%u.link",
		       way);
		say_fd(TRY(unlink("named")), fd, "tmpfile.%u.unlink", way);
		say_fd(TRY(linkat(fd, "", AT_FDCWD, "named", AT_EMPTY_PATH)), fd,
		       "tmpfile.%u.link-again", way);
		discard("named");
		close(fd);
	}
	say(TRY_FD(open("f", O_TMPFILE | O_RDWR, 0600)), NULL, "tmpfile.in-file");
	say(TRY_FD(open("none", O_TMPFILE | O_RDWR, 0600)), NULL, "tmpfile.in-nothing");
	discard("f");
}

/* A mode that forbids does not forbid who makes the file. */
static void created_open(void)
{
	static const mode_t modes[] = {0, 0444, 0222, 0100};

	for (unsigned m = 0; m < ARRAY_SIZE(modes); m++)
		for (int user = 0; user < USERS; user += USER_OTHER) {
			int fd;

			as(user);
			fd = (int)MUST(open("x", O_CREAT | O_RDWR, modes[m]));
			say(TRY(write(fd, "123", 3)), NULL, "open.%04o.%s.write", modes[m],
			    users[user].name);
			say(TRY(pread(fd, (char[3]){0}, 3, 0)), NULL, "open.%04o.%s.read", modes[m],
			    users[user].name);
			say(TRY_FD(open("x", O_RDWR)), NULL, "open.%04o.%s.again", modes[m],
			    users[user].name);
			as_root();
			close(fd);
			discard("x");
		}
}

static void directory_links(void)
{
	char name[16];

	MUST(mkdir("d", 0755));
	say(0, "d", "links.none");
	for (unsigned n = 0; n < 5; n++) {
		snprintf(name, sizeof(name), "d/%u", n);
		MUST(mkdir(name, 0755));
		say(0, "d", "links.%u", n);
		say(0, name, "links.%u.itself", n);
	}
	make(FILE_, "d/f");
	say(0, "d", "links.file");
	MUST(rmdir("d/0"));
	say(0, "d", "links.rmdir");
	MUST(rename("d/1", "out"));
	say(0, "d", "links.rename");
	discard("d");
	discard("out");
}

static void run(void)
{
	create_by_user();
	create_over();
	create_with_acl();
	mknod_kinds();
	tmpfile_ways();
	created_open();
	directory_links();
}

const struct topic topic_create = {"create", run};
