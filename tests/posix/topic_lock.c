/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_lock.c - flock, POSIX and open file description locks, leases; FIFOs, sockets, devices and
 * file handles
 *
 * A second process tests which lock it would get. It is a child that reports by its exit status;
 * where it has to hold something, it gets its orders through a pipe.
 */
#include "kit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* The result of CALL made by a child, as an errno or 0. */
static long in_child(long (*call)(void))
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = (pid_t)MUST(fork());
	if (pid == 0)
		_exit((int)-call() & 255);
	MUST(waitpid(pid, &status, 0));
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

/* ---- flock ---- */

static int held;   /* a descriptor that the parent holds */
static int wanted; /* what the other one asks for */
static int how_opened;

static long flock_again(void)
{
	int fd = open("x", how_opened);
	long result = fd < 0 ? -errno : TRY(flock(fd, wanted | LOCK_NB));

	return result;
}

static long flock_inherited(void)
{
	return TRY(flock(held, wanted | LOCK_NB));
}

static void flocks(void)
{
	static const int kinds[] = {LOCK_SH, LOCK_EX, LOCK_UN};
	static const int opens[] = {O_RDONLY, O_WRONLY, O_RDWR};

	make(FILE_, "x");
	for (unsigned o = 0; o < ARRAY_SIZE(opens); o++)
		for (unsigned h = 0; h < ARRAY_SIZE(kinds); h++)
			for (unsigned w = 0; w < ARRAY_SIZE(kinds); w++) {
				int other;

				if (!take())
					continue;
				how_opened = opens[o];
				wanted = kinds[w];
				held = (int)MUST(open("x", opens[o]));
				other = (int)MUST(open("x", opens[o]));
				say(TRY(flock(held, kinds[h] | LOCK_NB)), NULL,
				    "flock.%u.%u.%u.held", o, h, w);
				say(TRY(flock(other, wanted | LOCK_NB)), NULL,
				    "flock.%u.%u.%u.same-process", o, h, w);
				say(TRY(flock(other, LOCK_UN)), NULL, "flock.%u.%u.%u.given-back",
				    o, h, w);
				say(in_child(flock_again), NULL, "flock.%u.%u.%u.other-process", o,
				    h, w);
				say(in_child(flock_inherited), NULL, "flock.%u.%u.%u.inherited", o,
				    h, w);
				close(held);
				close(other);
			}
	held = (int)MUST(open(".", O_RDONLY));
	say(TRY(flock(held, LOCK_EX | LOCK_NB)), NULL, "flock.directory");
	close(held);
	held = (int)MUST(open("x", O_PATH));
	say(TRY(flock(held, LOCK_EX | LOCK_NB)), NULL, "flock.path-descriptor");
	close(held);
	discard("x");
}

/* ---- records ---- */

static struct flock asked;
static int command;

static long lock_again(void)
{
	int fd = open("x", O_RDWR);

	return fd < 0 ? -errno : TRY(fcntl(fd, command, &asked));
}

/* The type of the lock that would be in the way; plus 10 if it is not of a process. */
static long ask_again(void)
{
	int fd = open("x", O_RDWR);

	if (fd < 0 || fcntl(fd, F_GETLK, &asked))
		return -errno;
	return -(asked.l_type + 10 * (asked.l_pid == -1) + 20 * (asked.l_start != 0));
}

static void records(void)
{
	static const short types[] = {F_RDLCK, F_WRLCK, F_UNLCK};
	static const off_t ranges[][2] = {{0, 0}, {0, 10}, {5, 10}, {10, 10}, {100, 1}, {0, 100}};
	static const int commands[] = {F_SETLK, F_OFD_SETLK};

	make(FILE_, "x");
	for (unsigned c = 0; c < ARRAY_SIZE(commands); c++)
		for (unsigned h = 0; h < ARRAY_SIZE(types); h++)
			for (unsigned w = 0; w < ARRAY_SIZE(types); w++)
				for (unsigned r = 0; r < ARRAY_SIZE(ranges); r++) {
					struct flock lock = {
						.l_type = types[h], .l_start = 5, .l_len = 6};

					if (!take())
						continue;
					held = (int)MUST(open("x", O_RDWR));
					say(TRY(fcntl(held, commands[c], &lock)), NULL,
					    "record.%u.%u.%u.%u.held", c, h, w, r);
					command = commands[c];
					asked = (struct flock){.l_type = types[w],
							       .l_start = ranges[r][0],
							       .l_len = ranges[r][1]};
					say(in_child(lock_again), NULL, "record.%u.%u.%u.%u.other",
					    c, h, w, r);
					if (types[w] != F_UNLCK)
						say(-in_child(ask_again), NULL,
						    "record.%u.%u.%u.%u.asked", c, h, w, r);
					/* POSIX locks go with any close of the process. */
					close((int)MUST(open("x", O_RDONLY)));
					say(in_child(lock_again), NULL,
					    "record.%u.%u.%u.%u.after-close", c, h, w, r);
					close(held);
				}
	discard("x");
}

static void record_modes(void)
{
	static const int opens[] = {O_RDONLY, O_WRONLY, O_RDWR, O_PATH};
	static const short types[] = {F_RDLCK, F_WRLCK, F_UNLCK, 7};
	static const int commands[] = {F_SETLK, F_GETLK, F_OFD_SETLK, F_OFD_GETLK};

	make(FILE_, "x");
	for (unsigned o = 0; o < ARRAY_SIZE(opens); o++)
		for (unsigned t = 0; t < ARRAY_SIZE(types); t++)
			for (unsigned c = 0; c < ARRAY_SIZE(commands); c++)
				for (int whence = 0; whence < 3; whence++) {
					struct flock lock = {.l_type = types[t],
							     .l_whence = (short)whence,
							     .l_start = -1,
							     .l_len = 3};
					int fd = (int)MUST(open("x", opens[o]));

					say(TRY(fcntl(fd, commands[c], &lock)), NULL,
					    "record-mode.%u.%u.%u.%d", o, t, c, whence);
					close(fd);
				}
	discard("x");
}

/* ---- waiting ---- */

static void on_alarm(int number)
{
	(void)number;
}

/* A process that waits for a lock is interrupted by a signal, or gets the lock when it is free. */
static long wait_interrupted(void)
{
	const struct sigaction action = {.sa_handler = on_alarm};
	const struct itimerval soon = {.it_value.tv_usec = 20000, .it_interval.tv_usec = 20000};
	int fd = (int)MUST(open("x", O_RDWR));

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	if (command == LOCK_EX)
		return TRY(flock(fd, LOCK_EX));
	return TRY(fcntl(fd, command, &asked));
}

static void waiting(void)
{
	static const int commands[] = {F_SETLKW, F_OFD_SETLKW, LOCK_EX};

	make(FILE_, "x");
	for (unsigned c = 0; c < ARRAY_SIZE(commands); c++) {
		held = (int)MUST(open("x", O_RDWR));
		asked = (struct flock){.l_type = F_WRLCK};
		command = commands[c];
		if (command == LOCK_EX)
			MUST(flock(held, LOCK_EX));
		else
			MUST(fcntl(held, command, &asked));
		say(in_child(wait_interrupted), NULL, "wait.%u.interrupted", c);
		close(held);
		say(in_child(wait_interrupted), NULL, "wait.%u.free", c);
	}
	discard("x");
}

/* A waits for what B has, then B for what A has: one of them is told. */
static long wait_for_first(void)
{
	struct flock second = {.l_type = F_WRLCK, .l_start = 1, .l_len = 1};
	struct flock first = {.l_type = F_WRLCK, .l_start = 0, .l_len = 1};
	int fd = (int)MUST(open("x", O_RDWR));
	char byte = 0;

	MUST(fcntl(fd, F_SETLK, &second));
	if (write(wanted, &byte, 1) != 1)
		return -EPIPE;
	return TRY(fcntl(fd, F_SETLKW, &first));
}

static void deadlock(void)
{
	struct flock first = {.l_type = F_WRLCK, .l_start = 0, .l_len = 1};
	struct flock second = {.l_type = F_WRLCK, .l_start = 1, .l_len = 1};
	long result;
	int ends[2];
	int status;
	char byte;
	pid_t pid;

	make(FILE_, "x");
	held = (int)MUST(open("x", O_RDWR));
	MUST(fcntl(held, F_SETLK, &first));
	MUST(pipe(ends));
	wanted = ends[1];
	fflush(stdout);
	pid = (pid_t)MUST(fork());
	if (pid == 0)
		_exit((int)-wait_for_first());
	MUST(read(ends[0], &byte, 1));
	/* Whichever comes second to wait is refused; then the other gets its lock. */
	result = TRY(fcntl(held, F_SETLKW, &second));
	close(held);
	MUST(waitpid(pid, &status, 0));
	say((result == -EDEADLK) + (WEXITSTATUS(status) == EDEADLK), NULL, "deadlock");
	close(ends[0]);
	close(ends[1]);
	discard("x");
}

static void leases(void)
{
	static const int opens[] = {O_RDONLY, O_RDWR};
	static const int types[] = {F_RDLCK, F_WRLCK, F_UNLCK};

	for (unsigned o = 0; o < ARRAY_SIZE(opens); o++)
		for (unsigned t = 0; t < ARRAY_SIZE(types); t++)
			for (int user = 0; user < USERS; user += USER_OTHER) {
				long result;
				int fd;

				make_owned(FILE_, "x", 0666);
				fd = (int)MUST(open("x", opens[o]));
				as(user);
				result = TRY(fcntl(fd, F_SETLEASE, types[t]));
				as_root();
				say(result, NULL, "lease.%u.%u.%s", o, t, users[user].name);
				say(TRY(fcntl(fd, F_GETLEASE)), NULL, "lease.%u.%u.%s.got", o, t,
				    users[user].name);
				close(fd);
				discard("x");
			}
}

static void run(void)
{
	flocks();
	records();
	record_modes();
	waiting();
	deadlock();
	leases();
}

const struct topic topic_lock = {"lock", run};

/* ---- special files ---- */

static long write_fifo(void)
{
	int fd = open("x", O_WRONLY);

	return fd < 0 ? -errno : TRY(write(fd, "through", 7)) == 7 ? 0 : -EIO;
}

static void fifos(void)
{
	char bytes[16] = "";
	int status;
	int reader;
	pid_t pid;

	make(FIFO, "x");
	say(TRY_FD(open("x", O_WRONLY | O_NONBLOCK)), NULL, "fifo.no-reader");
	reader = (int)MUST(open("x", O_RDONLY | O_NONBLOCK));
	say(TRY(read(reader, bytes, 1)), NULL, "fifo.no-writer");
	say(TRY_FD(open("x", O_WRONLY | O_NONBLOCK)), NULL, "fifo.reader");
	say(TRY(lseek(reader, 0, SEEK_SET)), NULL, "fifo.seek");
	say(TRY(ftruncate(reader, 0)), NULL, "fifo.truncate");
	say(TRY(fchmod(reader, 0600)), "x", "fifo.chmod");
	say(TRY(fsync(reader)), NULL, "fifo.fsync");
	say(TRY(ioctl(reader, FIONREAD, &status)), NULL, "fifo.readable");
	close(reader);
	fflush(stdout);
	pid = (pid_t)MUST(fork());
	if (pid == 0)
		_exit((int)-write_fifo());
	watch("x");
	reader = (int)MUST(open("x", O_RDONLY));
	say(TRY(read(reader, bytes, sizeof(bytes))), NULL, "fifo.read");
	say_text(bytes, "fifo.bytes");
	MUST(waitpid(pid, &status, 0));
	say(-WEXITSTATUS(status), "x", "fifo.written");
	close(reader);
	discard("x");
}

static void sockets(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "x"};
	int listener = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));

	say(TRY(bind(listener, (struct sockaddr *)&address, sizeof(address))), "x", "socket.bind");
	say(TRY(listen(listener, 5)), NULL, "socket.listen");
	for (int user = 0; user < USERS; user++)
		for (mode_t mode = 0; mode < 0700; mode += 0222) {
			int fd = (int)MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
			long result;

			MUST(chmod("x", mode));
			as(user);
			result = TRY(connect(fd, (struct sockaddr *)&address, sizeof(address)));
			as_root();
			if (!result)
				close((int)MUST(accept(listener, NULL, NULL)));
			close(fd);
			say(result, NULL, "socket.connect.%04o.%s", mode, users[user].name);
		}
	MUST(chmod("x", 0755));
	say(TRY_FD(open("x", O_RDWR)), NULL, "socket.open");
	say(TRY(rename("x", "y")), "y", "socket.rename");
	strcpy(address.sun_path, "y");
	int fd = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	say(TRY(connect(fd, (struct sockaddr *)&address, sizeof(address))), NULL, "socket.renamed");
	close(fd);
	close(listener);
	fd = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	say(TRY(connect(fd, (struct sockaddr *)&address, sizeof(address))), NULL, "socket.dead");
	close(fd);
	discard("y");
}

static void devices(void)
{
	static const struct {
		const char *name;
		mode_t type;
		dev_t device;
	} nodes[] = {
		{"null", S_IFCHR, NUMBER(1, 3)},   {"zero", S_IFCHR, NUMBER(1, 5)},
		{"full", S_IFCHR, NUMBER(1, 7)},   {"whiteout", S_IFCHR, 0},
		{"none", S_IFCHR, NUMBER(400, 1)}, {"block-none", S_IFBLK, NUMBER(4000, 1)},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(nodes); n++) {
		char bytes[4] = "123";
		int fd;

		MUST(mknod("x", nodes[n].type | 0666, nodes[n].device));
		fd = open("x", O_RDWR);
		say(fd < 0 ? -errno : 0, "x", "device.%s.open", nodes[n].name);
		if (fd >= 0) {
			say(TRY(read(fd, bytes, 2)), NULL, "device.%s.read", nodes[n].name);
			say(TRY(write(fd, bytes, 2)), NULL, "device.%s.write", nodes[n].name);
			say_fd(0, fd, "device.%s.stat", nodes[n].name);
			close(fd);
		}
		say(TRY(chmod("x", 0600)), "x", "device.%s.chmod", nodes[n].name);
		discard("x");
	}
}

/* File handles, which file servers and overlayfs ask for. */
static void handles(void)
{
	union {
		struct file_handle handle;
		char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} any = {.handle.handle_bytes = MAX_HANDLE_SZ};
	int here = (int)MUST(open(".", O_RDONLY));
	int mount_id;

	make(FILE_, "x");
	say(TRY(name_to_handle_at(AT_FDCWD, "x", &any.handle, &mount_id, 0)), NULL, "handle.name");
	say(TRY_FD(open_by_handle_at(here, &any.handle, O_RDONLY)), NULL, "handle.open");
	close(here);
	discard("x");
}

static void run_special(void)
{
	fifos();
	sockets();
	devices();
	handles();
}

const struct topic topic_special = {"special", run_special};
