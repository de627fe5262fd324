/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.c - how an open file is served
 *
 * Decided in this order:
 *
 *   the user named it (-o passthrough=GLOB)                         own
 *   a writer in own may still have it mapped                        own
 *   it is equal as a whole to other files, nobody can write here    shared
 *   it is known to share less than a twentieth, and not too large   own
 *   everything else                                                 window
 *
 * Nobody can write in a read-only mount. With coherence=overlay the same is true in effect. An open
 * for writing gets another inode (ESTALE makes the kernel look the name up again). The readers keep
 * the inode that they have, which is backed by a copy that is nobody's file (shared_copies.h).
 *
 * What is known of a file is what the catalogue has under exactly its present stamp, or what
 * reading it in this mount has shown. A file of `shared` is served from the first member of its
 * class that may back it (plan_shared.c). So all files that the same members may back get the same
 * backing file. Two locks keep the backing file from being written: it is opened through a
 * read-only view (passthrough.h), and a hold of `shared` refuses every open for writing. A
 * read-only mount is a third.
 *
 * A write by a caller without CAP_FSETID removes set-id bits. The daemon has to do that
 * (HANDLE_KILLPRIV_V2), so a file with such bits is not written in passthrough. Such a file gets no
 * passthrough plan by an open for writing, and while it has one it gets no bits. While a chmod that
 * gives bits is in progress (granting), the file counts as having them.
 *
 * An opener that gets ESTALE retries, and the retry must succeed. A faster reader could open the
 * new inode first and begin a plan that refuses the retry. So the file's next plan is `window`
 * until the retry has come (plan_await()).
 *
 * A hold of `shared` also refuses an open that finds the file with another ctime than the first
 * open found. The file was changed since, behind the mount or by a truncate that was in progress.
 * It also refuses an open that finds that the backing file may not back the file any more.
 *
 * An inode of `own` that is opened for writing changes while the daemon is not on the path. What
 * was known of its content is forgotten when the open begins, and again when the last open ends.
 * The end begins a new edition, so that the next window plan starts with an empty cache. FUSE and
 * the daemon also do not hear of stores through a mapping, or of msync(2), because both go to the
 * source. So while somebody may make such a store, nobody keeps the file's attributes
 * (plan_moves_times()).
 */
#include "plan_internal.h"

#include "foldfs/file.h"
#include "foldfs/proc_fd.h"
#include "foldfs/rcu.h"
#include "foldfs/state.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct choice {
	enum plan_kind kind;
	enum plan_reason reason;
};

/* ---- start ---- */

/* The prefix of every path of the source in /proc. */
static char *root_path(int source_fd)
{
	char path[PATH_MAX];

	if (!proc_fd_name(source_fd, path, sizeof(path)))
		return NULL;
	if (strcmp(path, "/") == 0)
		path[0] = '\0';
	return strdup(path);
}

static void globs_free(struct plan_globs *globs)
{
	for (char **glob = globs ? globs->list : NULL; glob && *glob; glob++)
		free(*glob);
	if (globs)
		free(globs->list);
	free(globs);
}

/* A copy of LIST; *RET_GLOBS is NULL for none. -ENOMEM. */
static errint_t globs_new(char *const *list, struct plan_globs **ret_globs)
{
	struct plan_globs *globs = NULL;
	size_t count = 0;

	while (list && list[count])
		count++;
	if (count) {
		globs = calloc(1, sizeof(*globs));
		if (globs)
			globs->list = calloc(count + 1, sizeof(*globs->list));
	}
	for (size_t i = 0; globs && globs->list && i < count; i++) {
		globs->list[i] = strdup(list[i]);
		if (!globs->list[i])
			break;
	}
	if (count && (!globs || !globs->list || !globs->list[count - 1])) {
		globs_free(globs);
		return -ENOMEM;
	}
	*ret_globs = globs;
	return 0;
}

errint_t plan_set_passthrough(struct plan *plan, char *const *list, uint64_t max_bytes)
{
	struct plan_globs *globs;
	errint_t error = globs_new(list, &globs);

	if (error)
		return error;
	/* With window=0 the user wants memory to hold only what is shared, and nothing cached
	 * besides. */
	atomic_store_explicit(&plan->max_bytes, plan->direct ? 0 : max_bytes, memory_order_relaxed);
	globs = atomic_exchange(&plan->globs, globs);
	if (globs)
		fold_rcu_synchronize();
	globs_free(globs);
	return 0;
}

errint_t plan_new(const struct options *options, int source_fd, struct passthrough *passthrough,
		  struct lease_table *leases, struct plan **ret_plan)
{
	struct plan *plan = calloc(1, sizeof(*plan));
	errint_t error;

	if (!plan)
		return -ENOMEM;
	error = writers_view_of(source_fd, &plan->view);
	if (error) {
		free(plan);
		return error;
	}
	pthread_mutex_init(&plan->awaited_lock, NULL);
	pthread_mutex_init(&plan->sharers_lock, NULL);
	CDS_INIT_LIST_HEAD(&plan->sharers);
	plan->passthrough = passthrough;
	plan->leases = leases;
	atomic_init(&plan->unable, "the kernel has not asked for anything yet");
	plan->direct = !options->window_bytes;
	plan->read_only = options->read_only;
	plan->source_stacked = options->source_stacked;
	plan->root = root_path(source_fd);
	error = plan_set_passthrough(plan, options->passthrough, options->passthrough_max);
	if (error) {
		plan_free(plan);
		return error;
	}
	*ret_plan = plan;
	return 0;
}

void plan_free(struct plan *plan)
{
	struct plan_sharer *sharer;
	struct plan_sharer *next;

	if (!plan)
		return;
	/* They belong to files that clients still had open when the connection ended. */
	cds_list_for_each_entry_safe (sharer, next, &plan->sharers, link)
		free(sharer);
	file_set_clear(&plan->served);
	file_set_clear(&plan->backs);
	pthread_mutex_destroy(&plan->sharers_lock);
	pthread_mutex_destroy(&plan->awaited_lock);
	globs_free(atomic_load(&plan->globs));
	free(plan->root);
	free(plan);
}

void plan_use_state(struct plan *plan, const struct state *state)
{
	plan->catalogue = state->catalogue;
	plan->copies = state->copies;
}

void plan_init(struct plan *plan, struct fuse_conn_info *conn)
{
	const char *missing = NULL;

	if (plan->direct)
		fuse_set_feature_flag(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
	if (!passthrough_permitted())
		missing = "the daemon has no CAP_SYS_ADMIN";
	else if (!fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH))
		missing = "the kernel does not have it";
	if (missing) {
		fuse_log(FUSE_LOG_NOTICE,
			 "no kernel passthrough, because %s: every file is served from the "
			 "window.\n",
			 missing);
		atomic_store(&plan->unable, missing);
		return;
	}
	/* 0: another file system may be stacked on the mount, but the source is not stacked
	 * itself. */
	conn->max_backing_stack_depth = plan->source_stacked ? 1 : 0;
	atomic_store(&plan->unable, NULL);
	atomic_store(&plan->able, true);
	atomic_store(&plan->able_elsewhere, true);
}

bool plan_is_direct(const struct plan *plan)
{
	return plan->direct;
}

/* ---- openers that get ESTALE ---- */

static time_t seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec;
}

static bool is_same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

void plan_await(struct plan *plan, const struct stat *st)
{
	time_t until = seconds_now() + AWAITED_SECONDS;

	pthread_mutex_lock(&plan->awaited_lock);
	plan->awaited[plan->awaited_next++ % AWAITED_MAX] =
		(struct awaited){st->st_dev, st->st_ino, st->st_ctim, until};
	atomic_store(&plan->awaited_until, until);
	pthread_mutex_unlock(&plan->awaited_lock);
}

static bool is_awaited(struct plan *plan, const struct stat *st)
{
	time_t now = seconds_now();
	bool found = false;
	unsigned i;

	if (now > atomic_load(&plan->awaited_until))
		return false;
	pthread_mutex_lock(&plan->awaited_lock);
	for (i = 0; i < AWAITED_MAX && !found; i++) {
		const struct awaited *awaited = &plan->awaited[i];

		found = awaited->inode == st->st_ino && awaited->device == st->st_dev &&
			awaited->until >= now && is_same_time(&awaited->ctime, &st->st_ctim);
	}
	pthread_mutex_unlock(&plan->awaited_lock);
	return found;
}

/* ---- choosing ---- */

/* Whether the user named the file open as FD. A glob without a slash matches the last component,
 * one with a slash the whole path below the source. */
static bool is_asked(const struct plan *plan, int fd)
{
	const struct plan_globs *globs;
	char path[PATH_MAX];
	const char *below;
	const char *name;
	bool asked = false;
	size_t root;

	if (!atomic_load_explicit(&plan->globs, memory_order_relaxed) || !plan->root ||
	    !proc_fd_name(fd, path, sizeof(path)))
		return false;
	name = strrchr(path, '/');
	root = strlen(plan->root);
	below = strncmp(path, plan->root, root) == 0 && path[root] == '/' ? path + root + 1 : NULL;
	fold_rcu_read_lock();
	globs = atomic_load_explicit(&plan->globs, memory_order_acquire);
	for (char *const *glob = globs ? globs->list : NULL; glob && *glob && !asked; glob++)
		asked = !strchr(*glob, '/') ? name && fnmatch(*glob, name + 1, FNM_PERIOD) == 0
					    : below && fnmatch(*glob + (**glob == '/'), below,
							       FNM_PATHNAME | FNM_PERIOD) == 0;
	fold_rcu_read_unlock();
	return asked;
}

static bool is_for_writing(const struct plan_open *open)
{
	return (open->flags & O_ACCMODE) != O_RDONLY;
}

/* Whether the source takes writes only at the end of the file: see plan_source_flags(). */
static bool only_appends(const struct plan_open *open)
{
	int flags = is_for_writing(open) ? fcntl(open->fd, F_GETFL) : 0;

	return flags > 0 && flags & O_APPEND;
}

/* Whether a write has set-id bits to remove from the file, or will have in a moment. */
static bool has_set_id(const struct plan_hold *hold, const struct plan_open *open)
{
	struct stat st;

	return hold->granting || fstat(open->fd, &st) || st.st_mode & (S_ISUID | S_ISGID);
}

static struct choice choose_own(const struct plan *plan, const struct plan_open *open)
{
	if ((uint64_t)open->st->st_size > plan->max_bytes)
		return (struct choice){PLAN_WINDOW, PLAN_LARGE};
	return (struct choice){PLAN_OWN, PLAN_UNIQUE};
}

/* What the catalogue says of the file, if it knows it under its present stamp. *ret_fd as in
 * choose(). */
static bool choose_known(struct plan *plan, const struct plan_open *open, struct choice *ret_choice,
			 int *ret_fd)
{
	struct catalogue_record record;
	struct source_stamp stamp;

	if (!plan->catalogue)
		return false;
	source_stamp_of(open->st, &stamp);
	if (catalogue_find(plan->catalogue, &stamp, &record))
		return false;
	if (record.class && !is_for_writing(open)) {
		*ret_fd = plan_open_equal(plan, open, &record, &stamp);
		if (*ret_fd >= 0) {
			*ret_choice = (struct choice){PLAN_SHARED, PLAN_EQUAL};
			return true;
		}
	}
	*ret_choice = record.pages_elsewhere * 20 < record.pages
			      ? choose_own(plan, open)
			      : (struct choice){PLAN_WINDOW, PLAN_SHARES};
	return true;
}

bool plan_may_be_mapped(const struct plan_hold *hold)
{
	return hold->mapped && !hold->opens;
}

void plan_look_mapped(struct plan_hold *hold, int fd)
{
	if (source_check_unwritten(fd))
		return;
	hold->mapped = false;
	atomic_store(&hold->stores, false);
}

/* Whether a writer in `own` may still have the file of HOLD mapped, though nobody has it open. If
 * this open is for writing, the daemon's own descriptor hides the kernel's answer. Then the caller
 * has asked before (plan_look_mapped()). */
static bool is_mapped(const struct plan_hold *hold, const struct plan_open *open)
{
	return hold->mapped && (is_for_writing(open) || source_check_unwritten(open->fd));
}

/* *ret_fd: the file to register, if it is not the file itself; -1 if it is. The caller's. */
static struct choice choose(struct plan *plan, const struct plan_hold *hold,
			    const struct plan_open *open, bool mapped, int *ret_fd)
{
	struct choice choice;
	bool awaited;

	*ret_fd = -1;
	if (!atomic_load_explicit(&plan->able, memory_order_relaxed))
		return (struct choice){PLAN_WINDOW, PLAN_UNABLE};
	if (is_for_writing(open) && has_set_id(hold, open))
		return (struct choice){PLAN_WINDOW, PLAN_SET_ID};
	if (only_appends(open))
		return (struct choice){PLAN_WINDOW, PLAN_APPEND};
	/* This applies to files that were named too. Such a file may be about to get set-id bits,
	 * by way of the inode that refused its changer. */
	awaited = is_awaited(plan, open->st);
	if (!awaited && is_asked(plan, open->fd))
		return (struct choice){PLAN_OWN, PLAN_ASKED};
	if (mapped)
		return (struct choice){PLAN_OWN, PLAN_MAPPED};
	if (awaited)
		return (struct choice){PLAN_WINDOW, PLAN_AWAITED};
	if (!open->st->st_size)
		return (struct choice){PLAN_WINDOW, PLAN_EMPTY};
	if (choose_known(plan, open, &choice, ret_fd))
		return choice;
	switch (open->file ? file_sharing(open->file) : FILE_UNKNOWN) {
	case FILE_UNIQUE:
		return choose_own(plan, open);
	case FILE_SHARES:
		return (struct choice){PLAN_WINDOW, PLAN_SHARES};
	default:
		return (struct choice){PLAN_WINDOW, PLAN_UNKNOWN};
	}
}

/* ---- entering and leaving ---- */

/* Passthrough failed with ERROR for a file. ERROR may mean that it fails for every file: no right
 * to it, no such ioctl, or file systems that are stacked already. If so, say so once. Say it once
 * more if it is so on another device than that of the source's root: a file system mounted below
 * it, or a layer of an overlayfs. */
static void give_up(struct plan *plan, const struct plan_open *open, errint_t error)
{
	bool all = open->st->st_dev == plan->view.device;
	const char *hint = "";
	const char *why = strerror(-error);

	if (error != -EPERM && error != -ENOTTY && error != -ELOOP)
		return;
	if (!atomic_exchange(all ? &plan->able : &plan->able_elsewhere, false))
		return;
	if (error == -ELOOP && plan->source_stacked) {
		why = "file systems are stacked twice below the mount";
	} else if (error == -ELOOP) {
		why = "the source is on a stacked file system";
		hint = " With -o source-stacked it is possible, but then overlayfs cannot be "
		       "stacked on the mount.";
	}
	if (all)
		atomic_store(&plan->unable, why);
	fuse_log(FUSE_LOG_WARNING,
		 "no kernel passthrough%s, because %s: every file%s is served from the window.%s\n",
		 all ? "" : " on one of the source's devices", why, all ? "" : " there", hint);
}

/* Have the kernel serve the file of OPEN from the file open as FD, or from itself if FD is -1. */
static errint_t pass_through(struct plan *plan, struct plan_hold *hold,
			     const struct plan_open *open, int fd)
{
	int id = passthrough_register(plan->passthrough, fd < 0 ? open->fd : fd);

	if (id < 0)
		return id;
	if (fd >= 0)
		hold->sharer = plan_begin_sharing(plan, open, fd);
	if (fd >= 0 && !hold->sharer) {
		passthrough_unregister(plan->passthrough, id);
		return -ENOMEM;
	}
	hold->backing_id = id;
	return 0;
}

/* Begin the best plan, or `window` if that one cannot be had. */
static void begin(struct plan *plan, struct plan_hold *hold, const struct plan_open *open)
{
	struct choice choice;
	int fd;

	hold->mapped = is_mapped(hold, open);
	choice = choose(plan, hold, open, hold->mapped, &fd);
	hold->backing_id = 0;
	hold->sharer = NULL;
	hold->written = false;
	if (!hold->mapped)
		atomic_store(&hold->stores, false);
	if (choice.kind != PLAN_WINDOW) {
		errint_t error = pass_through(plan, hold, open, fd);

		if (error) {
			give_up(plan, open, error);
			choice = (struct choice){PLAN_WINDOW, PLAN_UNABLE};
		}
	}
	if (fd >= 0)
		close(fd);
	hold->kind = (uint8_t)choice.kind;
	hold->reason = (uint8_t)choice.reason;
	atomic_fetch_add_explicit(&plan->inodes[choice.kind], 1, memory_order_relaxed);
}

void plan_hold_renew(struct plan_hold *hold)
{
	hold->opens = 0;
	hold->granting = 0;
	hold->sharer = NULL;
}

void plan_hold_rejoin(struct plan *plan, struct plan_hold *hold)
{
	if (!hold->opens++)
		atomic_fetch_add_explicit(&plan->inodes[hold->kind], 1, memory_order_relaxed);
}

void plan_hold_settle(struct plan *plan, struct plan_hold *hold)
{
	if (hold->opens || !hold->backing_id)
		return;
	passthrough_unregister(plan->passthrough, hold->backing_id);
	hold->backing_id = 0;
	if (hold->kind == PLAN_OWN && hold->written)
		hold->mapped = true;
}

/* Whether OPEN can join HOLD, which others have. If not, they keep their plan, and OPEN gets
 * another inode (-ESTALE). It is an inode of the same source file, so with `own`, where nobody has
 * written yet, all see what OPEN writes. */
static errint_t may_join(struct plan *plan, const struct plan_hold *hold,
			 const struct plan_open *open)
{
	switch (hold->kind) {
	case PLAN_OWN:
		if (!is_for_writing(open) || (!has_set_id(hold, open) && !only_appends(open)))
			return 0;
		return hold->written ? -ETXTBSY : -ESTALE;
	case PLAN_SHARED:
		/* Every change of content moves the ctime. The ctime was old enough to be trusted
		 * when the file was compared. What backs a file that was open when an earlier
		 * worker ended is no longer known. */
		return !is_for_writing(open) && hold->sharer &&
				       is_same_time(&open->st->st_ctim,
						    &hold->sharer->shared.stamp.ctime) &&
				       plan_is_backed_still(plan, hold)
			       ? 0
			       : -ESTALE;
	default:
		return 0;
	}
}

errint_t plan_enter(struct plan *plan, struct plan_hold *hold, const struct plan_open *open)
{
	errint_t error = hold->opens ? may_join(plan, hold, open) : 0;

	if (error)
		return error;
	if (!hold->opens)
		begin(plan, hold, open);
	hold->alone = !hold->opens && is_for_writing(open) ? open->pid : 0;
	hold->opens++;
	/* Only a descriptor for reading and writing can be mapped for stores. */
	if (hold->kind == PLAN_OWN && (open->flags & O_ACCMODE) == O_RDWR)
		atomic_store(&hold->stores, true);
	if (hold->kind == PLAN_OWN && is_for_writing(open) && !hold->written) {
		hold->written = true;
		if (open->file)
			file_forget(open->file);
	}
	return 0;
}

void plan_leave(struct plan *plan, struct plan_hold *hold, struct file *file)
{
	if (--hold->opens)
		return;
	passthrough_unregister(plan->passthrough, hold->backing_id);
	hold->backing_id = 0;
	plan_end_sharing(plan, hold->sharer);
	hold->sharer = NULL;
	atomic_fetch_sub_explicit(&plan->inodes[hold->kind], 1, memory_order_relaxed);
	if (hold->kind == PLAN_OWN && hold->written)
		hold->mapped = true;
	/* What becomes known of the file later belongs to another edition. The kernel may still
	 * cache its earlier content, from an earlier plan. */
	if (file && hold->written)
		file_distrust(file);
}

bool plan_moves_times(const struct plan_hold *hold)
{
	return atomic_load(&hold->stores);
}

bool plan_may_change(const struct plan_hold *hold)
{
	return !hold->opens || hold->kind != PLAN_SHARED;
}

bool plan_grant_begin(struct plan_hold *hold, pid_t pid)
{
	if (hold->opens && hold->kind == PLAN_OWN && hold->written && (!pid || hold->alone != pid))
		return false;
	hold->granting++;
	return true;
}

void plan_grant_end(struct plan_hold *hold)
{
	hold->granting--;
}

bool plan_answer(const struct plan *plan, const struct plan_hold *hold, bool unchanged,
		 struct fuse_file_info *fi)
{
	/* close(2) has nothing to write back, because writes are write-through. But the source may
	 * report an error of them at close (NFS, quotas), so opens for writing keep the flush. So do
	 * all opens of a file that clients lock: a close ends its owner's locks. */
	fi->noflush = (fi->flags & O_ACCMODE) == O_RDONLY && !hold->locked;
	fi->backing_id = hold->backing_id;
	fi->direct_io = hold->kind == PLAN_WINDOW && plan->direct;
	/* Not fi->parallel_direct_writes, with which two threads of one program hang (Linux 6.18).
	 * Such a write makes mmap(2) of the file wait while it holds the process's memory map. The
	 * write needs that map to find the bytes that it is to write. */
	/* The kernel refuses passthrough together with keep_cache. */
	unchanged = unchanged && hold->kind == PLAN_WINDOW;
	fi->keep_cache = unchanged && !plan->direct;
	return unchanged;
}

/* ---- telling ---- */

void plan_explain(struct plan *plan, const struct plan_hold *hold, const struct plan_open *open,
		  enum plan_kind *ret_kind, enum plan_reason *ret_reason)
{
	struct choice choice = {(enum plan_kind)hold->kind, (enum plan_reason)hold->reason};
	int fd = -1;

	if (!hold->opens)
		choice = choose(plan, hold, open, is_mapped(hold, open), &fd);
	if (fd >= 0)
		close(fd);
	*ret_kind = choice.kind;
	*ret_reason = choice.reason;
}

const char *plan_kind_name(enum plan_kind kind)
{
	static const char *const names[] = {
		[PLAN_WINDOW] = "window",
		[PLAN_OWN] = "own passthrough",
		[PLAN_SHARED] = "shared passthrough",
	};

	return names[kind];
}

const char *plan_reason_sentence(enum plan_reason reason)
{
#define PLAN_REASON_SENTENCE(name, sentence) [PLAN_##name] = sentence,
	static const char *const sentences[] = {PLAN_REASONS(PLAN_REASON_SENTENCE)};
#undef PLAN_REASON_SENTENCE

	return sentences[reason];
}

const char *plan_unable(const struct plan *plan)
{
	return atomic_load(&plan->unable);
}

uint64_t plan_inodes(const struct plan *plan, enum plan_kind kind)
{
	return atomic_load_explicit(&plan->inodes[kind], memory_order_relaxed);
}

int plan_source_flags(int client_flags)
{
	/* O_TRUNC arrives as a setattr of its own. Creation flags were handled where the name is
	 * looked up. */
	return (client_flags & (O_ACCMODE | O_SYNC | O_DSYNC | O_NOATIME)) | O_CLOEXEC;
}
