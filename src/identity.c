/* SPDX-License-Identifier: Apache-2.0 */
/*
 * identity.c - do something on the source as the caller would
 *
 * Invariants:
 *  - Only the effective uid and gid of one thread change, never the real or saved ones: the caller
 *    can neither signal nor trace the daemon meanwhile, and the way back is always open.
 *  - A thread that is not between assume and restore has the daemon's own identity and no
 *    supplementary groups.
 *
 * The effective uid is taken rather than the file-system uid alone, because leaving uid 0 so drops
 * every effective capability: CAP_FSETID, CAP_SYS_RESOURCE and whatever is added to Linux later.
 * What must stay is put back by name.
 */
#include "foldfs/identity.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GROUPS_ON_STACK 64
#define KEPT_CAPABILITIES                                                                          \
	(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_FOWNER | 1u << CAP_MKNOD)

/* What a thread has to be prepared for once. */
struct thread_identity {
	bool prepared;
	bool root;   /* can take on another identity */
	gid_t gid;   /* the daemon's */
	bool groups; /* can take on other groups */
	bool sees;   /* /proc tells of callers */
	struct __user_cap_data_struct kept[_LINUX_CAPABILITY_U32S_3]; /* while another */
};

/* Of the calling thread alone. */
static __thread struct thread_identity thread_identity;

static errint_t set_uid(uid_t uid)
{
	return syscall(SYS_setresuid, -1, uid, -1) < 0 ? -errno : 0;
}

static errint_t set_gid(gid_t gid)
{
	return syscall(SYS_setresgid, -1, gid, -1) < 0 ? -errno : 0;
}

static errint_t set_groups(int count, const gid_t *groups)
{
	return syscall(SYS_setgroups, count, groups) < 0 ? -errno : 0;
}

static errint_t set_kept_capabilities(struct thread_identity *self)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};

	return syscall(SYS_capset, &header, self->kept) < 0 ? -errno : 0;
}

/* The capabilities to keep: those named, as far as the daemon has them. */
static errint_t read_capabilities(struct thread_identity *self)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};

	if (syscall(SYS_capget, &header, self->kept) < 0)
		return -errno;
	self->kept[0].effective = self->kept[0].permitted & KEPT_CAPABILITIES;
	for (unsigned index = 1; index < _LINUX_CAPABILITY_U32S_3; index++)
		self->kept[index].effective = 0;
	return 0;
}

/* Whether /proc is that of our own pid namespace, which requests name their callers in. In another
 * one's, the same number is somebody else. */
static bool proc_is_ours(void)
{
	char line[128];
	FILE *status = fopen("/proc/thread-self/status", "re");
	bool ours = status != NULL;

	/* Our number in that namespace, and in each one below it down to ours. */
	while (status && fgets(line, sizeof(line), status))
		if (!strncmp(line, "NSpid:\t", 7))
			ours = !strchr(line + 7, '\t');
	if (status)
		fclose(status);
	return ours;
}

/* A umask of its own, and none of the groups that the daemon was started with. */
static errint_t thread_prepare(struct thread_identity *self)
{
	if (self->prepared)
		return 0;
	if (unshare(CLONE_FS) < 0)
		return -errno;
	self->root = geteuid() == 0;
	self->gid = getegid();
	self->sees = proc_is_ours();
	if (self->root) {
		errint_t error = read_capabilities(self);

		if (error)
			return error;
		/* Not allowed in some user namespaces: then groups stay as they are. */
		self->groups = set_groups(0, NULL) == 0;
	}
	self->prepared = true;
	return 0;
}

/*
 * Whether the caller's groups can make a difference in the directory. They cannot for its owner,
 * whom the owner's permissions alone concern, unless it is set-gid: there, who is not in its group
 * loses the set-gid bit of an executable file.
 */
static bool groups_matter(const struct fuse_ctx *ctx, int directory_fd)
{
	struct stat st;

	if (ctx->uid == 0)
		return false;
	if (directory_fd < 0 || fstat(directory_fd, &st) < 0)
		return true;
	return st.st_uid != ctx->uid || (st.st_mode & S_ISGID);
}

/*
 * The caller's supplementary groups: in LIST, or in a new array if they are more. A caller that is
 * not to be found (killed, or in a pid namespace that we do not see) has none. -ENOMEM.
 */
static errint_t read_groups(const struct thread_identity *self, fuse_req_t req,
			    gid_t list[GROUPS_ON_STACK], gid_t **ret_groups, int *ret_count)
{
	int count = self->sees ? fuse_req_getgroups(req, GROUPS_ON_STACK, list) : 0;
	gid_t *groups = list;

	if (count > GROUPS_ON_STACK) {
		int capacity = count;

		groups = calloc((size_t)capacity, sizeof(gid_t));
		if (!groups)
			return -ENOMEM;
		count = fuse_req_getgroups(req, capacity, groups);
		if (count > capacity)
			count = capacity;
	}
	*ret_groups = groups;
	*ret_count = count > 0 ? count : 0;
	return 0;
}

static errint_t assume_groups(fuse_req_t req, const struct thread_identity *self,
			      struct identity *identity)
{
	gid_t on_stack[GROUPS_ON_STACK];
	gid_t *groups;
	int count;
	errint_t error = read_groups(self, req, on_stack, &groups, &count);

	if (error)
		return error;
	if (count > 0)
		error = set_groups(count, groups);
	identity->groups_assumed = count > 0 && !error;
	if (groups != on_stack)
		free(groups);
	return error;
}

bool identity_in_group(fuse_req_t req, gid_t gid)
{
	struct thread_identity *self = &thread_identity;
	gid_t on_stack[GROUPS_ON_STACK];
	bool found = fuse_req_ctx(req)->gid == gid;
	gid_t *groups;
	int count;

	if (found || thread_prepare(self) < 0 ||
	    read_groups(self, req, on_stack, &groups, &count) < 0)
		return found;
	for (int index = 0; index < count && !found; index++)
		found = groups[index] == gid;
	if (groups != on_stack)
		free(groups);
	return found;
}

static errint_t assume_ids(fuse_req_t req, int directory_fd, struct thread_identity *self,
			   struct identity *identity)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	errint_t error = 0;

	/* (uid_t)-1 would mean "as it is": never let it through. */
	if (ctx->uid == (uid_t)-1 || ctx->gid == (gid_t)-1)
		return -EOVERFLOW;
	if (self->groups && groups_matter(ctx, directory_fd))
		error = assume_groups(req, self, identity);
	if (!error && ctx->gid != self->gid) {
		error = set_gid(ctx->gid);
		identity->gid_assumed = !error;
	}
	if (!error && ctx->uid != 0) {
		error = set_uid(ctx->uid);
		identity->uid_assumed = !error;
		if (!error)
			error = set_kept_capabilities(self);
	}
	return error;
}

errint_t identity_assume(fuse_req_t req, int directory_fd, struct identity *ret_identity)
{
	struct thread_identity *self = &thread_identity;
	struct identity identity = {0};
	errint_t error = thread_prepare(self);

	if (error)
		return error;
	identity.umask = umask(fuse_req_ctx(req)->umask & 0777);
	if (self->root)
		error = assume_ids(req, directory_fd, self, &identity);
	if (error)
		identity_restore(&identity);
	else
		*ret_identity = identity;
	return error;
}

void identity_restore(const struct identity *identity)
{
	/* Back to uid 0 first: it brings the capabilities for the rest. */
	if ((identity->uid_assumed && set_uid(0) < 0) ||
	    (identity->gid_assumed && set_gid(thread_identity.gid) < 0) ||
	    (identity->groups_assumed && set_groups(0, NULL) < 0))
		abort();
	umask(identity->umask);
}
