/* SPDX-License-Identifier: Apache-2.0 */
/*
 * objects.c - copies of whole contents that nobody writes
 *
 * Made by one thread, which starts with the first wish and works at the lowest priority: into a
 * file without a name, synced, and named only when the file it was copied from still has the stamp
 * under which it is a member of its class. So an object was whole and right when it got its name.
 * With what stamp it did, the catalogue is told then; an object that has another one, or of which
 * nothing was told, is not used. Only the maker removes it, so that no open waits for that.
 */
#include "foldfs/objects.h"

#include "foldfs/backing.h"
#include "foldfs/source.h"
#include "foldfs/trusted_path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include <urcu/list.h>

/* "class-digest", in hexadecimal digits. */
#define NAME_BYTES 52
/* Copied in one call, so that the end does not wait for long. */
#define COPY_BYTES (8u << 20)
/* Wishes that wait; further ones are forgotten, and come again with the next open. */
#define WISHES_MAX 256u
/* Between two looks at whether a stamp is old enough. */
#define STAMP_WAIT_NS 5000000

struct wish {
	struct cds_list_head link; /* under objects->lock */
	struct catalogue_record record;
	struct source_stamp stamp;
	int fd;
};

struct objects {
	struct catalogue *catalogue; /* borrowed */
	struct backing *view;        /* read-only, of the directory; constant */
	int directory_fd;            /* constant */
	bool multigrain;             /* of its file system; constant */
	pthread_mutex_t lock;        /* a leaf */
	pthread_cond_t wanted;
	struct cds_list_head wishes; /* under lock; the first is being made */
	unsigned count;              /* under lock */
	bool started;                /* under lock */
	atomic_bool stopping;        /* set under lock */
	pthread_t maker;             /* once started */
};

static void name_of(const struct catalogue_record *record, char name[NAME_BYTES])
{
	snprintf(name, NAME_BYTES, "%016" PRIx64 "-%016" PRIx64 "%016" PRIx64, record->class,
		 record->content.high, record->content.low);
}

/* ---- start and end ---- */

/* Whether NAME is that of an object which the catalogue would ask for. */
static bool is_wanted(struct catalogue *catalogue, const char *name)
{
	struct catalogue_member member;
	struct catalogue_record record;
	char expected[NAME_BYTES];
	uint64_t class = strtoull(name, NULL, 16);

	if (!class || catalogue_member(catalogue, class, 0, &member) ||
	    catalogue_find(catalogue, &member.stamp, &record))
		return false;
	name_of(&record, expected);
	return strcmp(name, expected) == 0;
}

/* Remove the object called NAME, and what the catalogue was told of it. */
static void remove_object(struct objects *objects, const char *name)
{
	struct catalogue_batch *batch;

	(void)unlinkat(objects->directory_fd, name, 0);
	if (catalogue_begin(objects->catalogue, &batch))
		return;
	if (catalogue_remove_object(batch, strtoull(name, NULL, 16)))
		catalogue_abort(batch);
	else
		(void)catalogue_commit(batch);
}

static void remove_unwanted(struct objects *objects)
{
	int fd = openat(objects->directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!directory) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(directory)))
		if (entry->d_name[0] != '.' && !is_wanted(objects->catalogue, entry->d_name))
			remove_object(objects, entry->d_name);
	closedir(directory);
}

errint_t objects_new(const char *directory, struct catalogue *catalogue,
		     struct objects **ret_objects)
{
	struct objects *objects;
	struct statfs fs;
	errint_t error;

	if (mkdir(directory, 0700) && errno != EEXIST)
		return -errno;
	objects = calloc(1, sizeof(*objects));
	if (!objects)
		return -ENOMEM;
	pthread_mutex_init(&objects->lock, NULL);
	pthread_cond_init(&objects->wanted, NULL);
	CDS_INIT_LIST_HEAD(&objects->wishes);
	objects->catalogue = catalogue;
	objects->directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	error = objects->directory_fd < 0 || fstatfs(objects->directory_fd, &fs) ? -errno : 0;
	if (!error)
		error = trusted_path_check(objects->directory_fd, geteuid());
	if (!error) {
		objects->multigrain = source_is_multigrain(&fs);
		error = backing_new(objects->directory_fd, &objects->view);
	}
	if (error) {
		objects_free(objects);
		return error;
	}
	remove_unwanted(objects);
	*ret_objects = objects;
	return 0;
}

static void wish_free(struct wish *wish)
{
	close(wish->fd);
	free(wish);
}

void objects_free(struct objects *objects)
{
	struct wish *wish;
	struct wish *next;

	if (!objects)
		return;
	pthread_mutex_lock(&objects->lock);
	atomic_store(&objects->stopping, true);
	pthread_mutex_unlock(&objects->lock);
	pthread_cond_signal(&objects->wanted);
	if (objects->started)
		pthread_join(objects->maker, NULL);
	cds_list_for_each_entry_safe (wish, next, &objects->wishes, link)
		wish_free(wish);
	backing_free(objects->view);
	if (objects->directory_fd >= 0)
		close(objects->directory_fd);
	pthread_cond_destroy(&objects->wanted);
	pthread_mutex_destroy(&objects->lock);
	free(objects);
}

/* The stamp of the object open as FD, as the catalogue keeps it. */
static errint_t stamp_of(int fd, struct source_stamp *ret_stamp)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	source_stamp_of(&st, ret_stamp);
	ret_stamp->device = 0;
	return 0;
}

/* Whether the object of CLASS, open as FD, is as it was made. */
static bool is_as_made(struct objects *objects, uint64_t class, int fd)
{
	struct source_stamp made;
	struct source_stamp now;

	return !catalogue_object(objects->catalogue, class, &made) && !stamp_of(fd, &now) &&
	       source_stamp_equal(&made, &now);
}

int objects_open(struct objects *objects, const struct catalogue_record *record)
{
	char name[NAME_BYTES];
	int fd;

	name_of(record, name);
	fd = backing_open_read_only(objects->view, name);
	if (fd < 0 || is_as_made(objects, record->class, fd))
		return fd;
	close(fd);
	return -ENOENT;
}

/* ---- making ---- */

static errint_t copy(struct objects *objects, int from, int to, off_t size)
{
	off_t at = 0;
	ssize_t done;

	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	while (at < size && !atomic_load(&objects->stopping)) {
		off_t into = at;

		done = copy_file_range(from, &at, to, &into, COPY_BYTES, 0);
		if (done < 0 && errno != EINTR)
			return -errno;
		if (done == 0)
			return -ESTALE; /* it has become shorter */
	}
	return at < size ? -ECANCELED : 0;
}

/* Whether the file open as FD still has STAMP. */
static bool has_stamp(int fd, const struct source_stamp *stamp)
{
	struct source_stamp now;
	struct stat st;

	if (fstat(fd, &st))
		return false;
	source_stamp_of(&st, &now);
	return source_stamp_equal(&now, stamp);
}

/* Whether the object of RECORD is there, as it was made: then somebody else has made it. One that
 * is not is removed. */
static bool is_made(struct objects *objects, const struct catalogue_record *record)
{
	struct source_stamp made;
	char name[NAME_BYTES];
	bool right;
	int fd;

	name_of(record, name);
	fd = openat(objects->directory_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return false;
	right = is_as_made(objects, record->class, fd);
	close(fd);
	if (right)
		return true;
	/* Of one that was told of, somebody else has changed something. */
	if (!catalogue_object(objects->catalogue, record->class, &made))
		fuse_log(FUSE_LOG_WARNING,
			 "objects/%s in the state directory, a copy of what equal files hold, was "
			 "changed by somebody: it is made anew.\n",
			 name);
	remove_object(objects, name);
	return false;
}

/* Give the file open as FD its name. -ECANCELED: somebody else's has it. */
static errint_t give_name(const struct objects *objects, int fd,
			  const struct catalogue_record *record)
{
	char name[NAME_BYTES];
	char path[32];

	name_of(record, name);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, path, objects->directory_fd, name, AT_SYMLINK_FOLLOW))
		return errno == EEXIST ? -ECANCELED : -errno;
	return fsync(objects->directory_fd) ? -errno : 0;
}

/* The stamp that the object open as FD, which has its name, keeps as long as nobody touches it. */
static errint_t last_stamp(const struct objects *objects, int fd, struct source_stamp *ret_stamp)
{
	static const struct timespec moment = {.tv_nsec = STAMP_WAIT_NS};
	errint_t error = stamp_of(fd, ret_stamp);

	while (!error && source_stamp_is_racy(ret_stamp, objects->multigrain)) {
		if (atomic_load(&objects->stopping))
			return -ECANCELED;
		nanosleep(&moment, NULL);
		error = stamp_of(fd, ret_stamp);
	}
	return error;
}

static errint_t tell(struct objects *objects, uint64_t class, const struct source_stamp *stamp)
{
	struct catalogue_batch *batch;
	errint_t error = catalogue_begin(objects->catalogue, &batch);

	if (error)
		return error;
	error = catalogue_put_object(batch, class, stamp);
	if (!error)
		return catalogue_commit(batch);
	catalogue_abort(batch);
	return error;
}

static errint_t make(struct objects *objects, const struct wish *wish)
{
	struct source_stamp stamp;
	errint_t error;
	int fd;

	if (is_made(objects, &wish->record))
		return 0;
	fd = openat(objects->directory_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0400);
	if (fd < 0)
		return -errno;
	error = copy(objects, wish->fd, fd, wish->stamp.size);
	if (!error && fsync(fd))
		error = -errno;
	if (!error && !has_stamp(wish->fd, &wish->stamp))
		error = -ESTALE;
	if (!error)
		error = give_name(objects, fd, &wish->record);
	if (!error)
		error = last_stamp(objects, fd, &stamp);
	if (!error)
		error = tell(objects, wish->record.class, &stamp);
	close(fd);
	return error;
}

static void *make_all(void *argument)
{
	const struct sched_param lowest = {0};
	struct objects *objects = argument;
	bool told = false;
	struct wish *wish;
	errint_t error;

	(void)sched_setscheduler(0, SCHED_IDLE, &lowest);
	pthread_mutex_lock(&objects->lock);
	while (!atomic_load(&objects->stopping)) {
		if (cds_list_empty(&objects->wishes)) {
			pthread_cond_wait(&objects->wanted, &objects->lock);
			continue;
		}
		wish = cds_list_first_entry(&objects->wishes, struct wish, link);
		pthread_mutex_unlock(&objects->lock);
		error = make(objects, wish);
		/* A file that changed meanwhile is not in its class any more: nothing is amiss. */
		if (error && error != -ESTALE && error != -ECANCELED && !told) {
			fuse_log(FUSE_LOG_WARNING,
				 "cannot keep a copy of what equal files hold: %s; they are served "
				 "from the window.\n",
				 strerror(-error));
			told = true;
		}
		pthread_mutex_lock(&objects->lock);
		cds_list_del(&wish->link);
		objects->count--;
		wish_free(wish);
	}
	pthread_mutex_unlock(&objects->lock);
	return NULL;
}

/* Whether the object of RECORD is to be made already, or too many others are. */
static bool is_to_wait_locked(const struct objects *objects, const struct catalogue_record *record)
{
	struct wish *wish;

	cds_list_for_each_entry (wish, &objects->wishes, link)
		if (wish->record.class == record->class)
			return true;
	return objects->count >= WISHES_MAX || atomic_load(&objects->stopping);
}

void objects_make(struct objects *objects, const struct catalogue_record *record,
		  const struct source_stamp *stamp, int fd)
{
	struct wish *wish = malloc(sizeof(*wish));

	if (!wish)
		return;
	*wish = (struct wish){.record = *record, .stamp = *stamp};
	wish->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (wish->fd < 0) {
		free(wish);
		return;
	}
	pthread_mutex_lock(&objects->lock);
	if (!objects->started)
		objects->started = pthread_create(&objects->maker, NULL, make_all, objects) == 0;
	if (objects->started && !is_to_wait_locked(objects, record)) {
		cds_list_add_tail(&wish->link, &objects->wishes);
		objects->count++;
		wish = NULL;
	}
	pthread_mutex_unlock(&objects->lock);
	pthread_cond_signal(&objects->wanted);
	if (wish)
		wish_free(wish);
}
