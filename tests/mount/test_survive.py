# SPDX-License-Identifier: Apache-2.0
"""The process that serves a mount is killed, and its clients notice nothing but a pause: -o survive=on."""

import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import random
import signal
import stat
import statistics
import struct
import subprocess
import time

import faulty
from faulty import FaultySource, build
from harness import (GONE, HERE, PAGE, RENAME_EXCHANGE, RENAME_NOREPLACE, check, equal,
                     errno_of, fails_with, fallocate, make_pages, read_file, renameat2, test, until, write_file)
from processes import age_of, daemons_of, has_ended
from programs import NONE, READ, WRITE, range_of
from test_set import ask, set_words

SURVIVE = ["survive=on"]
TAKES_OVER = "has died of signal 9: another one takes over"
PRESETS = ("release", "asan")
# Those that take long, in a quick run.
RELEASE = ("release",)


def worker_of(mount):
    """The process that serves MOUNT now; None: there is none."""
    found = []

    def is_clear():
        # While /proc is read, one may die and another one begin.
        found[:] = daemons_of(mount.process.pid)
        return len(found) < 2

    until(is_clear, 10, "there is not more than one worker")
    return found[0] if found else None


QUESTIONS = itertools.count()


def kill_worker(mount):
    """Returns the seconds until the next one answers. So that it is not taken for one that always dies at once,
    this one lives for a second at least."""
    mount.expect_log(TAKES_OVER)
    old = until(lambda: worker_of(mount), 10, "there is a worker")
    until(lambda: age_of(old) > 1.1, 10, "it is old enough")
    begin = time.monotonic()
    os.kill(old, signal.SIGKILL)
    # The kernel cannot answer this itself.
    fails_with(errno.ENOENT, "a name that is not there", os.stat, mount.path("question-%d" % next(QUESTIONS)))
    return time.monotonic() - begin


def survive_mount(t, source, options=(), **kwargs):
    return t.mount(source, SURVIVE + list(options), transport="dev", **kwargs)


@test(timeout=60, presets=PRESETS)
def what_is_open_stays_open(t):
    """Names, content, locks, files without a name, directories: all as before, five times in a row."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 64)
    write_file(source + "/file", content)
    write_file(source + "/gone", b"still here")
    os.mkdir(source + "/directory")
    for name in range(500):
        write_file(source + "/directory/%d" % name, b"")
    mount = survive_mount(t, source)
    fd = os.open(mount.path("file"), os.O_RDWR)
    gone = os.open(mount.path("gone"), os.O_RDWR)
    mapped = mmap.mmap(fd, len(content))
    os.unlink(mount.path("gone"))
    fcntl.lockf(fd, fcntl.LOCK_EX, 100)
    model = bytearray(content)
    for number in range(5):
        with os.scandir(mount.path("directory")) as entries:
            names = [next(entries).name for _ in range(100)]
            before = os.stat(mount.path("file"))
            kill_worker(mount)
            names += [entry.name for entry in entries]
        equal(sorted(names, key=int), [str(n) for n in range(500)], "names of a listing that was begun before")
        after = os.stat(mount.path("file"))
        equal((after.st_ino, after.st_size, after.st_mtime_ns), (before.st_ino, before.st_size, before.st_mtime_ns),
              "attributes")
        equal(os.pread(gone, 100, 0), b"still here" + b"+" * number, "the file without a name")
        os.pwrite(gone, b"+", 10 + number)
        page = t.rng.randrange(64)
        model[page * PAGE:page * PAGE + 6] = b"stored"
        mapped[page * PAGE:page * PAGE + 6] = b"stored"
        mapped.flush()
        model[page * PAGE + 8:page * PAGE + 15] = b"written"
        os.pwrite(fd, b"written", page * PAGE + 8)
        equal(os.pread(fd, len(content), 0), bytes(model), "content, by read")
        equal(mapped[:], bytes(model), "content, by the mapping")
        equal(read_file(source + "/file"), bytes(model), "content, in the source")

        def wants_lock():
            other = os.open(mount.path("file"), os.O_RDWR)
            fails_with(errno.EAGAIN, "the lock of another process", fcntl.lockf, other,
                       fcntl.LOCK_EX | fcntl.LOCK_NB, 100)

        t.join([t.fork(wants_lock)])
    mapped.close()
    os.close(fd)
    os.close(gone)
    equal(os.listdir(source).count("gone"), 0, "the name that is gone")
    mount.unmount()


@test(timeout=60, presets=PRESETS)
def nothing_leaks(t):
    """After each death: as many inodes, open handles and descriptors as before, once nobody uses them."""
    source = t.make_dir("source")
    for number in range(300):
        write_file(source + "/%d" % number, b"content")
    mount = survive_mount(t, source, ["entry_timeout=0", "attr_timeout=0"])

    def use():
        fds = [os.open(mount.path(str(number)), os.O_RDONLY) for number in range(300)]
        directory = os.open(mount.point, os.O_RDONLY | os.O_DIRECTORY)
        return fds + [directory]

    def forget(fds):
        for fd in fds:
            os.close(fd)
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("2")

    def left():
        status = mount.status()
        return status["inodes"], status["open_handles"]

    def descriptors():
        return len(os.listdir("/proc/%d/fd" % worker_of(mount)))

    forget(use())
    until(lambda: left()[1] == 0, 20, lambda: "nothing is open: %s" % (left(),))
    until(lambda: left()[0] <= 2, 20, lambda: "nothing is known: %s" % (left(),))
    kill_worker(mount)
    until(lambda: left() == (1, 0), 20, lambda: "nothing is known after a death: %s" % (left(),))
    first = descriptors()
    for _ in range(3):
        fds = use()
        kill_worker(mount)
        equal(left()[1], 301, "open handles after the death")
        forget(fds)
        until(lambda: left() == (1, 0), 20, lambda: "nothing is left: %s" % (left(),))
        kill_worker(mount)
        equal(descriptors(), first, "descriptors")
    mount.unmount()


@test(timeout=60, presets=RELEASE)
def what_was_set_stays_set(t):
    """What foldctl set has changed holds after each death; what follows another setting still follows it."""
    source = t.make_dir("source")
    write_file(source + "/a,b.iso", make_pages(t.rng, 64))
    mount = survive_mount(t, source, ["pool=64M"])

    def is_set(*words):
        equal(mount.status()["settings"].split(",")[:2], ["pool=" + words[0], "window=" + words[1]], "sizes")
        check(",".join(words[2:]) in mount.status()["settings"], mount.status()["settings"])

    set_words(t, mount, "pool=32M", "passthrough=a\\,b*", "passthrough=*.img")
    for _ in range(2):
        kill_worker(mount)
        is_set("32M", "4M", "passthrough=a\\,b*", "passthrough=*.img")
    set_words(t, mount, "pool=48M,window=2M,attr_timeout=0.5,nopassthrough")
    kill_worker(mount)
    is_set("48M", "2M", "nopassthrough", "passthrough_max=128M", "attr_timeout=0.5")
    ask(t, mount.point, "pool=1K", status=1)
    kill_worker(mount)
    is_set("48M", "2M")
    mount.unmount()


# ---- each kind of request, killed at each moment --------------------------------------------------------------------


def dies_library():
    return build("dies.so", os.path.join(HERE, "dies.c"), flags=["-shared", "-fPIC", "-ldl"])


class Place:
    """Where a change is made: the same way in the mount and in a directory beside it."""

    def __init__(self, top, source=None):
        self.top = top
        self.source = source or top

    def __call__(self, *names):
        return os.path.join(self.top, *names)


def prepare(at):
    write_file(at("file"), b"0123456789" * 2000)
    write_file(at("other"), b"other")
    os.mkdir(at("directory"))
    os.mkdir(at("empty"))
    os.symlink("target", at("link"))
    os.setxattr(at("file"), "user.has", b"it")


def with_fd(path, function, flags=os.O_RDWR):
    fd = os.open(path, flags)
    try:
        return function(fd)
    finally:
        os.close(fd)


def create(at, name, flags=0, mode=0o600):
    def use(fd):
        os.write(fd, b"made")
        return os.pread(fd, 10, 0) if flags & os.O_RDWR else None

    return with_fd_of(os.open(at(name), os.O_CREAT | os.O_RDWR | flags, mode), use)


def with_fd_of(fd, function):
    try:
        return function(fd)
    finally:
        os.close(fd)


def tmpfile(at):
    def use(fd):
        os.write(fd, b"made")
        os.link("/proc/self/fd/%d" % fd, at("named"), follow_symlinks=True)

    return with_fd_of(os.open(at("directory"), os.O_TMPFILE | os.O_RDWR, 0o600), use)


def copy(at):
    source = os.open(at("file"), os.O_RDONLY)
    target = os.open(at("other"), os.O_RDWR)
    try:
        return os.copy_file_range(source, target, 5000, 100, 200)
    finally:
        os.close(source)
        os.close(target)


def lock_and_unlock(fd):
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, range_of(READ, 0, 100))
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, range_of(NONE, 40, 20))
    return fcntl.fcntl(fd, fcntl.F_OFD_GETLK, range_of(WRITE, 0, 0))


def append_only(at):
    """To a file that takes appends only, a write that is done twice appends twice."""
    # Through the mount there are no such attributes.
    file = os.path.join(at.source, "file")
    subprocess.run(["chattr", "+a", file], check=True)
    try:
        return with_fd(at("file"), lambda fd: os.write(fd, b"end" * 1000), os.O_WRONLY | os.O_APPEND)
    finally:
        subprocess.run(["chattr", "-a", file], check=True)


CHANGES = {
    # name: (call, the change)
    "mkdir": ("mkdirat", lambda at: os.mkdir(at("new"), 0o751)),
    "mkdir_that_exists": ("mkdirat", lambda at: os.mkdir(at("directory"))),
    "mknod": ("mknodat", lambda at: os.mknod(at("new"), 0o640 | stat.S_IFIFO)),
    "symlink": ("symlinkat", lambda at: os.symlink("somewhere", at("new"))),
    "link": ("linkat", lambda at: os.link(at("file"), at("new"))),
    "link_that_exists": ("linkat", lambda at: os.link(at("file"), at("other"))),
    "create": ("create", lambda at: create(at, "new")),
    "create_exclusively": ("create", lambda at: create(at, "new", os.O_EXCL)),
    "create_unwritable": ("create", lambda at: create(at, "new", os.O_EXCL, 0o444)),
    "tmpfile": ("tmpfile", tmpfile),
    "unlink": ("unlinkat", lambda at: os.unlink(at("file"))),
    "unlink_symlink": ("unlinkat", lambda at: os.unlink(at("link"))),
    "rmdir": ("unlinkat", lambda at: os.rmdir(at("empty"))),
    "rename": ("renameat2", lambda at: os.rename(at("file"), at("new"))),
    "rename_over": ("renameat2", lambda at: os.rename(at("file"), at("other"))),
    "rename_directory": ("renameat2", lambda at: os.rename(at("empty"), at("directory", "moved"))),
    "rename_exchange": ("renameat2", lambda at: renameat2(at("file"), at("other"), RENAME_EXCHANGE)),
    "rename_noreplace": ("renameat2", lambda at: renameat2(at("file"), at("new"), RENAME_NOREPLACE)),
    "rename_noreplace_refused": ("renameat2", lambda at: renameat2(at("file"), at("other"), RENAME_NOREPLACE)),
    "setxattr_create": ("setxattr", lambda at: os.setxattr(at("file"), "user.new", b"value", os.XATTR_CREATE)),
    "setxattr_create_refused": ("setxattr", lambda at: os.setxattr(at("file"), "user.has", b"x", os.XATTR_CREATE)),
    "setxattr_replace": ("setxattr", lambda at: os.setxattr(at("file"), "user.has", b"other", os.XATTR_REPLACE)),
    "removexattr": ("removexattr", lambda at: os.removexattr(at("file"), "user.has")),
    "removexattr_refused": ("removexattr", lambda at: os.removexattr(at("file"), "user.none")),
    "extend": ("fallocate", lambda at: with_fd(at("file"), lambda fd: fallocate(fd, 0, 30000, 5000))),
    "truncate": ("ftruncate", lambda at: with_fd(at("file"), lambda fd: os.ftruncate(fd, 100))),
    "chmod": ("chmod", lambda at: os.chmod(at("file"), 0o640)),
    "write": ("pwritev2", lambda at: with_fd(at("file"), lambda fd: os.pwrite(fd, b"written" * 1000, 777))),
    "append": ("pwritev2", lambda at: with_fd(at("file"), lambda fd: os.write(fd, b"end"), os.O_WRONLY | os.O_APPEND)),
    "append_only": ("pwritev2", append_only),
    "fsync": ("fsync", lambda at: with_fd(at("file"), os.fsync)),
    "copy": ("copy_file_range", copy),
    "lock": ("fcntl", lambda at: with_fd(at("file"), lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10))),
    "unlock": ("fcntl", lambda at: with_fd(at("file"), lambda fd: lock_and_unlock(fd))),
    "lock_whole": ("flock", lambda at: with_fd(at("file"), lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))),
    "open": ("open", lambda at: read_file(at("file"))),
    "opendir": ("opendir", lambda at: sorted(os.listdir(at()))),
}


def outcome(function, at):
    """What a change gives: its result, or its errno."""
    try:
        return function(at)
    except OSError as error:
        return errno.errorcode[error.errno]


def picture(top):
    """All that clients can see of a tree, but for times and numbers."""
    found = {}
    for directory, names, files in os.walk(top):
        for name in names + files:
            path = os.path.join(directory, name)
            st = os.lstat(path)
            what = [oct(st.st_mode), st.st_nlink]
            if stat.S_ISREG(st.st_mode):
                what += [read_file(path), {name: os.getxattr(path, name) for name in os.listxattr(path)}]
            if stat.S_ISLNK(st.st_mode):
                what.append(os.readlink(path))
            found[os.path.relpath(path, top)] = what
    return found


@test(timeout=120, presets=("release",), variants={name: name for name in CHANGES})
def dies_of(t, name):
    """The worker dies before, after and while it answers the one change: the client gets the answer that the plain
    file system gives, and finds what it leaves."""
    call, change = CHANGES[name]
    plain = Place(t.make_dir("plain"))
    prepare(plain)
    expected = outcome(change, plain)
    for moment in ("before", "after", "answer"):
        source = t.make_dir("source-" + moment)
        prepare(Place(source))
        flag = t.path("flag-" + moment)
        mount = survive_mount(t, source, ["passthrough_max=0"], name="mnt-" + moment, environment={
            "LD_PRELOAD": dies_library(), "FOLDFS_DIES": "%s %s %s" % (call, moment, flag)})
        mount.expect_log(TAKES_OVER)
        picture(mount.point)
        write_file(flag, b"")
        found = outcome(change, Place(mount.point, source))
        # What the plain file system refuses, the kernel may have refused without asking.
        refused = isinstance(expected, str) and expected.startswith("E")
        check(refused or not os.path.exists(flag), "the worker has died at " + call)
        equal(found, expected, "%s, killed %s" % (name, moment))
        equal(picture(mount.point), picture(plain.top), "%s, killed %s: the mount" % (name, moment))
        equal(picture(source), picture(plain.top), "%s, killed %s: the source" % (name, moment))
        until(lambda: mount.status()["open_handles"] == 0, 20, "nothing is open")
        mount.unmount()


# ---- under load -----------------------------------------------------------------------------------------------------


class Writer:
    """Writes and stores pages that say who wrote them when, and checks them all the time."""

    def __init__(self, path, seed, pages):
        self.path, self.rng, self.pages = path, random.Random(seed), pages
        write_file(path, bytes(pages * PAGE))

    def run(self, stop):
        fd = os.open(self.path, os.O_RDWR)
        mapped = mmap.mmap(fd, self.pages * PAGE)
        known = [0] * self.pages
        number = 0
        while not stop():
            number += 1
            page = self.rng.randrange(self.pages)
            words = struct.pack("<Q", number) * (PAGE // 8)
            how = self.rng.randrange(4)
            if how == 0:
                mapped[page * PAGE:(page + 1) * PAGE] = words
                mapped.flush(page * PAGE, PAGE)
            else:
                equal(os.pwrite(fd, words, page * PAGE), PAGE, "bytes written")
            if how == 1:
                os.fsync(fd)
            known[page] = number
            look = self.rng.randrange(self.pages)
            equal(os.pread(fd, PAGE, look * PAGE), struct.pack("<Q", known[look]) * (PAGE // 8), "page %d" % look)
        mapped.close()
        os.close(fd)


class Names:
    """Makes, moves and removes names, and knows which there are."""

    def __init__(self, top, seed):
        self.top, self.rng, self.names = top, random.Random(seed), {}
        os.mkdir(top)

    def step(self, number):
        names, rng = self.names, self.rng
        path = os.path.join(self.top, "n%d" % number)
        what = rng.randrange(7)
        some = rng.choice(sorted(names)) if names else None
        if what == 0 or not some:
            with_fd_of(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY), lambda fd: os.write(fd, b"%d" % number))
            names[path] = b"%d" % number
        elif what == 1:
            os.mkdir(path)
            names[path] = None
        elif what == 2:
            os.rmdir(some) if names[some] is None else os.unlink(some)
            del names[some]
        elif what == 3:
            os.rename(some, path)
            names[path] = names.pop(some)
        elif what == 4 and names[some] is not None:
            os.link(some, path)
            names[path] = names[some]
        elif what == 5:
            os.symlink("nowhere", path)
            os.unlink(path)
        elif names[some] is not None:
            equal(read_file(some), names[some], "content of " + some)
        fails_with(errno.ENOENT, "a name that is not there", os.stat, path + "-not")

    def run(self, stop):
        number = 0
        while not stop():
            number += 1
            self.step(number)
            if len(self.names) > 300:
                for path in sorted(self.names)[:200]:
                    os.rmdir(path) if self.names[path] is None else os.unlink(path)
                    del self.names[path]
        equal(sorted(os.listdir(self.top)), sorted(map(os.path.basename, self.names)), "names at the end")


def walk(top, stop):
    while not stop():
        for directory, _, files in os.walk(top):
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    os.stat(os.path.join(directory, name))


def hold_lock(path, stop):
    """Nobody else gets this one."""
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    while not stop():
        other = os.open(path, os.O_RDWR)
        fails_with(errno.EAGAIN, "the lock", fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)


def kill_within_a_takeover(t, mount):
    """The successor dies as well, at any moment of its start, and perhaps the next one. Returns the seconds until one
    answers."""
    mount.expect_log(TAKES_OVER)
    old = until(lambda: worker_of(mount), 10, "there is a worker")
    until(lambda: age_of(old) > 1.1, 10, "it is old enough")
    begin = time.monotonic()
    for _ in range(t.rng.choice((2, 3))):
        os.kill(old, signal.SIGKILL)
        until(lambda: [pid for pid in daemons_of(mount.process.pid) if pid != old], 20, "a successor begins",
              every=0.0005)
        time.sleep(t.rng.uniform(0, 0.04))
        successors = [pid for pid in daemons_of(mount.process.pid) if pid != old]
        old = successors[0] if successors else old
    fails_with(errno.ENOENT, "a name that is not there", os.stat, mount.path("question-%d" % next(QUESTIONS)))
    return time.monotonic() - begin


def kill_under_load(t, rounds, kill=lambda t, mount: kill_worker(mount)):
    source = t.make_dir("source")
    for number in range(200):
        write_file(source + "/%d" % number, make_pages(t.rng, 4))
    write_file(source + "/lock", b"")
    mount = survive_mount(t, source, ["pool=16M", "window=1M"])
    ended = mmap.mmap(-1, 1)

    def stop():
        return ended[0]

    writers = [Writer(mount.path("writer-%d" % i), t.rng.random(), 600) for i in range(2)]
    names = [Names(mount.path("names-%d" % i), t.rng.random()) for i in range(2)]
    children = [t.fork(each.run, stop) for each in writers + names]
    children += [t.fork(walk, mount.point, stop), t.fork(hold_lock, mount.path("lock"), stop)]
    pauses = []
    for _ in range(rounds):
        time.sleep(t.rng.uniform(0.02, 0.4))
        pauses.append(kill(t, mount))
        for child in children:
            if child.ended():
                child.join(t.limit)
    ended[0] = 1
    t.join(children)
    print("%d times: pause %.1f ms in the median, %.1f at most" % (
        rounds, 1e3 * statistics.median(pauses), 1e3 * max(pauses)))
    mount.unmount()


@test(timeout=120, presets=RELEASE)
def killed_under_load(t):
    """Writers, mapped stores, changes of names, a walk and locks: no error, nothing lost, seven times."""
    kill_under_load(t, t.scaled(7, 5))


@test(timeout=120, presets=RELEASE)
def killed_within_takeovers(t):
    """The same, and successors die before they serve, at any moment."""
    kill_under_load(t, t.scaled(4, 3), kill_within_a_takeover)


@test(suite="full", timeout=600, presets=PRESETS)
def killed_within_takeovers_100_times(t):
    kill_under_load(t, t.scaled(100, 30), kill_within_a_takeover)


@test(suite="full", timeout=600, presets=PRESETS)
def killed_under_load_200_times(t):
    kill_under_load(t, t.scaled(200, 50))


# ---- the end --------------------------------------------------------------------------------------------------------


@test(timeout=60, presets=PRESETS)
def keeper_is_killed(t):
    """The mount ends with an error, and nobody hangs."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    mount = survive_mount(t, source, audit=False)
    mount.expect_log("was killed: the mount ends")
    mount.expect_log("the connection was aborted")
    worker = until(lambda: worker_of(mount), 10, "there is a worker")
    fd = os.open(mount.path("file"), os.O_RDONLY)
    mount.process.kill()
    mount.process.wait(20)
    until(lambda: has_ended(worker), 30, "the worker has ended")
    check(errno_of(os.pread, fd, 10, 0) in (errno.ENOTCONN, errno.ECONNABORTED, 0), "a read fails or was cached")
    fails_with(errno.ENOTCONN, "another open", os.open, mount.path("file"), os.O_RDONLY)
    errno_of(os.close, fd)
    t.run(["umount", "-l", mount.point])


@test(timeout=120, presets=RELEASE)
def dies_again_and_again(t):
    """A worker that dies at once, each time: given up in order, and nobody hangs."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    mount = survive_mount(t, source, audit=False)
    mount.expect_log(TAKES_OVER)
    mount.expect_log("given up")
    mount.expect_log("the connection was aborted")

    def kill():
        worker = worker_of(mount)
        if worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        return mount.process.poll() is not None

    until(kill, 60, "given up")
    equal(mount.process.returncode, 1, "exit status")
    fails_with(errno.ENOTCONN, "an open", os.open, mount.path("file"), os.O_RDONLY)
    t.run(["umount", "-l", mount.point])


def states_of(pid):
    """Those of its threads."""
    found = set()
    for thread in os.listdir("/proc/%d/task" % pid):
        with contextlib.suppress(OSError):
            found.add(read_file("/proc/%d/task/%s/stat" % (pid, thread)).decode().rsplit(")", 1)[1].split()[0])
    return found


@test(timeout=60, presets=RELEASE)
def one_that_is_stuck_is_replaced(t):
    """A worker that is stopped, so that it reads nothing: after the time of the watchdog another one answers."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    mount = survive_mount(t, source, ["watchdog=0.5"])
    mount.expect_log(TAKES_OVER)
    mount.expect_log("has read no request for 0.5 seconds, while the source answers")
    fd = os.open(mount.path("file"), os.O_RDONLY)
    for _ in range(2):
        worker = until(lambda: worker_of(mount), 10, "there is a worker")
        os.kill(worker, signal.SIGSTOP)
        until(lambda: states_of(worker) == {"T"}, 10, "all threads are stopped")
        fails_with(errno.ENOENT, "a name that is not there", os.stat, mount.path("not-there"))
        check(worker_of(mount) != worker, "another one")
        equal(os.pread(fd, 10, 0), b"content", "content")
    os.close(fd)
    mount.unmount()


@test(timeout=60, presets=RELEASE)
def one_that_waits_for_the_source_is_not_stuck(t):
    """A source that hangs, for reads and for names, with many clients: the watchdog ends nobody."""
    source = FaultySource(t)
    for number in range(40):
        write_file(source.backing + "/%d" % number, make_pages(t.rng, 10))
    mount = survive_mount(t, source.point, ["watchdog=0.2"])
    worker = worker_of(mount)
    source.set(0, faulty.HANG, faulty.READ)
    readers = [t.fork(read_file, mount.path(str(number))) for number in range(40)]
    until(lambda: source.applied(0) >= 4, 20, "reads hang")
    # Many times the watchdog's; whoever is not behind the source is answered meanwhile.
    end = time.monotonic() + 2
    while time.monotonic() < end:
        os.stat(mount.point)
        mount.status()
    source.clear(0)
    t.join(readers)
    equal(worker_of(mount), worker, "the process that serves")
    mount.unmount()


@test(timeout=60, presets=RELEASE)
def nobody_waits_for_ever(t):
    """A thread of the dead worker hangs in the source, so no other one may begin: the mount ends after survive_wait=.
    """
    source = FaultySource(t)
    write_file(source.backing + "/file", make_pages(t.rng, 100))
    mount = survive_mount(t, source.point, ["survive_wait=1"], audit=False)
    mount.expect_log("no process has taken over the mount on .* within 1 seconds: given up")
    mount.expect_log("was killed: the mount ends")
    mount.expect_log("the connection was aborted")
    source.set(0, faulty.HANG, faulty.READ)
    reader = t.fork(lambda: check(errno_of(read_file, mount.path("file")) in GONE, "no error"))
    until(lambda: source.applied(0) > 0, 10, "a read hangs")
    worker = worker_of(mount)
    os.kill(worker, signal.SIGKILL)
    check(errno_of(os.stat, mount.path("name")) in GONE, "a name")
    source.clear(0)
    equal(mount.process.wait(20), 1, "exit status")
    t.join([reader])
    until(lambda: has_ended(worker), 20, "the dead one leaves the source")
    t.run(["umount", "-l", mount.point])


@test(timeout=60, presets=RELEASE)
def ends_in_order(t):
    """umount(8) and SIGTERM end keeper and worker, before a death and after one."""
    source = t.make_dir("source")
    for end in (lambda mount: mount.unmount(), lambda mount: mount.stop()):
        for dies in (False, True):
            mount = survive_mount(t, source)
            if dies:
                kill_worker(mount)
            worker = until(lambda: worker_of(mount), 10, "there is a worker")
            end(mount)
            until(lambda: has_ended(worker), 10, "the worker has ended")


@test()
def io_uring_is_refused(t):
    """What cannot be survived is not promised."""
    result = t.run(t.foldfs_command() + [t.make_dir("source"), t.make_dir("mnt"), "-o",
                                         "survive=on,transport=io_uring"], status=1)
    check("survive=on needs transport=dev" in result.stderr, "says why: " + result.stderr)
