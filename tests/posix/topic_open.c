/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_open.c - open(2): every combination of flags on every kind of object, and what fcntl
 * returns afterwards
 */
#include "calls.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ABSENT (DEVICE + 1)

static const struct {
	const char *letter;
	int flag;
} bits[] = {
	{"C", O_CREAT},     {"E", O_EXCL},     {"T", O_TRUNC},
	{"D", O_DIRECTORY}, {"N", O_NOFOLLOW}, {"P", O_PATH},
};

static const char *flag_text(unsigned set, int mode)
{
	static char text[16];

	snprintf(text, sizeof(text), "%s", mode == O_RDONLY ? "r" : mode == O_WRONLY ? "w" : "rw");
	for (unsigned bit = 0; bit < ARRAY_SIZE(bits); bit++)
		if (set & 1u << bit)
			strcat(text, bits[bit].letter);
	return text;
}

static void open_case(unsigned kind, unsigned set, int mode, int user)
{
	int flags = mode | O_NONBLOCK | O_CLOEXEC;
	long result;

	if (!take())
		return;
	for (unsigned bit = 0; bit < ARRAY_SIZE(bits); bit++)
		if (set & 1u << bit)
			flags |= bits[bit].flag;
	if (kind != ABSENT)
		make_owned(kind, "x", 0644);
	if (kind == SYMLINK)
		make(FILE_, "target");
	if (kind == TO_DIRECTORY)
		make(DIRECTORY, "there");
	as(user);
	result = TRY_FD(open("x", flags, 0640));
	as_root();
	say(result,
	    kind == SYMLINK    ? "target"
	    : kind == DANGLING ? "nothing"
			       : "x",
	    "%s.%s.%s", kind == ABSENT ? "absent" : kind_name(kind), flag_text(set, mode),
	    users[user].name);
	discard("x");
	discard("target");
	discard("there");
	discard("nothing");
}

static void open_every_way(void)
{
	for (unsigned kind = 0; kind <= ABSENT; kind++)
		for (unsigned set = 0; set < 1u << ARRAY_SIZE(bits); set++)
			for (int mode = 0; mode < 3; mode++)
				for (int user = 0; user < USERS; user += USER_OTHER)
					/* With O_PATH most others are ignored: a few will do. */
					if (set < 32 || (mode == 0 && user == 0))
						open_case(kind, set, mode, user);
}

static void open_flags_kept(void)
{
	static const struct {
		const char *name;
		int flags;
	} ways[] = {
		{"append", O_WRONLY | O_APPEND},
		{"sync", O_WRONLY | O_SYNC},
		{"dsync", O_RDWR | O_DSYNC},
		{"direct", O_RDWR | O_DIRECT},
		{"noatime", O_RDONLY | O_NOATIME},
		{"nonblock", O_RDWR | O_NONBLOCK},
		{"async", O_RDWR | O_ASYNC},
		{"largefile", O_RDONLY | O_LARGEFILE},
		{"path", O_PATH | O_RDWR},
		{"truncate", O_RDWR | O_TRUNC},
		{"none", 3},
	};

	for (unsigned way = 0; way < ARRAY_SIZE(ways); way++)
		for (int user = 0; user < USERS; user++) {
			char text[64];
			int fd;

			make_owned(FILE_, "x", 0666);
			as(user);
			fd = open("x", ways[way].flags);
			as_root();
			if (fd < 0) {
				say(-errno, "x", "kept.%s.%s", ways[way].name, users[user].name);
			} else {
				snprintf(text, sizeof(text), "%#x", (unsigned)fcntl(fd, F_GETFL));
				say_text(text, "kept.%s.%s", ways[way].name, users[user].name);
				close(fd);
			}
			discard("x");
		}
}

static void flags_set_later(void)
{
	static const struct {
		const char *name;
		int flag;
	} ways[] = {{"append", O_APPEND},
		    {"nonblock", O_NONBLOCK},
		    {"noatime", O_NOATIME},
		    {"direct", O_DIRECT},
		    {"sync", O_SYNC}};

	for (unsigned way = 0; way < ARRAY_SIZE(ways); way++)
		for (int user = 0; user < USERS; user += USER_OTHER) {
			char text[64];
			long result;
			int fd;

			make_owned(FILE_, "x", 0666);
			fd = (int)MUST(open("x", O_RDWR));
			as(user);
			result = TRY(fcntl(fd, F_SETFL, ways[way].flag));
			as_root();
			snprintf(text, sizeof(text), "%s %#x", result_name(result),
				 (unsigned)fcntl(fd, F_GETFL));
			say_text(text, "later.%s.%s", ways[way].name, users[user].name);
			close(fd);
			discard("x");
		}
}

/* Times and size after an open that truncates, of files that have and have not got content. */
static void truncating(void)
{
	for (int kind = FILE_; kind <= EMPTY; kind++)
		for (int mode = 0; mode < 3; mode++)
			for (int user = 0; user < USERS; user += USER_OTHER) {
				long result;

				make_owned(kind, "x", 0666);
				watch("x");
				watch(".");
				as(user);
				result = TRY_FD(open("x", mode | O_TRUNC));
				as_root();
				say(result, "x", "truncating.%s.%d.%s", kind_name(kind), mode,
				    users[user].name);
				discard("x");
			}
}

/* A program that runs cannot be written, and what is open for writing cannot be run. */
static void text_busy(void)
{
	int fd;

	make_owned(FILE_, "x", 0777);
	fd = (int)MUST(open("x", O_WRONLY));
	say(execute("x"), NULL, "busy.exec-of-written");
	close(fd);
	say(execute("x"), NULL, "busy.exec-of-closed");
	discard("x");
}

/* Copy a program to the file NAME. */
static void copy_program(const char *name)
{
	int from = (int)MUST(open("/proc/self/exe", O_RDONLY));
	int to = (int)MUST(open(name, O_CREAT | O_WRONLY, 0755));
	char bytes[65536];
	ssize_t length;

	while ((length = read(from, bytes, sizeof(bytes))) > 0)
		if (write(to, bytes, (size_t)length) != length)
			die("copying");
	close(from);
	close(to);
}

static void running(void)
{
	static char *const arguments[] = {(char *)"./program", NULL};
	int ends[2];
	int status;
	pid_t pid;

	copy_program("program");
	watch("program");
	fflush(stdout);
	MUST(pipe(ends));
	pid = (pid_t)MUST(fork());
	if (pid == 0) {
		/* Without arguments the probe prints its usage and ends with 2. */
		dup2(ends[1], STDERR_FILENO);
		execve("./program", arguments, arguments + 1);
		_exit(errno);
	}
	close(ends[1]);
	char text[8];
	say(read(ends[0], text, 6) == 6, NULL, "program.runs");
	MUST(waitpid(pid, &status, 0));
	say(WIFEXITED(status) ? WEXITSTATUS(status) : -1, NULL, "program.status");
	close(ends[0]);
	discard("program");
}

static void run(void)
{
	open_every_way();
	open_flags_kept();
	flags_set_later();
	truncating();
	text_busy();
	running();
}

const struct topic topic_open = {"open", run};
