/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fusefs.c - the session: what is built for a mount, what is agreed with the kernel, start and stop
 *
 * Order of the start: fusefs_new() makes everything without starting a thread, before any fork.
 * Threads start in fusefs_serve().
 *
 * Order of the stop: first the watch and the trimmer, while requests are still answered, because
 * their calls into the kernel wait for what an unanswered request holds. Then the loop, then
 * everything else. If the connection has ended, the watch and the trimmer stop after the loop
 * (fusefs_quiesce()).
 */
#include "fuse/fusefs_internal.h"

#include "foldfs/counters.h"
#include "foldfs/family.h"
#include "foldfs/memory.h"
#include "foldfs/memory_limit.h"
#include "foldfs/sanitized.h"
#include "foldfs/state.h"
#include "fuse/locks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* Workers that read ahead. They wait for I/O, so a few more than one do not cost processors. */
#define WORKERS 2u
/* Background requests that the kernel may have under way (its own read-ahead, async I/O,
 * write-back, releases), of all users together. This is more than serve.c takes, which bounds them
 * by user. */
#define BACKGROUND_MAX 8192u
/* With more background requests than this, the kernel does not read further ahead. */
#define BACKGROUND_ENOUGH 48u
/* From <linux/fuse.h> since Linux 6.9. */
#define NOTIFY_RESEND 7
/* From libfuse, lib/fuse_i.h: what a request needs in addition to its payload. */
#define HEADER_BYTES 4096u
/* From libfuse: payloads of a queue. There is one queue for each processor. */
#define RING_DEPTH 8u

static errint_t invalidate(void *context, uint64_t node, off_t offset, off_t length)
{
	struct fusefs *fs = context;

	return fuse_lowlevel_notify_inval_inode(fs->session, node, offset, length);
}

/* Requests that the kernel sends on its own account (write-back, releases) count to the user who
 * opened the file. */
static uid_t user_of(const void *context, const struct fuse_in_header *in)
{
	/* The handle is the first field in all three. */
	const uint64_t *handle = (const void *)(in + 1);

	if (in->pid || in->uid)
		return in->uid;
	switch (in->opcode) {
	case FUSE_WRITE:
	case FUSE_RELEASE:
		return fusefs_handle_user(context, *handle);
	case FUSE_RELEASEDIR:
		return fusefs_directory_user(context, *handle);
	default:
		return 0;
	}
}

#define OPCODE_STATX 52u /* FUSE_STATX, of Linux 6.6 */

/* Requests that the kernel's memory, or ours, usually answers. If a file system has to answer one
 * of them, it may still take as long as it likes. */
static bool is_brief(const void *context, const struct fuse_in_header *in)
{
	const struct fuse_open_in *open = (const void *)(in + 1);

	switch (in->opcode) {
	case FUSE_LOOKUP:
	case FUSE_GETATTR:
	case OPCODE_STATX:
	case FUSE_ACCESS:
	case FUSE_READLINK:
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
	case FUSE_OPENDIR:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
	case FUSE_RELEASEDIR:
	case FUSE_RELEASE:
	case FUSE_FLUSH:
	case FUSE_GETLK:
	case FUSE_SETLK:
	case FUSE_SETLKW: /* it waits without a thread */
	case FUSE_LSEEK:
	case FUSE_STATFS:
		return true;
	case FUSE_OPEN:
		return !(open->flags & O_TRUNC);
	case FUSE_READ:
		return fusefs_read_is_brief(context, (const void *)(in + 1));
	default:
		return false;
	}
}

/* The kernel does not know of what SLOT's request found and opened: it sends it once more. */
static void take_back(void *context, struct session_slot *slot)
{
	struct fusefs *fs = context;

	if (slot->made && slot->made_in == SESSION_FILES)
		fusefs_handle_undo(fs, slot->made);
	if (slot->made && slot->made_in == SESSION_DIRECTORIES)
		fusefs_directory_undo(fs, slot->made);
	slot->made = 0;
	while (slot->counted)
		inode_uncount(fs->inodes, slot);
}

static errint_t open_handles_new(struct fusefs *fs)
{
	uint64_t budget = inode_table_spare(fs->inodes);

	return shares_new(budget, budget / 16, geteuid(), &fs->open_handles);
}

static uint64_t counted_memory(void *context)
{
	struct fusefs_usage usage;

	fusefs_usage(context, &usage);
	return fusefs_memory(&usage);
}

/* Another process opened, in the source, a file that a client has open for writing. */
static void opened_behind(void *context)
{
	struct fusefs *fs = context;

	if (!atomic_exchange(&fs->said_opened, true))
		fuse_log(FUSE_LOG_NOTICE,
			 "a file that is open for writing was opened behind the mount. What it has "
			 "in common with others is not certain any more. This is said once.\n");
}

static int copy_of(int fd)
{
	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static errint_t build(struct fusefs *fs, const struct fusefs_parts *parts)
{
	static const struct serve_callbacks callbacks = {
		.user_of = user_of,
		.is_brief = is_brief,
		.take_back = take_back,
	};
	const struct options *options = parts->options;
	const struct takeover *takeover = parts->takeover;
	errint_t error;

	fs->counters = counters_new();
	if (!fs->counters)
		return -ENOMEM;
	/* Addresses for all memory that there is, so that the pool can grow. */
	error = page_store_new_resizable(options->pool_bytes, memory_machine(), fs->counters,
					 &fs->store);
	if (!error)
		error = page_map_memory_new(fs->store, &fs->map_memory);
	if (!error)
		error = file_table_new(fs->map_memory, options->maps_bytes, &fs->files);
	if (!error)
		error = family_table_new(fs->store, &fs->families);
	if (!error)
		file_table_use_families(fs->files, fs->families);
	if (!error)
		error = filler_init(&fs->filler, fs->store, fs->files, fs->counters);
	if (!error)
		error = fetcher_new(fs->source_fd, &fs->fetcher);
	if (!error)
		error = workers_new(WORKERS, &fs->workers);
	if (!error)
		error = workers_new(1, &fs->closers);
	if (!error)
		error = lease_table_new(opened_behind, fs, &fs->leases);
	if (!error)
		error = locks_new(geteuid(), takeover->memory[SESSION_LOCKS], &fs->locks);
	if (!error)
		error = memory_keeper_new(counted_memory, fs, &fs->keeper);
	if (!error)
		error = serve_new(&callbacks, fs, fs->records, &fs->serve);
	if (!error)
		error = window_new(options->window_bytes, invalidate, fs, &fs->window);
	if (!error)
		error = inode_table_new(fs->source_fd, options->border,
					takeover->memory[SESSION_INODES], &fs->inodes);
	if (!error)
		error = open_handles_new(fs);
	if (!error)
		error = fusefs_handles_new(fs, takeover->memory[SESSION_FILES]);
	if (!error)
		error = fusefs_directories_new(fs, takeover->memory[SESSION_DIRECTORIES]);
	if (!error)
		error = file_table_source(fs->files, fs->source_fd);
	if (!error)
		error = clones_new(fs->files, fs->leases, fs->source_fd, fusefs_open_known,
				   fusefs_kin_found, fs, &fs->clones);
	if (!error)
		error = passthrough_new(copy_of(parts->view_fd), &fs->passthrough);
	if (!error)
		error = plan_new(options, fs->source_fd, fs->passthrough, fs->leases, &fs->plan);
	if (!error)
		inode_table_on_forget(fs->inodes, window_file_forget);
	return error;
}

/* Of what the kernel caches of a file, nothing is noted in the window any more. So it is dropped. */
struct forgetting {
	struct fusefs *fs;
	errint_t error; /* the first one */
};

static void forget_window(void *context, struct inode *inode)
{
	struct forgetting *forgetting = context;
	struct window_file **place = inode_window_file(inode);
	errint_t error = window_file_new(forgetting->fs->window, inode_node(inode), 0, place);

	if (!error)
		window_invalidate_soon(*place);
	else if (!forgetting->error)
		forgetting->error = error;
}

/* Make what an earlier worker left work again. */
static errint_t take_over(struct fusefs *fs)
{
	struct forgetting forgetting = {.fs = fs};
	errint_t error = fusefs_handles_revive(fs);

	if (!error)
		error = fusefs_directories_revive(fs);
	if (!error)
		error = fusefs_locks_revive(fs);
	if (!error)
		inode_table_each_cached(fs->inodes, forget_window, &forgetting);
	return error ? error : forgetting.error;
}

/* Make what an earlier worker left work again, or note what a later one will need. */
static errint_t join_session(struct fusefs *fs, bool continues)
{
	if (continues)
		return take_over(fs);
	fs->records->memory[SESSION_INODES] = slab_memory(inode_table_slab(fs->inodes));
	fs->records->memory[SESSION_FILES] = slab_memory(fs->files_open);
	fs->records->memory[SESSION_DIRECTORIES] = slab_memory(fs->directories_open);
	fs->records->memory[SESSION_LOCKS] = slab_memory(locks_slab(fs->locks));
	return 0;
}

errint_t fusefs_new(const struct fusefs_parts *parts, struct fusefs **ret_fs)
{
	const struct options *options = parts->options;
	struct fusefs *fs = calloc(1, sizeof(*fs));
	errint_t error;

	if (!fs)
		return -ENOMEM;
	fs->source_fd = parts->source_fd;
	fs->transport = options->transport;
	fs->locks_choice = options->locks;
	fusefs_set_timeouts(fs, options);
	fs->read_only = options->read_only;
	CDS_INIT_LIST_HEAD(&fs->handles);
	CDS_INIT_LIST_HEAD(&fs->directories);
	pthread_mutex_init(&fs->handles_lock, NULL);
	pthread_mutex_init(&fs->watch_lock, NULL);
	fs->records = parts->records;
	error = build(fs, parts);
	if (!error)
		error = join_session(fs, session_continues(fs->records));
	if (error) {
		/* What is open is the next worker's. */
		if (!session_continues(fs->records))
			fusefs_free(fs);
		return error;
	}
	fs->cow = (struct cow_break){.store = fs->store, .counters = fs->counters};
	*ret_fs = fs;
	return 0;
}

/* Stop the threads whose calls into the kernel may wait for a request to be answered. */
static void stop_callers(struct fusefs *fs)
{
	fusefs_watch_stop(fs);
	window_stop(fs->window);
}

void fusefs_use_state(struct fusefs *fs, const struct state *state)
{
	plan_use_state(fs->plan, state);
	fs->catalogue = state->catalogue;
	fs->copies = state->copies;
}

void fusefs_leave_source(struct fusefs *fs)
{
	if (fs->window)
		stop_callers(fs);
	memory_keeper_free(fs->keeper);
	source_watch_free(fs->watch);
	/* Handles that clients still had open when the connection ended. */
	fusefs_handles_free(fs);
	fusefs_directories_free(fs);
	workers_free(fs->closers);
	workers_free(fs->workers);
	lease_table_free(fs->leases);
	inode_table_free(fs->inodes);
	passthrough_free(fs->passthrough);
	fs->keeper = NULL;
	fs->watch = NULL;
	fs->closers = NULL;
	fs->workers = NULL;
	fs->leases = NULL;
	fs->inodes = NULL;
	fs->passthrough = NULL;
}

void fusefs_free(struct fusefs *fs)
{
	if (!fs)
		return;
	fusefs_leave_source(fs);
	serve_free(fs->serve);
	window_free(fs->window);
	/* Before the steps below, whose time grows with the number of pages. */
	if (fs->store)
		page_store_end(fs->store);
	clones_free(fs->clones);
	file_table_free(fs->files);
	family_table_free(fs->families);
	page_map_memory_free(fs->map_memory);
	page_store_free(fs->store);
	filler_destroy(&fs->filler);
	fetcher_free(fs->fetcher);
	plan_free(fs->plan);
	slab_free(fs->directories_open);
	slab_free(fs->files_open);
	shares_free(fs->open_handles);
	locks_free(fs->locks);
	counters_free(fs->counters);
	pthread_mutex_destroy(&fs->watch_lock);
	pthread_mutex_destroy(&fs->handles_lock);
	free(fs);
}

void fusefs_finish(struct fusefs *fs)
{
#ifdef FOLD_SANITIZED
	fusefs_free(fs);
#else
	fusefs_leave_source(fs);
	serve_free(fs->serve);
	page_store_end(fs->store);
#endif
}

/* Note what is agreed, or whether it is what an earlier worker agreed to. */
static bool agree(struct session_init *init, const struct fuse_conn_info *conn)
{
	if (init->agreed)
		return init->flags == conn->want_ext && init->max_write == conn->max_write;
	init->flags = conn->want_ext;
	init->max_write = conn->max_write;
	return true;
}

/* Choose who keeps clients' locks. A ring's thread cannot wait for a lock, and only that thread may
 * answer (head of fusefs_lock.c). */
static void init_locks(struct fusefs *fs, struct fuse_conn_info *conn)
{
	bool rings = fuse_get_feature_flag(conn, FUSE_CAP_OVER_IO_URING) &&
		     fs->transport == TRANSPORT_IO_URING;

	if (fs->locks_choice != LOCKS_MOUNT && !rings) {
		atomic_store(&fs->locks_source, true);
		fuse_set_feature_flag(conn, FUSE_CAP_POSIX_LOCKS);
		fuse_set_feature_flag(conn, FUSE_CAP_FLOCK_LOCKS);
		return;
	}
	fuse_unset_feature_flag(conn, FUSE_CAP_POSIX_LOCKS);
	fuse_unset_feature_flag(conn, FUSE_CAP_FLOCK_LOCKS);
	if (fs->locks_choice != LOCKS_MOUNT)
		fuse_log(FUSE_LOG_NOTICE, "locks that clients take hold among the clients of the "
					  "mount alone, because "
					  "of transport=io_uring.\n");
}

/* Agree on features with the kernel. libfuse leaves out those that the kernel does not support. */
static void init(void *userdata, struct fuse_conn_info *conn)
{
	struct fusefs *fs = userdata;
	uint64_t payload = FOLD_REQUEST_BYTES + HEADER_BYTES;

	/* O_TRUNC comes as a setattr, so there is one way to truncate, not two. */
	fuse_unset_feature_flag(conn, FUSE_CAP_ATOMIC_O_TRUNC);
	/* No invalidation by mtime: our own writes change it, and must not cost the cache. With
	 * neither of the two flags, the kernel does what we want: a change behind the mount drops
	 * the cache at the next open, or when a size shows that the client did not make. */
	fuse_unset_feature_flag(conn, FUSE_CAP_AUTO_INVAL_DATA);
	fuse_unset_feature_flag(conn, FUSE_CAP_EXPLICIT_INVAL_DATA);
	/* The source file system applies umask and default ACLs. */
	fuse_set_feature_flag(conn, FUSE_CAP_DONT_MASK);
	fuse_set_feature_flag(conn, FUSE_CAP_POSIX_ACL);
	fuse_set_feature_flag(conn, FUSE_CAP_PARALLEL_DIROPS);
	fuse_set_feature_flag(conn, FUSE_CAP_CACHE_SYMLINKS);
	/* A write request says itself if it has to clear set-id bits, so no getxattr comes before
	 * each write. */
	fuse_set_feature_flag(conn, FUSE_CAP_HANDLE_KILLPRIV_V2);
	/* Node ids cannot be found again once forgotten. */
	fuse_set_feature_flag(conn, FUSE_CAP_NO_EXPORT_SUPPORT);
	init_locks(fs, conn);
	plan_init(fs->plan, conn);
	conn->max_write = FOLD_REQUEST_BYTES;
	conn->max_readahead = FOLD_REQUEST_BYTES;
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = BACKGROUND_ENOUGH;
	if (fuse_get_feature_flag(conn, FUSE_CAP_OVER_IO_URING) &&
	    fs->transport == TRANSPORT_IO_URING)
		atomic_store(&fs->rings_bytes, payload * RING_DEPTH * (uint64_t)get_nprocs_conf());
	fs->agrees = agree(&fs->records->init, conn);
	atomic_store(&fs->begun, true);
}

const struct fuse_lowlevel_ops fusefs_operations = {
	.init = init,
	.lookup = fusefs_lookup,
	.forget = fusefs_forget,
	.forget_multi = fusefs_forget_multi,
	.getattr = fusefs_getattr,
	.statx = fusefs_statx,
	.setattr = fusefs_setattr,
	.readlink = fusefs_readlink,
	.mknod = fusefs_mknod,
	.mkdir = fusefs_mkdir,
	.unlink = fusefs_unlink,
	.rmdir = fusefs_rmdir,
	.symlink = fusefs_symlink,
	.rename = fusefs_rename,
	.link = fusefs_link,
	.open = fusefs_open,
	.create = fusefs_create,
	.tmpfile = fusefs_tmpfile,
	.read = fusefs_read,
	.write = fusefs_write,
	.flush = fusefs_flush,
	.release = fusefs_release,
	.fsync = fusefs_fsync,
	.opendir = fusefs_opendir,
	.readdir = fusefs_readdir,
	.readdirplus = fusefs_readdirplus,
	.releasedir = fusefs_releasedir,
	.fsyncdir = fusefs_fsyncdir,
	.statfs = fusefs_statfs,
	.setxattr = fusefs_setxattr,
	.getxattr = fusefs_getxattr,
	.listxattr = fusefs_listxattr,
	.removexattr = fusefs_removexattr,
	.fallocate = fusefs_fallocate,
	.lseek = fusefs_lseek,
	.copy_file_range = fusefs_copy_file_range,
	/* With locks=mount the kernel does not send these three. */
	.getlk = fusefs_getlk,
	.setlk = fusefs_setlk,
	.flock = fusefs_flock,
};

static errint_t start_threads(struct fusefs *fs)
{
	errint_t error = page_store_start(fs->store);

	if (!error)
		error = inode_table_start(fs->inodes);
	if (!error)
		error = workers_start(fs->workers);
	if (!error)
		error = workers_start(fs->closers);
	if (!error)
		error = lease_table_start(fs->leases);
	if (!error)
		error = locks_start(fs->locks);
	if (!error)
		error = memory_keeper_start(fs->keeper);
	if (!error)
		fetcher_start(fs->fetcher);
	return error;
}

/* Start the threads whose calls into the kernel may wait for a request to be answered: see
 * stop_callers(). */
static errint_t start_callers(struct fusefs *fs)
{
	errint_t error = window_start(fs->window);

	return error ? error : fusefs_watch_start(fs);
}

/* What the kernel says first. A successor says the same as the first worker, and has to agree to the
 * same. The kernel does not take that answer, and does not need it. */
static errint_t begin_session(struct fusefs *fs)
{
	struct session_init *init = &fs->records->init;
	const struct fuse_buf request = {.size = init->bytes, .mem = init->request};

	fs->agrees = true;
	fuse_session_process_buf(fs->session, &request);
	init->agreed = true;
	return fs->agrees ? 0 : -EPROTO;
}

/* Have the kernel send all requests once more that were not answered (FUSE_NOTIFY_RESEND). It takes
 * back those that this process would have in hand, too, so it is done before any is read. */
static errint_t ask_again(const struct fusefs *fs)
{
	const struct fuse_out_header resend = {.len = sizeof(resend), .error = NOTIFY_RESEND};

	return write(fs->records->device, &resend, sizeof(resend)) == sizeof(resend) ? 0 : -errno;
}

/* Before any request is read. */
static errint_t begin(struct fusefs *fs)
{
	errint_t error = start_threads(fs);

	if (!error)
		error = begin_session(fs);
	if (!error)
		error = start_callers(fs);
	if (error || !session_continues(fs->records))
		return error;
	fusefs_settle_plans(fs);
	return ask_again(fs);
}

errint_t fusefs_serve(struct fusefs *fs, struct fuse_session *se, void (*ready)(void *context),
		      void *context)
{
	errint_t error;

	fs->session = se;
	passthrough_session(fs->passthrough, fuse_session_fd(se), &fs->records->last_backing);
	error = begin(fs);
	if (!error)
		error = serve_run(fs->serve, se, ready, context);
	/* An aborted connection has ended like an unmounted one. Linux returns ENODEV to most
	 * threads, as after an unmount. It returns ECONNABORTED to a thread that was just being
	 * given a request (fuse_dev_do_read() in fs/fuse/dev.c). */
	if (error == -ECONNABORTED)
		error = 0;
	/* A successor has those who wait come once more. */
	if (!atomic_load(&fs->hands_over))
		locks_stop(fs->locks);
	workers_end(fs->closers);
	workers_end(fs->workers);
	/* From here on no thread hands over anything. */
	fetcher_stop(fs->fetcher);
	if (!error && atomic_load(&fs->hands_over))
		fusefs_handles_keep_kin(fs);
	return error;
}

void fusefs_end(struct fusefs *fs)
{
	serve_end(fs->serve);
}

void fusefs_hand_over(struct fusefs *fs)
{
	atomic_store(&fs->hands_over, true);
	serve_end(fs->serve);
}

void fusefs_quiesce(struct fusefs *fs)
{
	stop_callers(fs);
}

const char *fusefs_transport(const struct fusefs *fs)
{
	if (atomic_load_explicit(&fs->uses_io_uring, memory_order_relaxed))
		return "io_uring";
	return atomic_load(&fs->begun) ? "dev" : "none";
}

const char *fusefs_locks(const struct fusefs *fs)
{
	if (!atomic_load(&fs->begun))
		return "none";
	return atomic_load(&fs->locks_source) ? "source" : "mount";
}

const struct counters *fusefs_stats(const struct fusefs *fs)
{
	return fs->counters;
}

void fusefs_usage(const struct fusefs *fs, struct fusefs_usage *ret_usage)
{
	struct locks_usage locks;

	page_store_usage(fs->store, &ret_usage->store);
	window_usage(fs->window, &ret_usage->window);
	ret_usage->zero_pages = page_map_memory_zero_pages(fs->map_memory);
	ret_usage->maps_bytes = page_map_memory_bytes(fs->map_memory) +
				file_table_bytes(fs->files) + family_table_bytes(fs->families) +
				clones_bytes(fs->clones);
	ret_usage->clones_found = clones_found(fs->clones);
	plan_equal(fs->plan, &ret_usage->equal);
	ret_usage->no_passthrough = plan_unable(fs->plan);
	ret_usage->window_inodes = plan_inodes(fs->plan, PLAN_WINDOW);
	ret_usage->own_inodes = plan_inodes(fs->plan, PLAN_OWN);
	ret_usage->shared_inodes = plan_inodes(fs->plan, PLAN_SHARED);
	lease_table_usage(fs->leases, &ret_usage->leases);
	locks_usage(fs->locks, &locks);
	ret_usage->locks_held = locks.held;
	ret_usage->locks_waiting = locks.waiting;
	ret_usage->locks_bytes = locks.bytes;
	ret_usage->inodes = inode_table_count(fs->inodes);
	ret_usage->inodes_bytes = inode_table_bytes(fs->inodes) + ret_usage->equal.memory_bytes;
	ret_usage->open_handles = shares_taken(fs->open_handles);
	ret_usage->handles_bytes = slab_bytes(fs->files_open) + slab_bytes(fs->directories_open) +
				   atomic_load_explicit(&fs->handles_bytes, memory_order_relaxed);
	serve_usage(fs->serve, &ret_usage->serve);
	ret_usage->fetching = fetcher_taken(fs->fetcher);
	ret_usage->transport_bytes = atomic_load(&fs->rings_bytes) + ret_usage->serve.bytes +
				     fetcher_bytes(fs->fetcher) +
				     ret_usage->fetching * fusefs_reading_bytes();
}
