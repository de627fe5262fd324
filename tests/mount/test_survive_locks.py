# SPDX-License-Identifier: Apache-2.0
"""Locks outlive the process that serves the mount: -o survive=on with locks=source."""

import errno
import fcntl
import mmap
import os
import time

from harness import check, equal, read_file, test, until, write_file
from programs import FLOCK, HOW, NONE, OFD, POSIX, READ, WRITE, Program, ends_programs
from test_locks import TAKEN, held, make_source, until_waiting
from test_survive import PRESETS, RELEASE, kill_worker, survive_mount


def served(t, options=(), count=1):
    source = make_source(t, count)
    mount = survive_mount(t, source, options)
    equal(mount.status()["locks"]["where"], "source", "where locks hold")
    return source, mount


@test(timeout=60, presets=PRESETS, variants={"window": [], "passthrough": ["passthrough=*"]})
@ends_programs
def what_is_held_is_held(t, options):
    """A lock of each kind, after three deaths: still in the way of another client and of a user of the source, as wide
    and as strong as it was. Then it is converted, and unlocked."""
    source, mount = served(t, options, len(HOW))
    client, other, stranger = (Program(t) for _ in range(3))
    fds = {how: [program.open("%s/file%d" % (top, number)) for program, top in
                 ((client, mount.point), (other, mount.point), (stranger, source))]
           for number, how in enumerate(HOW)}
    for how, (mine, _, _) in fds.items():
        equal(client.lock(mine, how, READ, 0, 100), 0, how)
        equal(client.lock(mine, how, WRITE, 10, 20), 0, how)

    def look(what, expected):
        """EXPECTED: what those get who want (to read from 0, from 15, from 200)."""
        for how, (_, *theirs) in fds.items():
            for program, fd in zip((other, stranger), theirs):
                for (start, kind), result in zip(((0, READ), (15, READ), (200, WRITE)), expected[how == FLOCK]):
                    equal(program.lock(fd, how, kind, start, 5), result, "%s: %s, from %d" % (what, how, start))
                    equal(program.lock(fd, how, NONE, start, 5), 0, how)

    for number in range(3):
        before = held(mount)
        kill_worker(mount)
        equal(held(mount), before, "locks held after death %d" % number)
        look("after death %d" % number, ((0, TAKEN, 0), (TAKEN, TAKEN, TAKEN)))
    for how, (mine, _, _) in fds.items():
        equal(client.lock(mine, how, READ, 10, 20), 0, how)
    look("made weaker", ((0, 0, 0), (0, 0, TAKEN)))
    for how, (mine, _, _) in fds.items():
        equal(client.lock(mine, how, NONE), 0, how)
    look("unlocked", ((0, 0, 0), (0, 0, 0)))
    equal(held(mount), 0, "locks held at last")


@test(timeout=60, presets=RELEASE)
@ends_programs
def a_close_after_a_death_ends_them(t):
    """By each kind of end: another descriptor of the process, the last one, and a death of the client."""
    source, mount = served(t, count=3)
    client, dies, stranger = (Program(t) for _ in range(3))
    there = [stranger.open("%s/file%d" % (source, number)) for number in range(3)]
    fds = [client.open(mount.path("file%d" % number)) for number in range(2)]
    equal(client.lock(fds[0], POSIX, WRITE), 0, "a range of a process")
    equal(client.lock(fds[1], OFD, WRITE), 0, "a range of an open file")
    equal(dies.lock(dies.open(mount.path("file2")), FLOCK, WRITE), 0, "a whole file")
    kill_worker(mount)
    for fd, how in zip(there, (POSIX, OFD, FLOCK)):
        equal(stranger.lock(fd, how, WRITE), TAKEN, how)
    client.call("close", client.open(mount.path("file0"), os.O_RDONLY))
    client.call("close", fds[1])
    dies.kill()
    for fd, how in zip(there, (POSIX, OFD, FLOCK)):
        until(lambda: stranger.lock(fd, how, WRITE) == 0, 10, "it is not locked: " + how)
    until(lambda: held(mount) == 0, 10, "no lock is left")


@test(timeout=60, presets=RELEASE, variants={how: how for how in HOW})
@ends_programs
def who_waits_gets_it(t, how):
    """Requests that wait while the process dies: for a client of the mount, for a user of the source; and one that is
    interrupted gives up."""
    source, mount = served(t, count=3)
    has, wants, behind, gives_up, stranger = (Program(t) for _ in range(5))
    fds = [has.open(mount.path("file0")), wants.open(mount.path("file0")), behind.open(mount.path("file1")),
           gives_up.open(mount.path("file2")), stranger.open(source + "/file1")]
    third = has.open(mount.path("file2"))
    equal(has.lock(fds[0], how, WRITE), 0, "a client has it")
    equal(has.lock(third, how, WRITE), 0, "a client has the third")
    equal(stranger.lock(fds[4], how, WRITE), 0, "a user of the source has it")
    for program, fd in ((wants, fds[1]), (behind, fds[2]), (gives_up, fds[3])):
        program.send("lock", fd, how, WRITE, 0, 0, True)
    until_waiting(mount, 3)
    for _ in range(2):
        kill_worker(mount)
        until_waiting(mount, 3)
    gives_up.interrupt()
    equal(gives_up.result(), errno.EINTR, "who was interrupted")
    equal(has.lock(fds[0], how, NONE), 0, "it is unlocked")
    equal(wants.result(), 0, "the client that waited")
    equal(stranger.lock(fds[4], how, NONE), 0, "it is unlocked in the source")
    equal(behind.result(), 0, "the client that waited for the source")
    equal(stranger.lock(fds[4], how, WRITE), TAKEN, "now the client has it")


class Counter:
    """A number in a file, to which many add one at a time, each under a lock."""

    def __init__(self, path, how):
        self.path, self.how = path, how

    def run(self, added, stop):
        fd = os.open(self.path, os.O_RDWR)
        while not stop():
            self.set(fd, fcntl.LOCK_EX)
            number = int(os.pread(fd, 20, 0))
            os.pwrite(fd, b"%020d" % (number + 1), 0)
            self.set(fd, fcntl.LOCK_UN)
            added[0:8] = (int.from_bytes(added[0:8], "little") + 1).to_bytes(8, "little")
        os.close(fd)

    def set(self, fd, operation):
        if self.how == FLOCK:
            fcntl.flock(fd, operation)
        else:
            fcntl.lockf(fd, operation)


def count_under_kills(t, rounds):
    source, mount = served(t, count=2)
    ended = mmap.mmap(-1, 1)
    sums, children = {}, []
    for number, how in enumerate((POSIX, FLOCK)):
        name = "file%d" % number
        write_file(os.path.join(source, name), b"%020d" % 0)
        # Two clients, and one that works in the source.
        sums[name] = [mmap.mmap(-1, 8) for _ in range(3)]
        for top, added in zip((mount.point, mount.point, source), sums[name]):
            children.append(t.fork(Counter(os.path.join(top, name), how).run, added, lambda: ended[0]))
    for _ in range(rounds):
        time.sleep(t.rng.uniform(0.02, 0.3))
        kill_worker(mount)
        for child in children:
            if child.ended():
                child.join(t.limit)
    ended[0] = 1
    t.join(children)
    for name, parts in sums.items():
        added = [int.from_bytes(part[0:8], "little") for part in parts]
        check(all(added), "each has added: %s" % added)
        equal(int(read_file(mount.path(name))), sum(added), "the number that %s were added to" % added)
    until(lambda: held(mount) == 0, 10, "no lock is left")
    mount.unmount()


@test(timeout=120, presets=RELEASE)
def no_count_is_lost(t):
    """Clients and users of the source add to a number, each under a lock, while the process dies."""
    count_under_kills(t, t.scaled(4, 3))


@test(suite="full", timeout=600, presets=PRESETS)
def no_count_is_lost_in_100_deaths(t):
    count_under_kills(t, t.scaled(100, 30))
