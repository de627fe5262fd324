/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared_copies.c - copies of whole contents that nobody writes
 *
 * One thread makes the copies. It starts with the first wish and works at the lowest priority. It
 * copies into a file without a name and syncs it. Then it compares the copy: byte by byte with the
 * file that it was copied from, and by its digest with the content of the class. The copy gets its
 * name only if two things are true of that file. Before and after, it had the stamp under which it
 * is a member of its class. And nobody had it open for writing. So an object was whole and right
 * when it got its name.
 *
 * The catalogue is then told the object's stamp at that time, and who could have written to that
 * file. An object with another stamp is not used, nor is one that the catalogue was not told of.
 * Only the maker removes objects, so no open waits for a removal.
 */
#include "foldfs/shared_copies.h"

#include "foldfs/content.h"
#include "foldfs/passthrough.h"
#include "foldfs/proc_fd.h"
#include "foldfs/shared_copies_sweep.h"
#include "foldfs/source.h"
#include "foldfs/thread_identity.h"
#include "foldfs/trusted_path.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include <urcu/list.h>

/* Bytes copied in one call, so that shared_copies_free() does not wait for long. */
#define COPY_BYTES (8u << 20)
/* Wishes that may wait. Further ones are dropped, and come again with the next open. */
#define WISHES_MAX 256u
/* Members that are gone and wait to be looked at. Further ones are left to the next scan. */
#define GONE_MAX 4096u
/* Time between two checks whether a stamp is old enough. */
#define STAMP_WAIT_NS 5000000

struct wish {
	struct cds_list_head link; /* under copies->lock */
	struct catalogue_record record;
	struct shared_copies_source source; /* fd is the wish's own */
};

struct shared_copies {
	struct catalogue *catalogue; /* borrowed */
	struct passthrough *view;    /* read-only, of the directory; constant */
	int directory_fd;            /* constant */
	bool multigrain;             /* the directory's file system is; constant */
	pthread_mutex_t lock;        /* a leaf */
	pthread_cond_t wanted;
	struct cds_list_head wishes;        /* under lock; the first is being made */
	unsigned count;                     /* under lock */
	struct source_stamp gone[GONE_MAX]; /* under lock */
	unsigned gone_count;                /* under lock */
	bool sweep;                         /* under lock: a sweep is due */
	bool started;                       /* under lock */
	atomic_bool stopping;               /* set under lock */
	pthread_t maker;                    /* once started */
};

static void name_of(const struct catalogue_record *record, char name[OBJECT_NAME_BYTES])
{
	object_name(record->class, &record->content, name);
}

/* ---- start and end ---- */

errint_t shared_copies_new(const char *directory, struct catalogue *catalogue,
			   struct shared_copies **ret_objects)
{
	struct shared_copies *copies;
	struct statfs fs;
	errint_t error;

	if (mkdir(directory, 0700) && errno != EEXIST)
		return -errno;
	copies = calloc(1, sizeof(*copies));
	if (!copies)
		return -ENOMEM;
	pthread_mutex_init(&copies->lock, NULL);
	pthread_cond_init(&copies->wanted, NULL);
	CDS_INIT_LIST_HEAD(&copies->wishes);
	copies->catalogue = catalogue;
	copies->directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	error = copies->directory_fd < 0 || fstatfs(copies->directory_fd, &fs) ? -errno : 0;
	if (!error)
		error = trusted_path_check(copies->directory_fd, geteuid());
	if (!error) {
		copies->multigrain = source_is_multigrain(&fs);
		error = passthrough_new(passthrough_open_view(copies->directory_fd), &copies->view);
	}
	if (error) {
		shared_copies_free(copies);
		return error;
	}
	shared_copies_sweep(copies->directory_fd, catalogue);
	*ret_objects = copies;
	return 0;
}

static void wish_free(struct wish *wish)
{
	close(wish->source.fd);
	free(wish);
}

void shared_copies_free(struct shared_copies *copies)
{
	struct wish *wish;
	struct wish *next;

	if (!copies)
		return;
	pthread_mutex_lock(&copies->lock);
	atomic_store(&copies->stopping, true);
	pthread_mutex_unlock(&copies->lock);
	pthread_cond_signal(&copies->wanted);
	if (copies->started)
		pthread_join(copies->maker, NULL);
	cds_list_for_each_entry_safe (wish, next, &copies->wishes, link)
		wish_free(wish);
	passthrough_free(copies->view);
	if (copies->directory_fd >= 0)
		close(copies->directory_fd);
	pthread_cond_destroy(&copies->wanted);
	pthread_mutex_destroy(&copies->lock);
	free(copies);
}

/* The stamp of the object open as FD, in the form that the catalogue keeps. */
static errint_t stamp_of(int fd, struct source_stamp *ret_stamp)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	source_stamp_of(&st, ret_stamp);
	ret_stamp->device = 0;
	return 0;
}

/* Whether the object of CLASS, open as FD, is as it was made. If so, *ret_made is its entry. */
static bool is_as_made(struct shared_copies *copies, uint64_t class, int fd,
		       struct catalogue_object *ret_made)
{
	struct source_stamp now;

	return !catalogue_object(copies->catalogue, class, ret_made) && !stamp_of(fd, &now) &&
	       source_stamp_equal(&ret_made->stamp, &now);
}

int shared_copies_open(struct shared_copies *copies, const struct catalogue_record *record,
		       uint64_t writers)
{
	struct catalogue_object made;
	char name[OBJECT_NAME_BYTES];
	errint_t error = 0;
	int fd;

	name_of(record, name);
	fd = passthrough_open_read_only(copies->view, name);
	if (fd < 0)
		return fd;
	if (!is_as_made(copies, record->class, fd, &made))
		error = -ENOENT;
	else if (!writers_may_speak(made.writers, writers))
		error = -EPERM;
	if (!error)
		return fd;
	close(fd);
	return error;
}

int shared_copies_open_copy(struct shared_copies *copies, const struct catalogue_object *object)
{
	const struct catalogue_record record = {.class = object->class, .content = object->content};

	return shared_copies_open(copies, &record, object->writers);
}

/* ---- making ---- */

static errint_t copy(struct shared_copies *copies, int from, int to, off_t size)
{
	off_t at = 0;
	ssize_t done;

	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	while (at < size && !atomic_load(&copies->stopping)) {
		off_t into = at;

		done = copy_file_range(from, &at, to, &into, COPY_BYTES, 0);
		/* FROM is on another file system. TO is written from its start to its end. */
		if (done < 0 && errno == EXDEV)
			done = sendfile(to, from, &at, COPY_BYTES);
		if (done < 0 && errno != EINTR)
			return -errno;
		if (done == 0)
			return -ESTALE; /* the source has become shorter */
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

/* Whether MADE need not be made again for WISH. True if MADE may speak for the source of WISH, or
 * if that source is not trusted. (If MADE may not speak for it, MADE is not trusted either.) */
static bool is_good_enough(const struct catalogue_object *made, const struct wish *wish)
{
	return writers_may_speak(made->writers, wish->source.writers) ||
	       wish->source.writers != WRITERS_TRUSTED;
}

/* Whether the object of WISH is there, as it was made: then somebody else has made it. An object
 * that is not as it was made, or that is to be replaced, is removed. */
static bool is_made(struct shared_copies *copies, const struct wish *wish)
{
	uint64_t class = wish->record.class;
	struct catalogue_object made;
	char name[OBJECT_NAME_BYTES];
	bool right;
	int fd;

	name_of(&wish->record, name);
	fd = openat(copies->directory_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return false;
	right = is_as_made(copies, class, fd, &made);
	close(fd);
	if (right && is_good_enough(&made, wish))
		return true;
	/* The catalogue was told of this object, so somebody else has changed it. */
	if (!right && !catalogue_object(copies->catalogue, class, &made))
		fuse_log(FUSE_LOG_WARNING,
			 "objects/%s in the state directory, a copy of equal files, was changed by "
			 "somebody: it is made anew.\n",
			 name);
	object_remove(copies->directory_fd, copies->catalogue, class, name);
	return false;
}

static bool is_stopping(void *context)
{
	struct shared_copies *copies = context;

	return atomic_load(&copies->stopping);
}

/* Whether the copy open as FD has the content of WISH's source, and that is the content of its
 * class. -EUCLEAN: it does not, whatever the stamp says. */
static errint_t compare_copy(struct shared_copies *copies, const struct wish *wish, int fd)
{
	const struct digest *wanted = &wish->record.content;
	struct source_stamp copy;
	struct digest content;
	errint_t error = stamp_of(fd, &copy);

	if (!error && copy.size != wish->source.stamp.size)
		error = -EUCLEAN;
	if (!error)
		error = content_compare(fd, wish->source.fd, (uint64_t)copy.size,
					catalogue_secret(copies->catalogue), is_stopping, copies,
					&content);
	if (!error && (content.low != wanted->low || content.high != wanted->high))
		error = -EUCLEAN;
	return error;
}

/* Copy the source of WISH into the file open as FD, so that it is whole and right. */
static errint_t copy_right(struct shared_copies *copies, const struct wish *wish, int fd)
{
	const struct shared_copies_source *source = &wish->source;
	errint_t error = 0;

	/* If the kernel cannot tell, the comparison of the bytes has to. */
	if (source_check_unwritten(source->fd) == -EBUSY || !has_stamp(source->fd, &source->stamp))
		return -ESTALE;
	error = copy(copies, source->fd, fd, source->stamp.size);
	if (!error && fsync(fd))
		error = -errno;
	if (!error)
		error = compare_copy(copies, wish, fd);
	if (!error && !has_stamp(source->fd, &source->stamp))
		error = -ESTALE;
	return error;
}

/* Give the file open as FD its name. -ECANCELED: another file has the name. */
static errint_t give_name(const struct shared_copies *copies, int fd,
			  const struct catalogue_record *record)
{
	char name[OBJECT_NAME_BYTES];
	char path[PROC_FD_BYTES];

	name_of(record, name);
	if (linkat(AT_FDCWD, proc_fd(path, fd), copies->directory_fd, name, AT_SYMLINK_FOLLOW))
		return errno == EEXIST ? -ECANCELED : -errno;
	return fsync(copies->directory_fd) ? -errno : 0;
}

/* The stamp that the object open as FD, which has its name, keeps as long as nobody touches it. */
static errint_t last_stamp(const struct shared_copies *copies, int fd,
			   struct source_stamp *ret_stamp)
{
	static const struct timespec moment = {.tv_nsec = STAMP_WAIT_NS};
	errint_t error = stamp_of(fd, ret_stamp);

	while (!error && source_stamp_is_racy(ret_stamp, copies->multigrain)) {
		if (atomic_load(&copies->stopping))
			return -ECANCELED;
		nanosleep(&moment, NULL);
		error = stamp_of(fd, ret_stamp);
	}
	return error;
}

static errint_t tell(struct shared_copies *copies, const struct catalogue_object *object)
{
	struct catalogue_batch *batch;
	errint_t error = catalogue_begin(copies->catalogue, &batch);

	if (error)
		return error;
	error = catalogue_put_object(batch, object);
	if (!error)
		return catalogue_commit(batch);
	catalogue_abort(batch);
	return error;
}

static errint_t make(struct shared_copies *copies, const struct wish *wish)
{
	struct catalogue_object made = {.class = wish->record.class,
					.writers = wish->source.writers,
					.content = wish->record.content};
	errint_t error;
	int fd;

	if (is_made(copies, wish))
		return 0;
	fd = openat(copies->directory_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0400);
	if (fd < 0)
		return -errno;
	error = copy_right(copies, wish, fd);
	if (!error)
		error = give_name(copies, fd, &wish->record);
	if (!error)
		error = last_stamp(copies, fd, &made.stamp);
	if (!error)
		error = tell(copies, &made);
	close(fd);
	return error;
}

/* ---- the maker's thread ---- */

static void make_first_locked(struct shared_copies *copies, bool *told)
{
	struct wish *wish = cds_list_first_entry(&copies->wishes, struct wish, link);
	errint_t error;

	pthread_mutex_unlock(&copies->lock);
	error = make(copies, wish);
	/* A file that changed meanwhile, or is not what its stamp says, is not of its class. There
	 * is nothing to do. */
	if (error && error != -ESTALE && error != -EUCLEAN && error != -ECANCELED && !*told) {
		fuse_log(
			FUSE_LOG_WARNING,
			"cannot keep a copy of equal files: %s. They are served from the window.\n",
			strerror(-error));
		*told = true;
	}
	pthread_mutex_lock(&copies->lock);
	cds_list_del(&wish->link);
	copies->count--;
	wish_free(wish);
}

/* Remove the catalogue's entry of a member that is GONE, if its class has an object. Returns
 * whether it was removed. */
static bool forget_gone(struct shared_copies *copies, const struct source_stamp *gone)
{
	struct catalogue_object object;
	struct catalogue_record record;
	struct catalogue_batch *batch;

	/* An entry that cannot be removed now is left to the next scan. */
	if (catalogue_find(copies->catalogue, gone, &record) ||
	    catalogue_object(copies->catalogue, record.class, &object) ||
	    catalogue_begin(copies->catalogue, &batch))
		return false;
	/* Only under this stamp: another process may have put another file with these numbers
	 * meanwhile. */
	if (!catalogue_remove_stamped(batch, gone))
		return !catalogue_commit(batch);
	catalogue_abort(batch);
	return false;
}

/* Look at one member that is gone. When none is left, sweep if a sweep is due. */
static void tidy_locked(struct shared_copies *copies)
{
	struct source_stamp gone;
	bool found;

	if (copies->gone_count) {
		gone = copies->gone[--copies->gone_count];
		pthread_mutex_unlock(&copies->lock);
		found = forget_gone(copies, &gone);
		pthread_mutex_lock(&copies->lock);
		copies->sweep |= found;
		return;
	}
	copies->sweep = false;
	pthread_mutex_unlock(&copies->lock);
	shared_copies_sweep(copies->directory_fd, copies->catalogue);
	pthread_mutex_lock(&copies->lock);
}

static void *make_all(void *argument)
{
	const struct sched_param lowest = {0};
	struct shared_copies *copies = argument;
	bool told = false;

	/* This thread was started by one that serves callers, and may have a caller's identity. */
	identity_make_own();
	(void)sched_setscheduler(0, SCHED_IDLE, &lowest);
	pthread_mutex_lock(&copies->lock);
	while (!atomic_load(&copies->stopping)) {
		if (!cds_list_empty(&copies->wishes))
			make_first_locked(copies, &told);
		else if (copies->gone_count || copies->sweep)
			tidy_locked(copies);
		else
			pthread_cond_wait(&copies->wanted, &copies->lock);
	}
	pthread_mutex_unlock(&copies->lock);
	return NULL;
}

/* Whether the maker is there, or could be started. */
static bool has_maker_locked(struct shared_copies *copies)
{
	if (!copies->started)
		copies->started = pthread_create(&copies->maker, NULL, make_all, copies) == 0;
	return copies->started;
}

/* Whether a wish for the object of RECORD is already queued, or no wish is taken now. */
static bool is_to_wait_locked(const struct shared_copies *copies,
			      const struct catalogue_record *record)
{
	struct wish *wish;

	cds_list_for_each_entry (wish, &copies->wishes, link)
		if (wish->record.class == record->class)
			return true;
	return copies->count >= WISHES_MAX || atomic_load(&copies->stopping);
}

void shared_copies_make(struct shared_copies *copies, const struct catalogue_record *record,
			const struct shared_copies_source *source)
{
	struct wish *wish = malloc(sizeof(*wish));

	if (!wish)
		return;
	*wish = (struct wish){.record = *record, .source = *source};
	wish->source.fd = fcntl(source->fd, F_DUPFD_CLOEXEC, 0);
	if (wish->source.fd < 0) {
		free(wish);
		return;
	}
	pthread_mutex_lock(&copies->lock);
	if (has_maker_locked(copies) && !is_to_wait_locked(copies, record)) {
		cds_list_add_tail(&wish->link, &copies->wishes);
		copies->count++;
		wish = NULL;
	}
	pthread_mutex_unlock(&copies->lock);
	pthread_cond_signal(&copies->wanted);
	if (wish)
		wish_free(wish);
}

void shared_copies_member_gone(struct shared_copies *copies, const struct source_stamp *stamp)
{
	pthread_mutex_lock(&copies->lock);
	if (has_maker_locked(copies) && copies->gone_count < GONE_MAX)
		copies->gone[copies->gone_count++] = *stamp;
	pthread_mutex_unlock(&copies->lock);
	pthread_cond_signal(&copies->wanted);
}

void shared_copies_sweep_soon(struct shared_copies *copies)
{
	pthread_mutex_lock(&copies->lock);
	if (has_maker_locked(copies))
		copies->sweep = true;
	pthread_mutex_unlock(&copies->lock);
	pthread_cond_signal(&copies->wanted);
}
