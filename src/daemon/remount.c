/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remount.c - mount -o remount: what may be changed of a mount that stands
 *
 * mount(2) sets all flags anew, of the mount and of its file system. So the present flags are read
 * from the list of mounts first, and the words are applied to them.
 *
 * foldfs's own words go to the daemon, over the control socket, as those of `foldctl set` do. First
 * it is asked whether it takes them, then the flags are set, then it is told. So what is refused is
 * refused before anything has changed.
 */
#include "remount.h"

#include "foldfs/clock.h"
#include "foldfs/control_ask.h"
#include "foldfs/mountinfo.h"
#include "foldfs/proc_fd.h"
#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif
#ifndef MS_LAZYTIME
#define MS_LAZYTIME (1 << 25)
#endif
/* How long the daemon may take for a change. */
#define DAEMON_MS 60000
#define MS_ATIME  (MS_NOATIME | MS_RELATIME | MS_STRICTATIME)

/* The words of mount(8); the list of mounts uses the same. */
static const struct {
	const char *word;
	unsigned long set;
	unsigned long clear;
} words[] = {
	{"ro", MS_RDONLY, 0},
	{"-r", MS_RDONLY, 0},
	{"rw", 0, MS_RDONLY},
	{"nosuid", MS_NOSUID, 0},
	{"suid", 0, MS_NOSUID},
	{"nodev", MS_NODEV, 0},
	{"dev", 0, MS_NODEV},
	{"noexec", MS_NOEXEC, 0},
	{"exec", 0, MS_NOEXEC},
	{"sync", MS_SYNCHRONOUS, 0},
	{"async", 0, MS_SYNCHRONOUS},
	{"dirsync", MS_DIRSYNC, 0},
	{"noatime", MS_NOATIME, MS_ATIME & ~MS_NOATIME},
	{"atime", 0, MS_NOATIME},
	{"relatime", MS_RELATIME, MS_ATIME & ~MS_RELATIME},
	{"norelatime", 0, MS_RELATIME},
	{"strictatime", MS_STRICTATIME, MS_ATIME & ~MS_STRICTATIME},
	{"nostrictatime", 0, MS_STRICTATIME},
	{"nodiratime", MS_NODIRATIME, 0},
	{"diratime", 0, MS_NODIRATIME},
	{"lazytime", MS_LAZYTIME, 0},
	{"nolazytime", 0, MS_LAZYTIME},
	{"nosymfollow", MS_NOSYMFOLLOW, 0},
	{"symfollow", 0, MS_NOSYMFOLLOW},
};

/* Returns whether WORD is one of these. */
static bool take(struct remount *remount, const char *word, size_t length)
{
	bool taken = false;

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strncmp(word, words[i].word, length) != 0 || words[i].word[length])
			continue;
		remount->set = (remount->set & ~words[i].clear) | words[i].set;
		remount->clear = (remount->clear & ~words[i].set) | words[i].clear;
		taken = true;
	}
	return taken;
}

void remount_take_word(struct remount *remount, const char *word)
{
	(void)take(remount, word, strlen(word));
}

bool remount_is_word(const char *word)
{
	struct remount unused = {0};

	return take(&unused, word, strlen(word));
}

/* The flags that LIST, taken from the list of mounts, names. */
static unsigned long flags_of(const char *list)
{
	struct remount now = {0};

	while (*list) {
		size_t length = strcspn(list, ",");

		(void)take(&now, list, length);
		list += length + (list[length] == ',');
	}
	return now.set;
}

static errint_t apply(const struct remount *remount, const struct mount_entry *entry)
{
	unsigned long flags = flags_of(entry->options) | flags_of(entry->super_options);
	int root = mount_entry_open(entry);
	char path[PROC_FD_BYTES];
	errint_t error;

	if (root < 0)
		return root;
	/* If the list names neither word, the mount has strictatime, which has to be requested
	 * explicitly. */
	if (!(flags & MS_ATIME))
		flags |= MS_STRICTATIME;
	flags = (flags & ~remount->clear) | remount->set;
	error = mount("none", proc_fd(path, root), NULL, MS_REMOUNT | flags, NULL) == 0 ? 0
											: -errno;
	close(root);
	return error;
}

/* ---- foldfs's own words ---- */

/* Send the words OWN to the daemon of ENTRY, to CHECK them or to set them. Reports errors.
 * -EINVAL. */
static errint_t tell_daemon(const struct mount_entry *entry, char *const own[], bool check)
{
	char *request = control_request_of_words("set", (const char *const *)own, check);
	const char *refusal = NULL;
	json_t *answer = NULL;
	struct control_tried tried = {0};
	int fd = request ? control_connect(entry, clock_now_ms() + CONTROL_ANSWER_MS, &tried)
			 : -ENOMEM;
	errint_t error = fd < 0 ? fd : control_converse(fd, request, DAEMON_MS, &answer);

	if (fd >= 0)
		close(fd);
	free(request);
	free(tried.path);
	if (!error) {
		refusal = json_string_value(json_object_get(answer, "refused"));
		if (refusal)
			error = complain("%s", refusal);
		else if ((refusal = json_string_value(json_object_get(answer, "error"))))
			error = complain("the daemon of %s refuses: %s.", entry->mountpoint,
					 refusal);
	} else {
		complain("cannot reach the daemon of %s: %s.", entry->mountpoint, strerror(-error));
	}
	json_decref(answer);
	return error ? -EINVAL : 0;
}

/* Set the flags of the kernel, and report errors. -EINVAL. */
static errint_t set_flags(const struct remount *remount, const struct mount_entry *entry)
{
	errint_t error = apply(remount, entry);

	if (error == -EBUSY)
		complain("cannot remount %s read-only: files are open for writing.",
			 entry->mountpoint);
	else if (error)
		complain("cannot remount %s: %s.", entry->mountpoint, strerror(-error));
	return error ? -EINVAL : 0;
}

static errint_t change(const struct remount *remount, const struct mount_entry *entry)
{
	bool asks = remount->words && *remount->words;
	errint_t error = asks ? tell_daemon(entry, remount->words, true) : 0;

	/* Setting flags takes rights that the owner of a mount need not have. */
	if (!error && (remount->set || remount->clear || !asks))
		error = set_flags(remount, entry);
	return !error && asks ? tell_daemon(entry, remount->words, false) : error;
}

errint_t remount_run(const struct remount *remount, const char *mountpoint)
{
	struct mount_entry entry = {0};
	errint_t error = mount_entry_find(mountpoint, &entry);

	if (error == -ENOENT)
		return complain("cannot remount %s: nothing is mounted there.", mountpoint);
	if (error)
		return complain("cannot look up the mount point %s: %s.", mountpoint,
				strerror(-error));
	if (strncmp(entry.type, "fuse", 4) != 0)
		error = complain("cannot remount %s: it is no foldfs mount, but %s.", mountpoint,
				 entry.type);
	else
		error = change(remount, &entry);
	mount_entry_clear(&entry);
	return error ? -EINVAL : 0;
}
