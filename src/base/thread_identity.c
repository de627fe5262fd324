/* SPDX-License-Identifier: Apache-2.0 */
/*
 * thread_identity.c - do something on the source as the caller would
 *
 * Invariants:
 * - Only the file-system uid and gid, the supplementary groups and the effective capabilities of
 *   one thread change. The permitted capabilities and the other uids stay. So the way back is
 *   always open, and callers can neither signal, trace nor slow down the daemon meanwhile.
 * - A thread that is its own (identity_is_own) has uid 0, OWN and no supplementary groups. Every
 *   other thread has the identity that its struct thread_identity says.
 * - With another uid than 0 a thread has none of OF_FILES, unless a caller has it.
 *
 * Each change of credentials costs 2 us, which is a tenth of the whole cost of a small request. So:
 * - Capabilities change with the uid. The kernel takes away the file-system ones when uid 0 is
 *   given up, and gives them back with it. Two others count on a file system (BEYOND_UID). No
 *   thread has these at rest; a request of root's gets them when it is refused without.
 * - The gid stays that of the last caller. With uid 0 it determines only the group of a new file,
 *   and every operation that makes a file for root sets it. For a caller that is not root the
 *   thread's gid is never left at 0, not even where groups cannot matter: the mode may change in
 *   the meantime.
 * - A thread that was started by a lent thread has that thread's identity and does not know it. Its
 *   first use (identity_make_own()) gives each thread its own.
 *
 * setfsuid(2) does not tell whether it failed, so the result is read back. So no operation is ever
 * made under the wrong uid.
 */
#include "foldfs/thread_identity.h"

#include "foldfs/proc_fd.h"

#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define GROUPS_ON_STACK 64
#define BIT(capability) (UINT64_C(1) << (capability))
#define ALL             UINT64_MAX
/* The uid and gid that Linux shows for users and groups that have no number here. */
#define NOBODY 65534u

/* The capabilities that the kernel takes from a thread that changes from uid 0 to another, and
 * gives back with uid 0 (CAP_FS_SET, kernel/capability.c). */
#define BY_UID                                                                                     \
	(BIT(CAP_CHOWN) | BIT(CAP_MKNOD) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) |      \
	 BIT(CAP_FOWNER) | BIT(CAP_FSETID) | BIT(CAP_LINUX_IMMUTABLE) | BIT(CAP_MAC_OVERRIDE))
/* Other capabilities that count on a file system: for blocks and quota that are root's, and for
 * file capabilities. CAP_SYS_ADMIN counts for xattrs (trusted and security); for those the kernel
 * has checked the caller's credentials before the request. The daemon's other capabilities do not
 * count there. */
#define BEYOND_UID (BIT(CAP_SYS_RESOURCE) | BIT(CAP_SETFCAP))
#define OF_FILES   (BY_UID | BEYOND_UID)
/* What a thread has at rest, of the capabilities that the daemon has. */
#define OWN (ALL & ~BEYOND_UID)
/* Capabilities that stand for the kernel's permission check, where that check is all that is known
 * of a caller. */
#define KERNEL_DECIDED                                                                             \
	(BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_FOWNER) | BIT(CAP_MKNOD))
/* What the root of a user namespace may use on objects that are mapped there. */
#define OF_NAMESPACE                                                                               \
	(BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_FSETID) |     \
	 BIT(CAP_SETFCAP))

/* Facts about the whole process, found out once. Later a look into /proc may fail for want of
 * descriptors, and nobody's rights may depend on that. */
static struct {
	bool sees;      /* /proc shows the callers */
	bool outermost; /* our user namespace has every id, unchanged */
} surroundings;
static pthread_once_t surroundings_once = PTHREAD_ONCE_INIT;

/* What a thread's credentials are, and what it may become. */
struct thread_identity {
	bool prepared;      /* the fields up to the blank line are known, and constant */
	bool able;          /* can take on another identity */
	bool groups_able;   /* can take on other groups */
	uint64_t permitted; /* capabilities */

	uid_t uid; /* the file-system uid: what the thread has now */
	gid_t gid;
	bool groups;
	uint64_t effective;
	bool umask_apart; /* it has an umask of its own */
	mode_t umask;     /* valid if umask_apart */
};

__thread bool identity_is_own;

/* Of the calling thread alone. */
static __thread struct thread_identity self;

/* ---- the thread's own credentials ---- */

/* The capabilities change with the uid. */
static errint_t set_uid(uid_t uid)
{
	if (self.uid == uid)
		return 0;
	(void)syscall(SYS_setfsuid, uid);
	if ((uid_t)syscall(SYS_setfsuid, -1) != uid)
		return -EPERM;
	if (!self.uid)
		self.effective &= ~BY_UID;
	if (!uid)
		self.effective |= self.permitted & BY_UID;
	self.uid = uid;
	return 0;
}

static errint_t set_gid(gid_t gid)
{
	if (self.gid == gid)
		return 0;
	(void)syscall(SYS_setfsgid, gid);
	if ((gid_t)syscall(SYS_setfsgid, -1) != gid)
		return -EPERM;
	self.gid = gid;
	return 0;
}

static errint_t set_groups(int count, const gid_t *groups)
{
	if (syscall(SYS_setgroups, count, groups) < 0)
		return -errno;
	self.groups = count > 0;
	return 0;
}

/* Set those of WANTED that the daemon has. */
static errint_t set_capabilities(uint64_t wanted)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	uint64_t effective = wanted & self.permitted;
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
		{.effective = (uint32_t)effective, .permitted = (uint32_t)self.permitted},
		{.effective = (uint32_t)(effective >> 32),
		 .permitted = (uint32_t)(self.permitted >> 32)},
	};

	if (self.effective == effective)
		return 0;
	if (syscall(SYS_capset, &header, data) < 0)
		return -errno;
	self.effective = effective;
	return 0;
}

/* Read what the thread has: a lent thread may have started it. */
static void read_self(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	(void)syscall(SYS_capget, &header, data);
	self.permitted = (uint64_t)data[1].permitted << 32 | data[0].permitted;
	self.effective = (uint64_t)data[1].effective << 32 | data[0].effective;
	self.uid = (uid_t)syscall(SYS_setfsuid, -1);
	self.gid = (gid_t)syscall(SYS_setfsgid, -1);
}

/* ---- what /proc says ---- */

/* The value after KEY ("Name:\t") in the file at PATH, on one line of it. */
static bool read_value(const char *path, const char *key, char *value, size_t size)
{
	char line[256];
	size_t length = strlen(key);
	FILE *file = fopen(path, "re");
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file)) {
		found = strncmp(line, key, length) == 0;
		if (found)
			snprintf(value, size, "%s", line + length);
	}
	if (file)
		fclose(file);
	return found;
}

/* Whether /proc shows our own pid namespace. Requests name their callers in that. In another
 * namespace the same number is another process. */
static bool proc_is_ours(void)
{
	char value[128];

	/* NSpid lists our number in the namespace of /proc, and in each one below it down to
	 * ours. */
	return read_value("/proc/thread-self/status", "NSpid:\t", value, sizeof(value)) &&
	       !strchr(value, '\t');
}

/* Whether the map of ids at PATH has ID, which is a number of our own namespace. */
static bool map_has(const char *path, uint64_t id)
{
	unsigned long long inside, first, count;
	FILE *file = fopen(path, "re");
	bool has = false;

	while (file && !has && fscanf(file, "%llu %llu %llu", &inside, &first, &count) == 3)
		has = id >= first && id - first < count;
	if (file)
		fclose(file);
	return has;
}

/* Whether the map at PATH belongs to a namespace with every id, unchanged. That is the outermost
 * one, or one that cannot be told from it. */
static bool map_is_whole(const char *path)
{
	unsigned long long inside, first, count;
	FILE *file = fopen(path, "re");
	bool whole = file && fscanf(file, "%llu %llu %llu", &inside, &first, &count) == 3 &&
		     inside == 0 && first == 0 && count == UINT32_MAX;

	if (file)
		fclose(file);
	return whole;
}

/* ---- a thread for the first time ---- */

static void look_around(void)
{
	surroundings.sees = proc_is_ours();
	surroundings.outermost = map_is_whole("/proc/self/uid_map");
}

static void prepare(void)
{
	pthread_once(&surroundings_once, look_around);
	read_self();
	/* Without CAP_SETUID taking on an identity fails for each caller, which is right. */
	self.able = geteuid() == 0;
	self.prepared = true;
}

void identity_make_own_slowly(void)
{
	bool first = !self.prepared;

	if (first)
		prepare();
	if (self.able) {
		if (set_uid(0) || set_capabilities(OWN) || (first && set_gid(getegid())))
			abort();
		/* Drop the groups that the daemon was started with. Some user namespaces do not
		 * allow that; then groups stay as they are. */
		if (first)
			self.groups_able = set_groups(0, NULL) == 0;
		else if (self.groups && set_groups(0, NULL))
			abort();
	}
	identity_is_own = true;
}

void identity_restore(void)
{
	identity_make_own();
}

void identity_leave_lent(void)
{
	if (self.groups || self.effective & OF_FILES)
		identity_make_own();
}

/* ---- callers ---- */

static bool has_acl(int fd)
{
	char path[PROC_FD_BYTES];

	return getxattr(proc_fd(path, fd), "system.posix_acl_access", NULL, 0) > 0;
}

bool identity_groups_matter(fuse_req_t req, int fd)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct stat st;

	if (fstat(fd, &st) < 0)
		return true;
	if (st.st_mode & S_ISGID)
		return true;
	if (st.st_uid == ctx->uid)
		return false;
	return (st.st_mode >> 3 & 7) != (st.st_mode & 7) || has_acl(fd);
}

/* Take on the caller's supplementary groups. -ENOMEM. */
static errint_t assume_groups(fuse_req_t req)
{
	gid_t on_stack[GROUPS_ON_STACK];
	gid_t *groups = on_stack;
	int count = fuse_req_getgroups(req, GROUPS_ON_STACK, on_stack);
	errint_t error = 0;

	if (count > GROUPS_ON_STACK) {
		int capacity = count;

		groups = calloc((size_t)capacity, sizeof(gid_t));
		if (!groups)
			return -ENOMEM;
		count = fuse_req_getgroups(req, capacity, groups);
		if (count > capacity)
			count = capacity;
	}
	if (count > 0)
		error = set_groups(count, groups);
	if (groups != on_stack)
		free(groups);
	return error;
}

/* The thread is its own, and able; UID is not 0. */
static errint_t assume_ids(fuse_req_t req, uid_t uid, gid_t gid, bool groups)
{
	bool known = surroundings.sees && fuse_req_ctx(req)->pid;
	errint_t error = 0;

	identity_is_own = false;
	if (groups && known && self.groups_able)
		error = assume_groups(req);
	if (!error)
		error = set_gid(gid);
	if (!error)
		error = set_uid(uid);
	/* If the caller's groups cannot be known, rely on the kernel, which let the request
	 * through. */
	if (!error && groups && !known)
		error = set_capabilities(self.effective | KERNEL_DECIDED);
	return error;
}

/* Whether the thread already has the caller's identity, without groups and capabilities. */
static bool is_lent_to(const struct fuse_ctx *ctx)
{
	return !identity_is_own && self.able && ctx->uid && self.uid == ctx->uid &&
	       self.gid == ctx->gid && !self.groups && !(self.effective & OF_FILES);
}

errint_t identity_assume(fuse_req_t req, int fd, bool groups, struct identity *ret_identity)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	errint_t error = 0;

	*ret_identity = (struct identity){
		.req = req,
		.fd = fd,
		.other_fd = -1,
		.victims = {{.directory_fd = -1}, {.directory_fd = -1}},
	};
	groups = ctx->uid && (groups || identity_groups_matter(req, fd));
	if (is_lent_to(ctx) && !groups)
		return 0;
	identity_make_own();
	if (!self.able)
		return 0;
	/* (uid_t)-1 would mean "unchanged": never let it through. */
	if (ctx->uid == (uid_t)-1 || ctx->gid == (gid_t)-1)
		return -EOVERFLOW;
	if (!ctx->uid)
		return set_gid(ctx->gid);
	error = assume_ids(req, ctx->uid, ctx->gid, groups);
	if (error)
		identity_restore();
	return error;
}

void identity_takes(struct identity *identity, int directory_fd, const char *name)
{
	unsigned next = identity->victims[0].directory_fd >= 0;

	identity->victims[next] =
		(struct identity_victim){.directory_fd = directory_fd, .name = name};
	identity->other_fd = directory_fd;
}

errint_t identity_take_umask(fuse_req_t req)
{
	mode_t wanted = fuse_req_ctx(req)->umask & 0777;

	if (!self.umask_apart && unshare(CLONE_FS) < 0)
		return -errno;
	if (!self.umask_apart || self.umask != wanted)
		umask(wanted);
	self.umask_apart = true;
	self.umask = wanted;
	return 0;
}

/* ---- capabilities of callers ---- */

/* The caller's effective capabilities, in whatever namespace. 0: none, or they cannot be known. */
static uint64_t read_effective(pid_t pid)
{
	char path[48];
	char value[64];

	if (!surroundings.sees || pid <= 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	return read_value(path, "CapEff:\t", value, sizeof(value)) ? strtoull(value, NULL, 16) : 0;
}

static bool is_outermost(pid_t pid)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	return map_is_whole(path);
}

/* Whether owner and group of ST are mapped in the caller's user namespace. */
static bool is_mapped(pid_t pid, const struct stat *st)
{
	char path[48];
	bool has;

	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	has = map_has(path, st->st_uid);
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	return has && map_has(path, st->st_gid);
}

static bool is_mapped_fd(pid_t pid, int fd)
{
	struct stat st;

	return fd < 0 || (!fstat(fd, &st) && is_mapped(pid, &st));
}

/* A victim that does not exist is not removed, so it does not matter. */
static bool is_mapped_victim(pid_t pid, const struct identity_victim *victim)
{
	struct stat st;

	if (victim->directory_fd < 0)
		return true;
	if (fstatat(victim->directory_fd, victim->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT;
	return is_mapped(pid, &st);
}

/* What a caller in a user namespace may use on the objects of the operation. CAP_FOWNER only if the
 * removed objects are mapped too (a sticky directory asks for it on what is removed). */
static uint64_t usable_in_namespace(const struct identity *identity, pid_t pid)
{
	uint64_t usable;

	if (!is_mapped_fd(pid, identity->fd) || !is_mapped_fd(pid, identity->other_fd))
		return 0;
	usable = OF_NAMESPACE;
	if (is_mapped_victim(pid, &identity->victims[0]) &&
	    is_mapped_victim(pid, &identity->victims[1]))
		usable |= BIT(CAP_FOWNER);
	return usable;
}

static bool is_refusal(ssize_t result)
{
	return result == -EPERM || result == -EACCES || result == -ENOSPC || result == -EDQUOT;
}

/* Capabilities that root's requests do without until they are refused. */
static bool insist_as_root(void)
{
	uint64_t missing = self.permitted & BEYOND_UID & ~self.effective;

	if (!missing)
		return false;
	identity_is_own = false;
	return !set_capabilities(self.effective | missing);
}

bool identity_insist(struct identity *identity, ssize_t result)
{
	uint64_t usable;
	pid_t pid;

	if (identity->insisted || !self.able || !is_refusal(result))
		return false;
	identity->insisted = true;
	if (!self.uid)
		return insist_as_root();
	if (!identity->req || !surroundings.outermost)
		return false;
	pid = fuse_req_ctx(identity->req)->pid;
	usable = read_effective(pid);
	if (usable && !is_outermost(pid))
		usable &= usable_in_namespace(identity, pid);
	/* Capabilities that the thread already has did not help. */
	usable &= self.permitted & ~self.effective;
	return usable && !set_capabilities(usable | self.effective);
}

bool identity_has_capability(fuse_req_t req, unsigned capability)
{
	pid_t pid = fuse_req_ctx(req)->pid;

	identity_make_own();
	return surroundings.outermost && read_effective(pid) & BIT(capability) && is_outermost(pid);
}

/* ---- content ---- */

errint_t identity_lend(uid_t uid, gid_t gid, bool keep_set_id, struct identity *ret_identity)
{
	uint64_t wanted = OWN & (uid ? ~BY_UID : ~BIT(CAP_FSETID));
	errint_t error = 0;

	*ret_identity = (struct identity){0};
	if (keep_set_id)
		wanted |= BIT(CAP_FSETID);
	if (!self.prepared)
		identity_make_own();
	if (!self.able)
		return 0;
	if (uid == (uid_t)-1 || gid == (gid_t)-1)
		return -EOVERFLOW;
	if (self.uid == uid && self.gid == gid && !self.groups &&
	    self.effective == (wanted & self.permitted))
		return 0;
	identity_make_own();
	identity_is_own = false;
	error = set_gid(gid);
	if (!error)
		error = set_uid(uid);
	if (!error)
		error = set_capabilities(wanted);
	if (error)
		identity_restore();
	return error;
}

errint_t identity_give_up_rights(void)
{
	errint_t error;

	if (!self.prepared)
		identity_make_own();
	if (!self.able || (self.uid && !self.groups && !(self.effective & OF_FILES)))
		return 0;
	identity_make_own();
	identity_is_own = false;
	error = set_gid(NOBODY);
	if (!error)
		error = set_uid(NOBODY);
	if (error)
		identity_restore();
	return error;
}
