/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.c - asks a file system how it behaves, one line for each answer
 *
 *	posix_probe [-b | -l] DIRECTORY [TOPIC...]
 *
 * Runs as root in an empty directory, and prints "topic.case: result". Two file systems that behave
 * the same print the same: the mount test compares foldfs with the directory below it line by line.
 * -b runs only a sample of the long tables; -l also runs what takes minutes. Each topic runs in a
 * process and a directory of its own, so a topic that dies does not affect the others.
 */
#include "kit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct topic *const topics[] = {
	&topic_access, &topic_acl,    &topic_chmod, &topic_chown,   &topic_create, &topic_directory,
	&topic_io,     &topic_link,   &topic_lock,  &topic_map,     &topic_open,   &topic_path,
	&topic_rename, &topic_set_id, &topic_size,  &topic_special, &topic_statx,  &topic_sticky,
	&topic_time,   &topic_unlink, &topic_xattr,
};

static void run_topic(const struct topic *topic)
{
	current_topic = topic->name;
	MUST(mkdir(topic->name, 0777));
	MUST(chdir(topic->name));
	topic->run();
	MUST(chdir(".."));
	discard(topic->name);
}

/* Whether it came to its end. */
static bool run_apart(const struct topic *topic)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = (pid_t)MUST(fork());
	if (pid == 0) {
		run_topic(topic);
		fflush(stdout);
		_exit(EXIT_SUCCESS);
	}
	MUST(waitpid(pid, &status, 0));
	if (WIFSIGNALED(status))
		fprintf(stderr, "posix_probe: %s: signal %d\n", topic->name, WTERMSIG(status));
	return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

static bool is_wanted(const struct topic *topic, char *const names[])
{
	if (!*names)
		return true;
	for (; *names; names++)
		if (strcmp(*names, topic->name) == 0)
			return true;
	return false;
}

int main(int argc, char *argv[])
{
	bool complete = true;
	int option;

	while ((option = getopt(argc, argv, "bl")) == 'b' || option == 'l')
		level = option == 'b' ? BRIEF : LONG;
	if (option != -1 || optind >= argc) {
		fprintf(stderr, "usage: posix_probe [-b | -l] DIRECTORY [TOPIC...]\n");
		return 2;
	}
	as_root();
	umask(0);
	signal(SIGPIPE, SIG_IGN);
	MUST(chdir(argv[optind]));
	for (size_t index = 0; index < ARRAY_SIZE(topics); index++)
		if (is_wanted(topics[index], argv + optind + 1))
			complete &= run_apart(topics[index]);
	return complete ? EXIT_SUCCESS : EXIT_FAILURE;
}
