# SPDX-License-Identifier: Apache-2.0
"""Nobody stops the others: whatever a user has waiting, or open, other users, root and foldctl are served.

The attacker is one plain user, ATTACKER. Nothing here is timed: what he has under way is still waiting
when the others are done, and ends once he lets it go."""

import errno
import fcntl
import mmap
import os
import signal
import threading

import faulty
from faulty import FaultySource
from harness import PAGE, abort_fuse_under, check, equal, errno_of, fails_with, make_pages, read_file, test, until, write_file
from users import OTHER, USER as ATTACKER, become

# More than libfuse's loop had threads; of one user's share of ours, and beyond it.
MANY, BEYOND = 40, 200
# libfuse's own words, when one of its threads was just taking a request.
ABORTED = "^fuse: reading device: Software caused connection abort$"


class Crowd:
    """A process of user UID that does all CALLS at once, each in a thread, and counts what has ended."""

    def __init__(self, t, uid, calls):
        self.count = len(calls)
        self.errors = mmap.mmap(-1, max(self.count, 1))  # of each call: 0: none yet; 255: done; else its errno
        self.child = t.fork(self._run, uid, calls, may_die_of=signal.SIGKILL)
        self.joined = False
        t.at_end(self._collect)
        self.t = t

    def _run(self, uid, calls):
        become(uid)
        threading.stack_size(64 << 10)
        threads = [threading.Thread(target=self._call, args=pair) for pair in enumerate(calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _call(self, index, call):
        self.errors[index] = errno_of(call) or 255

    def ended(self):
        return self.count - self.errors[:self.count].count(0)

    def kill(self):
        os.kill(self.child.pid, signal.SIGKILL)

    def join(self):
        self.joined = True
        self.t.join([self.child])

    def _collect(self):
        if not self.joined:
            self.kill()


class Leases:
    """Write leases of ATTACKER on files of his in DIRECTORY of the source, which he does not give back before
    give_back()."""

    def __init__(self, t, directory, count):
        self.t = t
        self.names = ["leased-%d" % i for i in range(count)]
        self.paths = [os.path.join(directory, name) for name in self.names]
        for path in self.paths:
            write_file(path, b"leased")
            os.chown(path, ATTACKER, ATTACKER)
        ready, self.taken = os.pipe()
        self.waits, self.go = os.pipe()
        self.child = t.fork(self._hold)
        os.close(self.taken)
        equal(os.read(ready, 1), b"t", "the leases are taken")
        t.at_end(self.give_back)

    def _hold(self):
        os.close(self.go)
        become(ATTACKER)
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fds = [os.open(path, os.O_RDWR) for path in self.paths]
        for fd in fds:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        os.write(self.taken, b"t")
        os.read(self.waits, 1)

    def give_back(self):
        if self.go is not None:
            os.write(self.go, b"g")
            os.close(self.go)
            self.go = None
            self.t.join([self.child])


def long_leases(t):
    """Nobody takes a lease away while the test runs."""
    path = "/proc/sys/fs/lease-break-time"
    before = read_file(path)
    if int(before) < 3600:
        try:
            write_file(path, b"3600\n")
        except OSError as error:
            t.skip("lease-break-time cannot be set: %s" % error)
        t.at_end(lambda: write_file(path, before))


def open_and_close(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags))


def use(mount, name):
    """One of everything, as whoever calls."""
    path = mount.path("others", name)
    names = os.listdir(mount.path("others"))
    check("shared" in names, "the directory lists %r" % names)
    equal(os.stat(mount.path("others", "shared")).st_size, 3 * PAGE, "a size")
    equal(len(read_file(mount.path("others", "shared"))), 3 * PAGE, "what is read")
    write_file(path, b"some bytes")
    os.chmod(path, 0o640)
    equal(read_file(path), b"some bytes", "what was written")
    os.truncate(path, 4)
    os.rename(path, path + "-renamed")
    os.unlink(path + "-renamed")


def make_source(t, source):
    for name in ("attacker", "others"):
        os.makedirs(os.path.join(source, name), exist_ok=True)
    os.chown(os.path.join(source, "attacker"), ATTACKER, ATTACKER)
    os.chmod(os.path.join(source, "others"), 0o1777)
    write_file(os.path.join(source, "others", "shared"), make_pages(t.rng, 3))


def others_are_served(t, mount):
    def as_other():
        become(OTHER)
        use(mount, "of-other")

    t.join([t.fork(as_other)], 60)
    t.join([t.fork(use, mount, "of-root")], 60)
    return mount.status()


@test(timeout=120)
def leases_hold_nobody_up(t):
    """A user has many opens and truncates wait for leases of his: everybody else is served, and they end when
    the leases are given back."""
    long_leases(t)
    source = t.make_dir("source")
    make_source(t, source)
    mount = t.mount(source, transport="dev")
    leases = Leases(t, source + "/attacker", MANY)
    paths = [mount.path("attacker", name) for name in leases.names]
    calls = [lambda path=path: open_and_close(path) for path in paths[:MANY // 2]]
    calls += [lambda path=path: open_and_close(path, os.O_RDWR) for path in paths[MANY // 2:-10]]
    calls += [lambda path=path: os.truncate(path, 3) for path in paths[-10:-5]]
    calls += [lambda path=path: open_and_close(path, os.O_WRONLY | os.O_TRUNC) for path in paths[-5:]]
    crowd = Crowd(t, ATTACKER, calls)
    until(lambda: mount.status()["serving"]["handled"] >= MANY, 60, "the opens wait")
    others_are_served(t, mount)
    fails_with(errno.EAGAIN, "an open with O_NONBLOCK", os.open, paths[0], os.O_RDONLY | os.O_NONBLOCK)
    equal(crowd.ended(), 0, "opens that did not wait")
    leases.give_back()
    crowd.join()
    equal(set(crowd.errors[:MANY]), {255}, "how the opens ended")
    equal(read_file(leases.paths[-6]), b"lea", "a file that was truncated")
    fd = os.open(paths[0], os.O_RDONLY)
    check(not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK, "a client's own flags")
    os.close(fd)
    # The kernel tells of a close some time after it.
    until(lambda: mount.status()["open_handles"] == 0, 60, "no handle is left open")


@test(timeout=120)
def beyond_a_share_requests_are_parked(t):
    """More opens wait than one user's share of threads: the others are served. Killed clients are gone at once,
    those in hand and those that are parked, while the leases are still held."""
    long_leases(t)
    source = t.make_dir("source")
    make_source(t, source)
    mount = t.mount(source, transport="dev")
    leases = Leases(t, source + "/attacker", 8)
    paths = [mount.path("attacker", leases.names[i % 8]) for i in range(BEYOND)]
    crowd = Crowd(t, ATTACKER, [lambda path=path: open_and_close(path) for path in paths])
    until(lambda: mount.status()["serving"]["parked"] > 0, 60, "requests are parked")
    until(lambda: sum(mount.status()["serving"][key] for key in ("handled", "parked")) == BEYOND, 60, "all wait")
    status = others_are_served(t, mount)
    equal(crowd.ended(), 0, "opens that did not wait")
    check(status["serving"]["threads"] > MANY, "threads: %r" % status["serving"])
    check(status["serving"]["handled"] < status["serving"]["threads"], "nobody reads: %r" % status["serving"])
    parked = Crowd(t, ATTACKER, [lambda path=path: open_and_close(path) for path in paths[:10]])
    until(lambda: mount.status()["serving"]["parked"] == status["serving"]["parked"] + 10, 60, "ten more are parked")
    parked.kill()
    parked.join()
    equal(mount.status()["serving"]["parked"], status["serving"]["parked"], "parked requests of who is gone")
    equal(crowd.ended(), 0, "opens that did not wait, by now")
    crowd.kill()
    crowd.join()
    until(lambda: mount.status()["serving"]["handled"] == 0, 60, "no request is left")
    equal(mount.status()["serving"]["parked"], 0, "requests parked yet")
    check(leases.go is not None, "the leases were held")
    leases.give_back()


@test(timeout=120)
def parked_requests_are_done_in_the_end(t):
    """What was parked is done once the user has a thread for it: nothing is lost, nothing is done twice."""
    long_leases(t)
    source = t.make_dir("source")
    make_source(t, source)
    mount = t.mount(source, transport="dev")
    leases = Leases(t, source + "/attacker", 4)
    paths = [mount.path("attacker", leases.names[i % 4]) for i in range(BEYOND)]

    def write(index):
        path = mount.path("attacker", "made-%d" % index)
        write_file(path, b"%d" % index * 1000)

    calls = [lambda path=path: open_and_close(path) for path in paths]
    crowd = Crowd(t, ATTACKER, calls)
    until(lambda: mount.status()["serving"]["parked"] > 0, 60, "requests are parked")
    writers = Crowd(t, ATTACKER, [lambda index=index: write(index) for index in range(20)])
    leases.give_back()
    crowd.join()
    writers.join()
    equal(set(crowd.errors[:crowd.count] + writers.errors[:writers.count]), {255}, "how they ended")
    for index in range(20):
        equal(read_file(source + "/attacker/made-%d" % index), b"%d" % index * 1000, "a file")
    equal(mount.status()["serving"]["refused"], 0, "requests refused")


@test(suite="full", timeout=300)
def what_cannot_be_parked_is_refused(t):
    """There is an end to what one user may have waiting: beyond it he gets EAGAIN at once, and the others are
    served."""
    long_leases(t)
    source = t.make_dir("source")
    make_source(t, source)
    mount = t.mount(source, transport="dev")
    leases = Leases(t, source + "/attacker", 8)
    # 111 in hand and 1792 parked are what one user may have.
    paths = [mount.path("attacker", leases.names[i % 8]) for i in range(2100)]
    crowd = Crowd(t, ATTACKER, [lambda path=path: open_and_close(path) for path in paths])
    until(lambda: mount.status()["serving"]["refused"] > 0, 120, "requests are refused")
    until(crowd.ended, 60, "who was refused is told")
    others_are_served(t, mount)
    leases.give_back()
    crowd.join()
    equal(set(crowd.errors[:crowd.count]), {errno.EAGAIN, 255}, "how they ended")
    equal(mount.status()["memory"]["handles_bytes"], 0, "memory of handles")


@test(timeout=120, variants={"SIGTERM": "SIGTERM", "abort": "abort"})
def the_end_does_not_wait_for_leases(t, how):
    """The daemon is told to end, or its connection is aborted, while requests wait for leases, in hand and parked:
    it ends in order, and so do they."""
    long_leases(t)
    source = t.make_dir("source")
    make_source(t, source)
    mount = t.mount(source, transport="dev", audit=False)
    leases = Leases(t, source + "/attacker", 8)
    paths = [mount.path("attacker", leases.names[i % 8]) for i in range(BEYOND)]
    crowd = Crowd(t, ATTACKER, [lambda path=path: open_and_close(path) for path in paths])
    until(lambda: sum(mount.status()["serving"][key] for key in ("handled", "parked")) == BEYOND, 60, "all wait")
    if how == "abort":
        mount.expect_log(ABORTED)
        mount.expect_log("the connection was aborted: the mount on .* stays, dead")
        abort_fuse_under(mount.point)
    else:
        mount.process.terminate()
    equal(mount.process.wait(60), 1 if how == "abort" else 0, "how the daemon ended")
    if how == "abort":
        t.run(["umount", mount.point])
    crowd.join()
    check(255 not in crowd.errors[:BEYOND], "an open was granted")
    leases.give_back()


@test(timeout=60)
def waiting_for_a_lease_can_be_interrupted(t):
    """A signal ends the wait of a client, with EINTR; the lease stays where it is."""
    long_leases(t)
    source = t.make_dir("source")
    make_source(t, source)
    mount = t.mount(source, transport="dev")
    leases = Leases(t, source + "/attacker", 1)
    path = mount.path("attacker", leases.names[0])
    found = mmap.mmap(-1, PAGE)

    def wait():
        class Interrupted(Exception):
            pass

        def on_signal(*_):
            raise Interrupted

        become(OTHER)
        signal.signal(signal.SIGUSR1, on_signal)
        try:
            found[0] = 1
            os.open(path, os.O_RDONLY)
        except Interrupted:
            found[1] = 1

    child = t.fork(wait)
    until(lambda: found[0] and mount.status()["serving"]["handled"], 30, "the open waits")
    os.kill(child.pid, signal.SIGUSR1)
    t.join([child])
    equal(found[1], 1, "interrupted")
    leases.give_back()


@test(timeout=60)
def a_ring_does_not_wait_for_leases(t):
    """By io_uring a thread answers what comes after, so an open that meets a lease is told to try again."""
    if t.transport != "io_uring":
        t.skip("of io_uring alone")
    long_leases(t)
    source = t.make_dir("source")
    make_source(t, source)
    mount = t.mount(source)
    leases = Leases(t, source + "/attacker", 1)
    fails_with(errno.EAGAIN, "an open", os.open, mount.path("attacker", leases.names[0]), os.O_RDONLY)
    others_are_served(t, mount)
    leases.give_back()
    equal(read_file(mount.path("attacker", leases.names[0])), b"leased", "once it is given back")


@test(timeout=120, variants={"window": [], "own": ["passthrough=*"], "set-id": ["passthrough=*", "suid"]})
def writers_in_the_source_hold_nobody_up(t, options):
    """A user's write(2) in the source takes its bytes from a file system that does not answer, and so keeps the
    file locked there: chmods and truncates through the mount wait, and nobody else does, not even for those files."""
    source = t.make_dir("source")
    make_source(t, source)
    names = ["held-%d" % i for i in range(MANY)]
    for name in names:
        write_file(source + "/attacker/" + name, b"held")
        os.chown(source + "/attacker/" + name, ATTACKER, ATTACKER)
    silent = FaultySource(t)
    write_file(silent.backing + "/file", bytes(MANY * 64 * PAGE))
    mount = t.mount(source, options, transport="dev")
    fd = os.open(silent.point + "/file", os.O_RDONLY)
    memory = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
    os.close(fd)
    memory.madvise(mmap.MADV_RANDOM)
    silent.set(0, faulty.HANG, faulty.READ)

    def write(index):
        fd = os.open(source + "/attacker/" + names[index], os.O_WRONLY)
        with memoryview(memory) as view, view[index * 64 * PAGE:index * 64 * PAGE + PAGE] as part:
            os.pwrite(fd, part, 0)

    writers = Crowd(t, ATTACKER, [lambda index=index: write(index) for index in range(MANY)])
    until(lambda: silent.applied(0) >= MANY, 30, "all writers wait for their bytes")
    mode = 0o4711 if "suid" in options else 0o600
    paths = [mount.path("attacker", name) for name in names]
    calls = [lambda path=path: os.chmod(path, mode) for path in paths[:-10]]
    calls += [lambda path=path: os.truncate(path, 5) for path in paths[-10:]]
    crowd = Crowd(t, ATTACKER, calls)
    until(lambda: mount.status()["serving"]["handled"] >= MANY, 60, "all of them are under way")
    others_are_served(t, mount)
    for path in paths:
        equal(os.stat(path).st_uid, ATTACKER, "the owner of a file that is locked")
        equal(read_file(path), b"held", "a file that is locked")
    # Who opens a file for writing that is getting set-id bits is not served by the kernel.
    fd = os.open(paths[0], os.O_RDWR)
    plan = "own" if "passthrough=*" in options and "suid" not in options else "window"
    equal(mount.status()["plans"], dict({"window": 0, "own": 0, "shared": 0}, **{plan: 1}), "plans")
    os.close(fd)
    equal(crowd.ended(), 0, "calls that did not wait")
    silent.clear(0)
    memory.close()
    writers.join()
    crowd.join()
    equal(set(crowd.errors[:MANY]), {255}, "how they ended")
    equal({os.stat(source + "/attacker/" + name).st_mode & 0o7777 for name in names[:-10]}, {mode}, "modes")
    equal({os.stat(source + "/attacker/" + name).st_size for name in names[-10:]}, {5}, "sizes")


@test(transports="one")
def open_files_go_before_known_ones(t):
    """Descriptors of files that are only known are given back before anybody is refused. Who is refused is not told
    that it is he who has too many open."""
    source = t.make_dir("source")
    limit = 2048
    for i in range(limit):
        write_file(source + "/%d" % i, b"content")
    mount = t.mount(source, limit_nofile=limit)
    for i in range(limit):
        os.stat(mount.path(str(i)))
    found, fds = 0, []
    while not found and len(fds) < limit:
        try:
            fds.append(os.open(mount.path(str(len(fds))), os.O_RDONLY))
        except OSError as error:
            found = error.errno
    equal(found, errno.ENFILE, "one file too many")
    check(len(fds) > limit * 3 // 4, "%d files are open" % len(fds))
    os.close(fds.pop())
    # The release is under way.
    until(lambda: not errno_of(read_file, mount.path(str(limit - 1))), 20, "one is opened in its place")
    check(mount.status()["open_handles"] >= len(fds), "the status answers")
    for fd in fds:
        os.close(fd)


@test(timeout=120, transports="each")
def open_files_are_shared_out(t):
    """One user opens directories, and then files, until he is refused: that takes half of the descriptors at
    most, little memory, all of it counted; another user, root and foldctl go on."""
    source = t.make_dir("source")
    make_source(t, source)
    limit = 2048
    mount = t.mount(source, limit_nofile=limit)
    for i in range(300):
        write_file(source + "/others/a-long-name-of-a-file-that-is-there-%d" % i, b"")
    # One chunk of handles of each kind stays, for the next open.
    os.close(os.open(mount.path("others"), os.O_RDONLY | os.O_DIRECTORY))
    read_file(mount.path("others", "shared"))
    until(lambda: mount.status()["open_handles"] == 0, 30, "nothing is open")
    kept = mount.status()["memory"]["handles_bytes"]
    ends, waits = os.pipe(), os.pipe()

    def take_all():
        os.close(ends[1])
        os.close(waits[0])
        become(ATTACKER)
        flags = os.O_RDONLY | os.O_DIRECTORY
        count, refused = 0, 0
        while not refused:
            try:
                fd = os.open(mount.path("others"), flags)
            except OSError as error:
                refused = error.errno
                break
            if count % 50 == 0:
                os.listdir(fd)
            count += 1
        equal(refused, errno.ENFILE, "one more directory")
        fails_with(errno.ENFILE, "one more file", os.open, mount.path("others", "shared"), os.O_RDONLY)
        fails_with(errno.ENFILE, "a new file", os.open, mount.path("attacker", "new"), os.O_RDWR | os.O_CREAT)
        check(not os.path.exists(mount.path("attacker", "new")), "a file was made that could not be opened")
        os.write(waits[1], b"%d" % count)
        os.read(ends[0], 1)

    attacker = t.fork(take_all)
    os.close(waits[1])
    count = int(os.read(waits[0], 20))
    check(limit // 8 < count < limit // 2, "he got %d of %d" % (count, limit))
    status = others_are_served(t, mount)
    until(lambda: mount.status()["open_handles"] == count, 30, "his handles alone are open")
    check(count * 64 <= status["memory"]["handles_bytes"] <= count * 512, "memory: %r" % status["memory"])
    check(len(os.listdir("/proc/%d/fd" % mount.serving_pid())) < limit - 200, "descriptors are short")
    os.close(ends[1])
    t.join([attacker])
    until(lambda: mount.status()["open_handles"] == 0, 30, "all are given back")
    equal(mount.status()["memory"]["handles_bytes"], kept, "memory of handles")


@test(transports="each")
def directories_are_read_in_pieces(t):
    """No entry is lost or told twice, whatever the client's buffers and wherever it goes on, though a directory
    handle keeps nothing between two requests."""
    source = t.make_dir("source")
    names = {"%s-%d" % ("n" * t.rng.randrange(1, 200), i) for i in range(1500)}
    for name in names:
        write_file(os.path.join(source, name), b"")
    mount = t.mount(source)
    for size in (400, 1000, 4096, 32768, 200000):
        found = list(entries(mount.point, size))
        equal(len(found), len(names) + 2, "entries by %d bytes" % size)
        equal({name for name, _ in found}, names | {".", ".."}, "names by %d bytes" % size)
    everything = list(entries(mount.point, 32768))
    for _ in range(20):
        at = t.rng.randrange(len(everything) - 1)
        rest = list(entries(mount.point, 1000, everything[at][1]))
        equal(rest, everything[at + 1:], "entries from the %dth on" % at)


def entries(path, size, offset=0):
    """Names and offsets by getdents64(2) with a buffer of SIZE bytes."""
    import ctypes
    import struct
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(size)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.lseek(fd, offset, os.SEEK_SET)
    try:
        while True:
            got = libc.syscall(217 if os.uname().machine == "x86_64" else 61, fd, buffer, size)
            check(got >= 0, "getdents64: %s" % os.strerror(ctypes.get_errno()))
            if not got:
                return
            at = 0
            while at < got:
                _, following, length = struct.unpack_from("<QqH", buffer, at)
                yield buffer.raw[at + 19:at + length].split(b"\0")[0].decode(), following
                at += length
    finally:
        os.close(fd)
