# SPDX-License-Identifier: Apache-2.0
"""Locks that clients take: among the clients of a mount, between them and users of the source, and between two mounts.

A program here (programs.py) is a process of its own that does what it is told, one call at a time.
"""

import errno
import fcntl
import os
import signal
import subprocess

import faulty
from faulty import FaultySource
from harness import GONE, MIB, PAGE, Mount, check, equal, make_pages, mounts_under, read_file, test, until, write_file
from programs import FLOCK, HOW, NONE, OFD, POSIX, READ, WRITE, Program, ends_programs, lock
from test_family import make_clones, scan
from test_lease import close_all, leases, opened
from test_trust_others import Crowd
from users import USER

PLANS = {"window": [], "direct": ["window=0"], "passthrough": ["passthrough=*"]}
# What a refused lock may say.
TAKEN = errno.EAGAIN
# No request that is not refused at once takes that long.
SHORT = 10


def waiting(mount):
    return mount.status()["locks"]["waiting"]


def held(mount):
    return mount.status()["locks"]["held"]


def until_waiting(mount, count):
    until(lambda: waiting(mount) == count, SHORT * mount.t.patience,
          lambda: "%d wait, not %d" % (waiting(mount), count))


def until_quiet(t, *mounts):
    """Every request was answered, the ones of closes included, for whose answer nobody waits. Users of the source see
    the lock of a closed file until then."""
    for mount in mounts:
        minor = next(minor for point, minor, _ in mounts_under(mount.point) if point == mount.point)
        until(lambda: int(read_file("/sys/fs/fuse/connections/%d/waiting" % minor)) == 0, SHORT * t.patience, "quiet",
              every=0.001)


def until_waits_in_source(t, program):
    """A process waits for a range of a plain file."""
    def waits():
        with open("/proc/locks") as locks:
            return any("->" in line and str(program.pid) in line.split() for line in locks)

    until(waits, SHORT * t.patience, "a process waits in the source")


def make_source(t, count=1):
    source = t.make_dir("source")
    for number in range(count):
        write_file("%s/file%d" % (source, number), bytes(4 * PAGE))
        os.chmod("%s/file%d" % (source, number), 0o666)
    return source


def mounted(t, options=(), count=1):
    source = make_source(t, count)
    return source, t.mount(source, list(options), transport="dev")


# ---- who excludes whom ----------------------------------------------------------------------------

@test(variants=PLANS)
@ends_programs
def they_hold_in_the_source_too(t, options):
    """A lock of each kind, and of each strength: taken on the mount it excludes a user of the source, and a client of
    the mount, as a plain file's would; and the other way round."""
    source, mount = mounted(t, options)
    equal(mount.status()["locks"]["where"], "source", "where locks hold")
    client, other, stranger = (Program(t) for _ in range(3))
    there = client.open(mount.path("file0")), other.open(mount.path("file0")), stranger.open(source + "/file0")
    for how in HOW:
        for has in (READ, WRITE):
            for wants in (READ, WRITE):
                expected = 0 if has == wants == READ else TAKEN
                what = "%s, %d wanted where there is %d" % (how, wants, has)
                equal(client.lock(there[0], how, has), 0, what)
                equal(other.lock(there[1], how, wants), expected, "client and client: " + what)
                equal(other.lock(there[1], how, NONE), 0, what)
                equal(stranger.lock(there[2], how, wants), expected, "client and source: " + what)
                equal(stranger.lock(there[2], how, NONE), 0, what)
                equal(client.lock(there[0], how, NONE), 0, what)
                equal(stranger.lock(there[2], how, has), 0, what)
                equal(client.lock(there[0], how, wants), expected, "source and client: " + what)
                equal(client.lock(there[0], how, NONE), 0, what)
                equal(stranger.lock(there[2], how, NONE), 0, what)
    equal(held(mount), 0, "locks held at last")


@test()
@ends_programs
def both_kinds_of_ranges_exclude_each_other(t):
    """F_SETLK and F_OFD_SETLK are of one kind, flock is of another, as on a local file system."""
    source, mount = mounted(t)
    client, stranger = Program(t), Program(t)
    for path in (mount.path("file0"), source + "/file0"):
        fd, behind = client.open(mount.path("file0")), stranger.open(path)
        for has in HOW:
            for wants in HOW:
                equal(client.lock(fd, has, WRITE), 0, has)
                equal(stranger.lock(behind, wants, WRITE), TAKEN if (has == FLOCK) == (wants == FLOCK) else 0,
                      "%s beside %s, %s" % (wants, has, path))
                equal(client.lock(fd, has, NONE), 0, has)
                equal(stranger.lock(behind, wants, NONE), 0, wants)
        client.call("close", fd)
        stranger.call("close", behind)


@test()
@ends_programs
def between_two_mounts(t):
    """Two mounts of one source: a lock on the one excludes a client of the other one, who gets it when it is free."""
    source = make_source(t)
    one = t.mount(source, transport="dev")
    two = t.mount(source, name="mnt2", transport="dev")
    two.expect_log("another foldfs mount serves")
    client, other = Program(t), Program(t)
    fd, there = client.open(one.path("file0")), other.open(two.path("file0"))
    for how in HOW:
        equal(client.lock(fd, how, WRITE, 0, 10), 0, how)
        equal(other.lock(there, how, READ, 5, 10), TAKEN, how)
        other.send("lock", there, how, WRITE, 5, 10, True)
        until_waiting(two, 1)
        equal(client.lock(fd, how, NONE), 0, how)
        equal(other.result(), 0, how)
        equal(client.lock(fd, how, READ, 0, 10), TAKEN, how)
        equal(other.lock(there, how, NONE), 0, how)


@test()
@ends_programs
def read_only_mounts_too(t):
    """A reader of a read-only mount locks for reading, and by flock in each way."""
    source = make_source(t)
    mount = t.mount(source, ["ro"], transport="dev")
    client, stranger = Program(t), Program(t)
    fd, behind = client.open(mount.path("file0"), os.O_RDONLY), stranger.open(source + "/file0")
    for how, kind in ((POSIX, READ), (OFD, READ), (FLOCK, READ), (FLOCK, WRITE)):
        equal(client.lock(fd, how, kind), 0, how)
        equal(stranger.lock(behind, how, WRITE), TAKEN, how)
        equal(client.lock(fd, how, NONE), 0, how)
        equal(stranger.lock(behind, how, WRITE), 0, how)
        equal(client.lock(fd, how, kind), TAKEN, how)
        equal(stranger.lock(behind, how, NONE), 0, how)


@test()
@ends_programs
def files_that_the_kernel_serves(t):
    """Equal files in a read-only mount are read from one of them; each is locked by itself."""
    source = t.make_dir("source")
    content = t.rng.randbytes(8 * PAGE)
    for name in "ab":
        write_file(source + "/" + name, content)
    t.run(t.foldctl_command() + ["scan", "--state=" + t.path("state"), source], timeout=60)
    mount = t.mount(source, ["ro"], transport="dev")
    clients = [Program(t), Program(t)]
    fds = [client.open(mount.path(name), os.O_RDONLY) for client, name in zip(clients, "ab")]
    for client, fd in zip(clients, fds):
        equal(client.lock(fd, FLOCK, WRITE), 0, "flock of a file of its own")
    equal([read_file(mount.path(name)) == content for name in "ab"], [True, True], "content")
    for name in "ab":
        with open(source + "/" + name, "rb") as file:
            equal(lock(file.fileno(), FLOCK, READ), TAKEN, name)


# ---- as a plain file does ---------------------------------------------------------------------------

class Twins:
    """A program with files open on the mount, in the source, or both; and the same ones of a plain directory."""

    def __init__(self, t, places):
        self.t = t
        self.places = places
        self.start()

    def start(self):
        self.programs = [Program(self.t) for _ in self.places]
        self.fds = []  # pairs

    def both(self, name, *args):
        return [program.call(name, *(arg[i] if isinstance(arg, tuple) else arg for arg in args))
                for i, program in enumerate(self.programs)]

    def step(self, rng):
        """One random call, at both. What it was, and both answers."""
        action = rng.choice(("open", "close", "dup", "ask", "lock", "lock", "lock", "lock", "lock", "lock", "restart"))
        if action == "restart":
            if rng.random() < 0.2:
                for program in self.programs:
                    program.kill()
                self.start()
            return action, (None, None)
        if action == "open" and len(self.fds) < 4 or not self.fds:
            flags = rng.choice((os.O_RDWR, os.O_RDWR, os.O_RDWR, os.O_RDONLY))
            self.fds.append((tuple(self.both("open", tuple(place + "/file0" for place in self.places), flags)), flags))
            return "open", (None, None)
        at = rng.randrange(len(self.fds))
        fds, flags = self.fds[at]
        if action == "close":
            del self.fds[at]
            return action, self.both("close", fds)
        if action == "dup" and len(self.fds) < 4:
            self.fds.append((tuple(self.both("dup", fds)), flags))
            return action, (None, None)
        how = rng.choice(HOW)
        start, length = rng.randrange(40), rng.choice((0, 1, 5, 20))
        kind = rng.choice((READ, WRITE, NONE, NONE))
        if action == "ask":
            how, kind = rng.choice((POSIX, OFD)), rng.choice((READ, WRITE))
            found = self.both("in_the_way", fds, how, kind, start, length)
            # Of several that are in the way either may be told.
            return "%s asks" % how, [bool(each) for each in found]
        return "%s %d at %d, %d" % (how, kind, start, length), self.both("lock", fds, how, kind, start, length)


@test(timeout=120, variants={"window": [], "passthrough": ["passthrough=*"]})
@ends_programs
def as_on_a_plain_file_system(t, options):
    """Some programs on the mount and one in the source open, duplicate, close, lock, ask and die at random. Each call
    gives what it gives where all of them use one plain directory."""
    source, mount = mounted(t, options)
    plain = t.make_dir("plain")
    write_file(plain + "/file0", bytes(4 * PAGE))
    with open(mount.path("file0"), "r+b") as file:
        # From the first lock on, opens for reading tell of their close: see fusefs_lock.c.
        equal(lock(file.fileno(), POSIX, WRITE), 0, "a lock")
    programs = [Twins(t, (mount.point, plain)) for _ in range(4)] + [Twins(t, (source, plain))]
    history = []
    for _ in range(t.scaled(3000, 800)):
        number = t.rng.randrange(len(programs))
        if programs[number].places[0] == source:
            until_quiet(t, mount)
        what, answers = programs[number].step(t.rng)
        history.append("%d: %s: %r" % (number, what, answers))
        check(answers[0] == answers[1], "mount and plain differ:\n" + "\n".join(history[-60:]))
    for twins in programs:
        for program in twins.programs:
            program.end()
    until(lambda: held(mount) == 0, SHORT * t.patience, "no lock is left")


@test()
@ends_programs
def a_close_ends_locks(t):
    """What ends with which close: a process's ranges with any descriptor of the file, by whichever open; an open file's
    with its last descriptor, also if that is another process's."""
    source, mount = mounted(t)
    client, stranger = Program(t), Program(t)
    behind = stranger.open(source + "/file0")
    path = mount.path("file0")
    # A first lock, so that opens for reading tell of their close: see fusefs_lock.c.
    fd = client.open(path)
    equal(client.lock(fd, POSIX, WRITE), 0, "a lock")
    client.call("close", client.open(path, os.O_RDONLY))
    equal(stranger.lock(behind, POSIX, WRITE), 0, "after the close of another open file")
    equal(stranger.lock(behind, POSIX, NONE), 0, "given back")
    equal(client.lock(fd, POSIX, WRITE), 0, "a lock")
    client.call("close", client.call("dup", fd))
    equal(stranger.lock(behind, POSIX, WRITE), 0, "after the close of a duplicate")
    equal(stranger.lock(behind, POSIX, NONE), 0, "given back")
    for how in (OFD, FLOCK):
        copy = client.call("dup", fd)
        equal(client.lock(fd, how, WRITE), 0, how)
        client.call("close", copy)
        equal(stranger.lock(behind, how, WRITE), TAKEN, how + ": one descriptor is left")
        equal(client.lock(fd, how, NONE), 0, how)
    equal(client.lock(fd, OFD, WRITE), 0, "a lock")
    equal(client.lock(fd, FLOCK, WRITE), 0, "a lock")
    client.call("close", fd)
    until(lambda: not stranger.lock(behind, OFD, WRITE), SHORT * t.patience, "free after the last close")
    until(lambda: not stranger.lock(behind, FLOCK, WRITE), SHORT * t.patience, "free after the last close")


@test()
@ends_programs
def the_last_close_frees_at_once(t):
    """A program that closes its file, or ends, and then another one that asks once: it gets the lock."""
    _, mount = mounted(t, count=2)
    path = mount.path("file0")
    other = Program(t)
    there = other.open(path)
    for how in HOW:
        for number in range(t.scaled(100, 30)):
            client = Program(t) if number % 10 == 0 else client
            fd = client.open(path)
            equal(client.lock(fd, how, WRITE), 0, how)
            equal(other.lock(there, how, WRITE), TAKEN, how)
            if number % 10 == 9:
                client.end()
            else:
                client.call("close", fd)
            equal(other.lock(there, how, WRITE), 0, "%s, after the close, round %d" % (how, number))
            equal(other.lock(there, how, NONE), 0, how)
        client.kill()


@test()
@ends_programs
def a_child_inherits_what_an_open_file_has(t):
    """flock and OFD locks stay as long as a child has the descriptor; POSIX locks are the parent's alone."""
    _, mount = mounted(t)
    path = mount.path("file0")
    reader, writer = os.pipe()
    has_tried, tries = os.pipe()
    for how in HOW:
        # Before there is anything to inherit.
        other = Program(t)
        fd = os.open(path, os.O_RDWR)
        equal(lock(fd, how, WRITE), 0, how)

        def inherits():
            try:
                equal(lock(fd, how, WRITE), TAKEN if how == POSIX else 0, how + " in the child")
            finally:
                os.write(tries, b"x")
            os.read(reader, 1)

        child = t.fork(inherits)
        there = other.open(path)
        # Else the child might find the lock free, and take it.
        os.read(has_tried, 1)
        os.close(fd)
        equal(other.lock(there, how, WRITE), 0 if how == POSIX else TAKEN, how + " after the parent's close")
        os.write(writer, b"x")
        t.join([child])
        equal(other.lock(there, how, WRITE), 0, how + " after the child's end")
        other.end()
    for end in (reader, writer, has_tried, tries):
        os.close(end)


@test()
@ends_programs
def who_is_in_the_way(t):
    """F_GETLK names the client's process, or that of a user of the source, and the range. Who has an OFD lock in the
    source is not named."""
    source, mount = mounted(t)
    client, other, stranger = (Program(t) for _ in range(3))
    fd, there = client.open(mount.path("file0")), other.open(mount.path("file0"))
    behind = stranger.open(source + "/file0")
    equal(client.lock(fd, POSIX, WRITE, 10, 20), 0, "a lock")
    equal(other.call("in_the_way", there, POSIX, READ), (WRITE, 10, 20, client.pid), "a client")
    equal(client.call("in_the_way", fd, POSIX, READ), None, "nobody is in his own way")
    equal(other.call("in_the_way", there, POSIX, WRITE, 30, 0), None, "beside it")
    equal(stranger.call("in_the_way", behind, POSIX, READ), (WRITE, 10, 20, -1), "the daemon, for the source")
    equal(client.lock(fd, POSIX, NONE), 0, "free")
    equal(stranger.lock(behind, POSIX, READ, 5, 1), 0, "a lock")
    equal(other.call("in_the_way", there, POSIX, WRITE), (READ, 5, 1, stranger.pid), "a user of the source")
    equal(other.call("in_the_way", there, POSIX, READ), None, "two readers")
    equal(stranger.lock(behind, POSIX, NONE), 0, "free")
    equal(stranger.lock(behind, OFD, READ, 5, 1), 0, "a lock")
    equal(other.call("in_the_way", there, POSIX, WRITE), (READ, 5, 1, 0), "an open file in the source")
    equal(other.call("in_the_way", there, OFD, WRITE), (READ, 5, 1, -1), "the same, as OFD locks tell it")


# ---- waiting ------------------------------------------------------------------------------------------

@test(variants={"window": [], "passthrough": ["passthrough=*"]})
@ends_programs
def whoever_waits_gets_it(t, options):
    """A client that waits gets its lock when another client, or a user of the source, gives it back, closes or dies. A
    user of the source that waits gets his when a client gives it back."""
    source, mount = mounted(t, options)
    waiter = Program(t)
    there = waiter.open(mount.path("file0"))
    for how in HOW:
        for path in (mount.path("file0"), source + "/file0"):
            for ending in ("unlock", "close", "die"):
                what = "%s, %s, %s" % (how, path, ending)
                holder = Program(t)
                fd = holder.open(path)
                equal(holder.lock(fd, how, WRITE, 0, 10), 0, what)
                waiter.send("lock", there, how, WRITE, 5, 10, True)
                until_waiting(mount, 1)
                if ending == "unlock":
                    equal(holder.lock(fd, how, NONE, 0, 10), 0, what)
                elif ending == "close":
                    holder.call("close", fd)
                else:
                    holder.kill()
                equal(waiter.result(), 0, what)
                equal(waiter.lock(there, how, NONE), 0, what)
                holder.kill()
    client, stranger = Program(t), Program(t)
    fd, behind = client.open(mount.path("file0")), stranger.open(source + "/file0")
    equal(client.lock(fd, POSIX, WRITE), 0, "a lock")
    stranger.send("lock", behind, POSIX, WRITE, 0, 0, True)
    until_waits_in_source(t, stranger)
    equal(client.lock(fd, POSIX, NONE), 0, "given back")
    equal(stranger.result(), 0, "the lock in the source")


@test()
@ends_programs
def a_signal_ends_a_wait(t):
    """A signal that is handled ends it with EINTR, one that kills ends the process, whoever has the lock; the next one
    who waits gets it."""
    source, mount = mounted(t)
    for how in HOW:
        for path in (mount.path("file0"), source + "/file0"):
            what = "%s, %s" % (how, path)
            holder, waiters = Program(t), [Program(t) for _ in range(3)]
            fd = holder.open(path)
            equal(holder.lock(fd, how, WRITE), 0, what)
            for number, waiter in enumerate(waiters):
                waiter.send("lock", waiter.open(mount.path("file0")), how, WRITE, 0, 0, True)
                until_waiting(mount, number + 1)
            waiters[0].interrupt()
            equal(waiters[0].result(), errno.EINTR, what)
            waiters[1].kill()
            until_waiting(mount, 1)
            equal(holder.lock(fd, how, NONE), 0, what)
            equal(waiters[2].result(), 0, what)
            for program in (holder, *waiters):
                program.kill()
    until(lambda: held(mount) == 0, SHORT * t.patience, "no lock is left")


@test()
@ends_programs
def a_deadlock_is_told(t):
    """Two processes wait for each other, on two files: one of them is told, as on a plain file system."""
    _, mount = mounted(t, count=2)
    one, two = Program(t), Program(t)
    fds = [[program.open(mount.path("file%d" % number)) for number in range(2)] for program in (one, two)]
    equal(one.lock(fds[0][0], POSIX, WRITE), 0, "a lock")
    equal(two.lock(fds[1][1], POSIX, WRITE), 0, "a lock")
    one.send("lock", fds[0][1], POSIX, WRITE, 0, 0, True)
    until_waiting(mount, 1)
    equal(two.lock(fds[1][0], POSIX, WRITE, 0, 0, True), errno.EDEADLK, "the second one to wait")
    equal(two.lock(fds[1][1], POSIX, NONE), 0, "given back")
    equal(one.result(), 0, "the first one")


@test(timeout=60)
@ends_programs
def many_who_wait_hold_nobody_up(t):
    """Four hundred clients of one user wait for a lock of his. No thread of the daemon's waits with them; all else that
    he does is done, and so is the unlock. They get the lock one after the other."""
    count = t.scaled(400, 100)
    source = make_source(t, 2)
    os.chmod(source, 0o777)
    mount = t.mount(source, transport="dev")
    holder, user = Program(t, USER), Program(t, USER)
    fd = holder.open(mount.path("file0"))
    equal(holder.lock(fd, FLOCK, WRITE), 0, "a lock")

    def wait_for_it():
        with open(mount.path("file0"), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)

    crowd = Crowd(t, USER, [wait_for_it] * count)
    until(lambda: waiting(mount) == count, 30 * t.patience, lambda: "%d wait" % waiting(mount))
    serving = mount.status()["serving"]
    check(serving["threads"] <= count // 4 and not serving["parked"], "threads of the daemon: %r" % serving)
    other = user.open(mount.path("file1"))
    equal(user.call("pwrite", other, b"x", 0), 1, "a write")
    equal(user.call("pread", other, 1, 0), b"x", "a read")
    equal(user.lock(other, POSIX, WRITE), 0, "a lock of another file")
    equal(user.lock(user.open(mount.path("file0")), FLOCK, READ), TAKEN, "the same lock, without waiting")
    equal(waiting(mount), count, "who waits")
    equal(holder.lock(fd, FLOCK, NONE), 0, "given back")
    crowd.join()
    equal(set(crowd.errors[:count]), {255}, "how they ended")
    until(lambda: held(mount) == 1, SHORT * t.patience, "the lock of the other file is left")


@test(timeout=120)
@ends_programs
def an_unlock_beside_requests_that_hang(t):
    """A user has more requests waiting for a source that hangs than may wait for him. His locks are taken and given
    back all the same, also by a close; and who waits for one gets it."""
    source = FaultySource(t)
    write_file(source.backing + "/cold", make_pages(t.rng, 400))
    for name in ("file0", "file1"):
        write_file(source.backing + "/" + name, bytes(PAGE))
        os.chmod(source.backing + "/" + name, 0o666)
    mount = t.mount(source.point, ["window=0"], transport="dev")
    programs = [Program(t, USER) for _ in range(2)]
    fds = [[program.open(mount.path("file%d" % number)) for number in range(2)] for program in programs]
    cold = os.open(mount.path("cold"), os.O_RDONLY)
    os.posix_fadvise(cold, 0, 0, os.POSIX_FADV_RANDOM)
    source.set(0, faulty.HANG, faulty.READ)
    crowd = Crowd(t, USER, [lambda at=page * PAGE: os.pread(cold, PAGE, at) for page in range(400)])
    try:
        until(lambda: sum(mount.status()["serving"][key] for key in ("handled", "parked", "fetching")) >= 400, 60,
              "all wait")
        for how in HOW:
            equal(programs[0].lock(fds[0][0], how, WRITE), 0, how)
            equal(programs[1].lock(fds[1][0], how, READ), TAKEN, how)
            programs[1].send("lock", fds[1][0], how, READ, 0, 0, True)
            until_waiting(mount, 1)
            equal(programs[0].lock(fds[0][0], how, NONE), 0, how)
            equal(programs[1].result(), 0, how)
            equal(programs[1].lock(fds[1][0], how, NONE), 0, how)
        equal(programs[0].lock(fds[0][1], POSIX, WRITE), 0, "a lock")
        programs[0].call("close", fds[0][1])
        equal(programs[1].lock(fds[1][1], POSIX, WRITE), 0, "after a close")
    finally:
        source.clear(0)
    crowd.join()
    os.close(cold)


def one_waits(mount, t):
    holder, waiter = Program(t), Program(t)
    equal(holder.lock(holder.open(mount.path("file0")), OFD, WRITE), 0, "a lock")
    waiter.send("lock", waiter.open(mount.path("file0")), OFD, WRITE, 0, 0, True)
    until_waiting(mount, 1)
    return holder, waiter


@test()
@ends_programs
def a_lazy_unmount_lets_them_wait(t):
    """After umount -l clients keep their locks and go on waiting; the daemon ends with the last of them."""
    _, mount = mounted(t)
    holder, waiter = one_waits(mount, t)
    mount.audit()
    t.run(["umount", "-l", mount.point])
    holder.kill()
    equal(waiter.result(), 0, "the lock")
    waiter.kill()
    mount.ended(0)


@test()
@ends_programs
def the_end_of_the_daemon_ends_a_wait(t):
    """The daemon is told to end while a client waits: he gets an error. In the source nothing stays locked."""
    source, mount = mounted(t)
    holder, waiter = one_waits(mount, t)
    mount.audit()
    mount.process.send_signal(signal.SIGTERM)
    check(waiter.result() in GONE, "what the one who waits is told")
    mount.ended(0)
    with open(source + "/file0", "r+b") as file:
        equal(lock(file.fileno(), OFD, WRITE), 0, "a lock in the source")
    for program in (holder, waiter):
        program.kill()


# ---- what others rely on ---------------------------------------------------------------------------------

@test(variants={"window": [], "direct": ["window=0"]})
@ends_programs
def who_gets_a_lock_sees_what_was_written(t, options):
    """Two mounts of one source, and the source: who gets a lock sees what the one before wrote under it, also a page
    that the kernel had cached, and how long the file is."""
    source = make_source(t)
    mounts = [t.mount(source, list(options), name="mnt%d" % number, transport="dev") for number in range(2)]
    mounts[1].expect_log("another foldfs mount serves")
    programs = [Program(t) for _ in range(3)]
    fds = [program.open(place + "/file0") for program, place in
           zip(programs, (mounts[0].point, mounts[1].point, source))]
    size = 4 * PAGE
    for number in range(t.scaled(150, 40)):
        how = HOW[number % 3]
        who = t.rng.randrange(3)
        program, fd = programs[who], fds[who]
        equal(program.lock(fd, how, WRITE, 0, 0, True), 0, "the lock")
        expected = b"%08d" % (number - 1) if number else bytes(8)
        equal(program.call("pread", fd, 8, PAGE), expected, "what the one before wrote, round %d" % number)
        equal(program.call("size", fd), size, "the size, round %d" % number)
        equal(program.call("pwrite", fd, b"%08d" % number, PAGE), 8, "written")
        if number % 5 == 0:
            equal(program.call("pwrite", fd, b"end", size), 3, "written")
            size += 3
        for each, there in zip(programs, fds):
            each.call("pread", there, 8, PAGE)
        equal(program.lock(fd, how, NONE), 0, "given back")


@test(timeout=60)
@ends_programs
def leases_stay(t):
    """A guest locks its image: what is known of it by a lease stays known."""
    source = t.make_dir("source")
    files = make_clones(t, source, 2)
    scan(t, source)
    mount = t.mount(source, ["window=0", "passthrough_max=0"], transport="dev")
    fds = opened(mount, files)
    equal(leases(mount), {"held": 2, "broken": 0}, "leases")
    for fd in fds.values():
        for number, how in enumerate(HOW):
            equal(lock(fd, how, WRITE, 100 * number, 100), 0, how)
    # A second open of the same file shares the description, and what it has locked.
    again = opened(mount, files)
    for fd in again.values():
        equal(lock(fd, OFD, WRITE, 1000, 100), 0, "another range of the same description")
        equal(lock(fd, FLOCK, READ), TAKEN, "the other open file has it")
    close_all(again)
    for name in files:
        with open("/proc/locks") as locks:
            number = str(os.stat(source + "/" + name).st_ino)
            found = [line.split()[1] for line in locks if line.split()[-3].endswith(":" + number)]
        check(found.count("LEASE") == 1 and "OFDLCK" in found and "FLOCK" in found, "locks of %s: %r" % (name, found))
    equal(leases(mount), {"held": 2, "broken": 0}, "leases after locks")
    for fd in fds.values():
        equal(os.pwrite(fd, bytes(PAGE), 0), PAGE, "written")
    equal(leases(mount), {"held": 2, "broken": 0}, "leases after writes")
    close_all(fds)


class Guest:
    """A QEMU that has an image as its disk, stopped before its first instruction."""

    def __init__(self, path, *options):
        drive = ",".join(("if=virtio,format=raw,file=" + path,) + options)
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-m", "64", "-S", "-nodefaults", "-display", "none", "-monitor",
             "stdio", "-drive", drive], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        # By the time it answers it has its disks, and their locks.
        self.process.stdin.write("info status\n")
        self.process.stdin.flush()
        lines = []
        while not lines or lines[-1] and "VM status" not in lines[-1]:
            lines.append(self.process.stdout.readline())
        check(lines[-1], "QEMU with %s: %s" % (path, "".join(lines)))

    def quit(self):
        self.process.communicate("quit\n", timeout=30)
        equal(self.process.returncode, 0, "exit status of QEMU")


def opens(path, *options):
    done = subprocess.run(["qemu-io", *options, "-f", "raw", "-c", "read 0 512", path], capture_output=True, text=True,
                          timeout=30, check=False)
    if done.returncode:
        check("lock" in done.stderr, "qemu-io: " + done.stderr)
    return done.returncode == 0


@test(variants=PLANS, timeout=60)
@ends_programs
def qemu_refuses_an_image_in_use(t, options):
    """An image that a QEMU has open on the mount is refused to one on the source, on another mount, and on the mount;
    and the other way round. Once it is closed, it can be opened."""
    t.need("qemu-io", "qemu-system-x86_64")
    source = t.make_dir("source")
    write_file(source + "/image", bytes(MIB))
    mount = t.mount(source, list(options), transport="dev")
    two = t.mount(source, list(options), name="mnt2", transport="dev")
    two.expect_log("another foldfs mount serves")
    paths = [source + "/image", mount.path("image"), two.path("image")]
    for path in paths:
        for options in ((), ("readonly=on",)):
            guest = Guest(path, *options)
            for other in paths:
                check(not opens(other), "an image in use on %s %s was opened on %s" % (path, options, other))
            guest.quit()
            until_quiet(t, mount, two)
            for other in paths:
                check(opens(other), "an image that was closed on %s is refused on %s" % (path, other))


@test(timeout=60)
@ends_programs
def sqlite_counts_on_both_sides(t):
    """Clients of a mount and users of the source add to a number in one database: nothing is lost. Its journal comes and
    goes beside it, so no name may be believed without asking."""
    t.need("sqlite3")
    source = t.make_dir("source")
    mount = t.mount(source, ["entry_timeout=0", "attr_timeout=0"], transport="dev")
    program = ["sqlite3", "-batch", "-cmd", ".timeout 60000"]
    t.run(program + [source + "/db", "create table counter(n integer); insert into counter values(0);"])
    rounds = t.scaled(40, 15)

    def add(path):
        text = "begin immediate; update counter set n = n + 1; commit;\n" * rounds
        done = subprocess.run(program + [path], input=text, capture_output=True, text=True, timeout=50, check=False)
        check(done.returncode == 0 and not done.stderr, "sqlite3: %d %s" % (done.returncode, done.stderr))

    t.join([t.fork(add, path) for path in (mount.path("db"), source + "/db") * 2])
    equal(int(t.run(program + [mount.path("db"), "select n from counter;"]).stdout), 4 * rounds, "the number")


# ---- other ways --------------------------------------------------------------------------------------------

@test(transports="each")
@ends_programs
def where_locks_hold(t):
    """locks=mount, and any mount over io_uring: among the clients alone, as the status says. Asking for more over
    io_uring is refused."""
    source = make_source(t)
    mount = t.mount(source, ["locks=mount"])
    equal(mount.status()["locks"], {"where": "mount", "held": 0, "waiting": 0}, "the status")
    client, other, stranger = (Program(t) for _ in range(3))
    fd, there = client.open(mount.path("file0")), other.open(mount.path("file0"))
    behind = stranger.open(source + "/file0")
    for how in HOW:
        equal(client.lock(fd, how, WRITE), 0, how)
        equal(other.lock(there, how, WRITE), TAKEN, how + ", client and client")
        equal(stranger.lock(behind, how, WRITE), 0, how + ", client and source")
        equal(stranger.lock(behind, how, NONE), 0, how)
        equal(client.lock(fd, how, NONE), 0, how)
    for program in (client, other, stranger):
        program.end()
    mount.unmount()
    if t.transport == "io_uring":
        without_the_option(t, source, mount.point)


def without_the_option(t, source, point):
    """Over io_uring the log says that locks do not hold in the source."""
    options = ["transport=io_uring", "pool=64M", "state=" + t.path("state"), "allow_other"]
    mount = Mount(t, source, point, options)
    mount.expect_log("locks that clients take hold among the clients of the mount alone")
    check("hold among the clients of the mount alone" in mount.log_text(), "the log: " + mount.log_text())
    equal(mount.status()["locks"]["where"], "mount", "where locks hold")
    mount.unmount()
    done = t.run(t.foldfs_command() + [source, point, "-o", "transport=io_uring,locks=source"], status=None)
    check(done.returncode and "locks=source is not possible with transport=io_uring" in done.stderr, done.stderr)


@test()
@ends_programs
def two_mounts_of_one_source_are_told(t):
    """The second mount of a source says so, and where the first one is, if one of the two may change it; two that read
    do not. The first one's end, also by kill -9, ends that."""
    source = make_source(t)
    said = "another foldfs mount serves %s as well" % source
    one = t.mount(source, transport="dev")
    check(said not in one.log_text(), "the first mount says: " + one.log_text())
    two = t.mount(source, ["ro"], name="mnt2", transport="dev")
    two.expect_log(said)
    check("%s (on %s)" % (said, one.point) in two.log_text(), "the second mount says: " + two.log_text())
    one.kill()
    three = t.mount(source, ["ro"], name="mnt3", transport="dev")
    check(said not in three.log_text(), "two readers say: " + three.log_text())
    four = t.mount(source, name="mnt4", transport="dev")
    four.expect_log(said)
    check(said in four.log_text(), "a writer beside readers says: " + four.log_text())
    for mount in (two, three, four):
        mount.unmount()
    five = t.mount(source, name="mnt5", transport="dev")
    check(said not in five.log_text(), "a mount alone says: " + five.log_text())
