/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kit.h - what the probe's topics are written with
 *
 * The working directory of a topic is an empty directory of its own, owned by root, mode 0777. All
 * paths are relative to it. Between two cases, a topic is always root, with umask 0.
 *
 * The steps of a case: make what is needed; watch() what may change; become a user by as(); make
 * the one call under test, with its result kept by TRY(); as_root(); say(). On file systems that
 * behave the same, each run prints the same: no inode number, no time, no generated name.
 */
#ifndef FOLDFS_POSIX_KIT_H
#define FOLDFS_POSIX_KIT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* The value of a call that gives -1 and errno on failure: as it is, or -errno. */
#define TRY(call) try_result((long)(call))
static inline long try_result(long result)
{
	return result < 0 ? -errno : result;
}
/* The same for a call that gives a descriptor: it is closed, 0 is success. */
#define TRY_FD(call) close_result(TRY(call))
/* A call that prepares a case: that it fails is a failure of the probe. */
#define MUST(call)                                                                                 \
	({                                                                                         \
		long must_result = (long)(call);                                                   \
		if (must_result < 0)                                                               \
			die("%s:%d: %s", __FILE__, __LINE__, #call);                               \
		must_result;                                                                       \
	})

/* makedev(3) as a constant expression. */
#define NUMBER(major, minor)                                                                       \
	((dev_t)(((dev_t)(major)&0xfffu) << 8 | ((dev_t)(minor)&0xffu) |                           \
		 ((dev_t)(minor)&0xfff00u) << 12))

struct user {
	const char *name;
	uid_t uid;
	gid_t gid;
	gid_t group; /* the one supplementary group, 0: none */
};

#define OWNER       7001
#define OWNER_GROUP 7001

/* root; the owner; one whose supplementary, and one whose primary group is the owner's; a
 * stranger. */
enum { USER_ROOT, USER_OWNER, USER_MEMBER, USER_PRIMARY, USER_OTHER, USERS };
extern const struct user users[USERS];

/* Kinds of objects that make() makes. */
enum kind { FILE_, EMPTY, DIRECTORY, FULL, SYMLINK, DANGLING, TO_DIRECTORY, FIFO, SOCKET, DEVICE };

/* The topic that runs: the start of each line. */
extern const char *current_topic;

/* How much of what a topic has: a sample, all of it, and what takes minutes too. */
enum level { BRIEF, WHOLE, LONG };
extern enum level level;
/* Whether the next case of a long table is to be done: always, or one in five for a sample; five is
 * prime to the tables' columns, so that each gets its share. */
bool take(void);

void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

void as(int user);
void as_root(void);

long close_result(long fd);

/* The object NAME: a file of 5 bytes, an empty one, a directory, one with a file `in` in it, a
 * symlink to `target`, to nothing, to the directory `there`, a FIFO, a socket, a device. */
void make(enum kind kind, const char *name);
/* The same with owner OWNER:OWNER_GROUP and a mode. */
void make_owned(enum kind kind, const char *name, mode_t mode);
const char *kind_name(enum kind kind);
/* Remove NAME and everything in it; nothing if it is not there. */
void discard(const char *name);
/* A file NAME with this content. */
void make_file(const char *name, const void *content, size_t length);

/* From now on to the next say(): which times of the object (by name, not followed; or by
 * descriptor) change. Sets atime and mtime to times long past. At most 4. */
void watch(const char *name);
void watch_fd(const char *label, int fd);

/* Finish a case: prints "topic.LABEL: RESULT", the attributes of NAME if it is not NULL, and what
 * changed of what was watched. RESULT below zero is -errno. */
void say(long result, const char *name, const char *label, ...)
	__attribute__((format(printf, 3, 4)));
/* The same with the attributes of a descriptor. */
void say_fd(long result, int fd, const char *label, ...) __attribute__((format(printf, 3, 4)));
/* The same with any text as the result. */
void say_text(const char *text, const char *label, ...) __attribute__((format(printf, 2, 3)));
/* Wait until the clock of the file system gives another time than before. */
void tick(void);

/* "ok" or an errno's name; numbers above zero as they are. */
const char *result_name(long result);
/* As "f 0644 root:root links 1 size 5"; "absent" if there is none. In a buffer of the kit's. */
const char *describe(const char *name);

/* The topics. */
struct topic {
	const char *name;
	void (*run)(void);
};
extern const struct topic topic_access, topic_chmod, topic_chown, topic_create, topic_directory,
	topic_link, topic_lock, topic_map, topic_open, topic_path, topic_rename, topic_set_id,
	topic_size, topic_special, topic_statx, topic_sticky, topic_time, topic_unlink, topic_xattr,
	topic_acl, topic_io;

#endif
