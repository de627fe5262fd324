/* SPDX-License-Identifier: Apache-2.0 */
/*
 * privileges.c - what a process gives up before it serves people who do not trust each other
 *
 * Capabilities belong to a thread. Those that are dropped before the first thread is made, no
 * thread has. So the daemon drops capabilities before it mounts, though it needs most of those it
 * has for mounting too.
 *
 * Changes between users work in the usual way. A root thread that takes on a user loses effective
 * capabilities, keeps the permitted ones, and gets the effective ones back with uid 0.
 * thread_identity.c relies on that.
 */
#include "foldfs/privileges.h"

#include <errno.h>
#include <linux/securebits.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Indexed by number, which the kernel never changes. */
static const char *const names[] = {
	"chown",
	"dac_override",
	"dac_read_search",
	"fowner",
	"fsetid",
	"kill",
	"setgid",
	"setuid",
	"setpcap",
	"linux_immutable",
	"net_bind_service",
	"net_broadcast",
	"net_admin",
	"net_raw",
	"ipc_lock",
	"ipc_owner",
	"sys_module",
	"sys_rawio",
	"sys_chroot",
	"sys_ptrace",
	"sys_pacct",
	"sys_admin",
	"sys_boot",
	"sys_nice",
	"sys_resource",
	"sys_time",
	"sys_tty_config",
	"mknod",
	"lease",
	"audit_write",
	"audit_control",
	"setfcap",
	"mac_override",
	"mac_admin",
	"syslog",
	"wake_alarm",
	"block_suspend",
	"audit_read",
	"perfmon",
	"bpf",
	"checkpoint_restore",
};
#define NAMES (sizeof(names) / sizeof(names[0]))
/* Later kernels may have more capabilities, up to this number. They are dropped like the rest. */
#define CAPABILITIES 64u

typedef struct __user_cap_data_struct capability_words[_LINUX_CAPABILITY_U32S_3];

static errint_t get_words(capability_words words)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};

	return syscall(SYS_capget, &header, words) < 0 ? -errno : 0;
}

/* Set EFFECTIVE and PERMITTED. EFFECTIVE must not exceed PERMITTED. */
static errint_t set_words(uint64_t effective, uint64_t permitted)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	capability_words words = {0};

	for (unsigned word = 0; word < _LINUX_CAPABILITY_U32S_3; word++) {
		words[word].effective = (uint32_t)(effective >> 32 * word);
		words[word].permitted = (uint32_t)(permitted >> 32 * word);
	}
	return syscall(SYS_capset, &header, words) < 0 ? -errno : 0;
}

static uint64_t permitted_of(const capability_words words)
{
	return words[0].permitted | (uint64_t)words[1].permitted << 32;
}

static bool is_bounding(unsigned capability)
{
	return prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1;
}

void privileges_begin(void)
{
	const struct rlimit no_core = {0};

	/* Neither fails with these arguments. */
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	(void)setrlimit(RLIMIT_CORE, &no_core);
}

errint_t privileges_keep(uint64_t set)
{
	capability_words words;
	errint_t error = get_words(words);
	uint64_t permitted = permitted_of(words);

	if (error)
		return error;
	/* Without CAP_SETPCAP the bounding set has to stay. The process cannot reach capabilities
	 * that it does not have. */
	for (unsigned capability = 0; capability < CAPABILITIES; capability++)
		if (!(set & PRIVILEGE(capability)) && is_bounding(capability) &&
		    (permitted & PRIVILEGE(CAP_SETPCAP)) &&
		    prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
			return -errno;
	return set_words(permitted & set, permitted & set);
}

/* Whether /proc hides others' processes from a process without CAP_SYS_PTRACE. */
static bool proc_hides(void)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	const struct mntent *entry;
	bool hides = false;

	/* A later mount covers earlier ones. */
	while (mounts && (entry = getmntent(mounts)))
		if (!strcmp(entry->mnt_dir, "/proc"))
			hides = hasmntopt(entry, "hidepid") != NULL;
	if (mounts)
		endmntent(mounts);
	return hides;
}

/* Make a change of uid change the capabilities, however the process was started. */
static errint_t follow_uid(void)
{
	int bits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);

	if (bits < 0)
		return -errno;
	if (!(bits & SECBIT_NO_SETUID_FIXUP))
		return 0;
	return prctl(PR_SET_SECUREBITS, bits & ~SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0 ? -errno : 0;
}

errint_t privileges_keep_daemon(void)
{
	errint_t error = follow_uid();
	uint64_t kept = 0;

	if (error)
		return error;

#define KEEP(capability, reason) kept |= PRIVILEGE(capability);
	DAEMON_CAPABILITIES(KEEP)
#undef KEEP
	if (proc_hides())
		kept |= PRIVILEGE(CAP_SYS_PTRACE);
	return privileges_keep(kept);
}

errint_t privileges_freeze(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

void privileges_keep_file(int fd)
{
	if (fd > 0)
		(void)close_range(0, (unsigned)fd - 1, 0);
	(void)close_range((unsigned)fd + 1, ~0u, 0);
}

void privileges_read(struct privileges *ret_privileges)
{
	struct privileges privileges = {
		.no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
		.dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1,
		.filtered = prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2,
	};
	capability_words words;

	if (!get_words(words))
		privileges.capabilities = permitted_of(words);
	for (unsigned capability = 0; capability < CAPABILITIES; capability++)
		if (is_bounding(capability))
			privileges.bounding |= PRIVILEGE(capability);
	*ret_privileges = privileges;
}

void privileges_names(uint64_t set, char ret_names[PRIVILEGE_NAMES_BYTES])
{
	size_t length = 0;

	ret_names[0] = '\0';
	for (unsigned capability = 0; capability < CAPABILITIES; capability++) {
		char number[8];
		const char *name = number;

		if (!(set & PRIVILEGE(capability)))
			continue;
		snprintf(number, sizeof(number), "%u", capability);
		if (capability < NAMES)
			name = names[capability];
		/* Names have 18 bytes at most, and a number is shorter. */
		length += (size_t)snprintf(ret_names + length, PRIVILEGE_NAMES_BYTES - length,
					   "%s%s", length ? " " : "", name);
	}
}
