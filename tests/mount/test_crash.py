# SPDX-License-Identifier: Apache-2.0
"""Power failures, clients that die or stop, connections that end: nothing that was promised is lost."""

import errno
import fcntl
import mmap
import os
import shutil
import signal
import socket
import struct

import faulty
from faulty import FaultySource
from harness import (GONE, MIB, PAGE, abort_fuse_under, check, equal, errno_of, fallocate, make_pages, read_file,
                     socket_of, test, until, write_file)
from stamps import stamped, stamps
from sweep import mount_faulty

BUDGETS = {"window": [], "direct": ["window=0"]}
# libfuse's own words, when one of its threads was just taking a request.
DEAD = "the connection was aborted: the mount on .* stays, dead"
ABORTED = "^fuse: reading device: Software caused connection abort$"


# ---- power failures ------------------------------------------------------------------------------

class Flushed:
    """A file that is written through the mount, and what a power failure would leave of it."""

    def __init__(self, t, mount, source, name, flags=0):
        self.t = t
        self.name = name
        self.platter = os.path.join(source.durable, name)
        self.path = mount.path(name)
        write_file(self.path, bytes(40 * PAGE))
        sync_directory(mount.point)
        self.fd = os.open(self.path, os.O_RDWR | flags)
        os.fsync(self.fd)
        self.content = bytearray(40 * PAGE)
        check(os.path.exists(self.platter), "%s: flushed at the start, it is not there" % name)
        equal(read_file(self.platter), bytes(self.content), "%s: flushed at the start" % name)

    def write(self, how=os.pwrite, length=10000, unflushed=True):
        """Write some bytes; UNFLUSHED: they must not be durable yet, or the test would show nothing."""
        at = self.t.rng.randrange(30 * PAGE)
        part = self.t.rng.randbytes(length)
        how(self.fd, part, at)
        self.content[at:at + length] = part
        if unflushed:
            check(read_file(self.platter) != self.content, "%s: durable without a flush" % self.name)

    def is_durable(self, what):
        equal(read_file(self.platter), bytes(self.content), "%s: what %s made durable" % (self.name, what))

    def close(self):
        os.close(self.fd)


def sync_directory(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_with(flag):
    return lambda fd, part, at: os.pwritev(fd, [part], at, flag)


@test(transports="full", variants=BUDGETS)
def flushed_survives_power_loss(t, options):
    """What fsync, fdatasync, msync, O_SYNC, O_DSYNC, RWF_SYNC and RWF_DSYNC promised is there after a
    power failure: foldfs passes on every flush, in time.

    The source loses everything that was not flushed, and nothing else (tests/mount/platter.h).
    """
    source = FaultySource(t, platter=True)
    mount = t.mount(source.point, options)
    for name, flush in (("fsync", os.fsync), ("fdatasync", os.fdatasync)):
        file = Flushed(t, mount, source, name)
        file.write()
        file.write(length=200000)
        flush(file.fd)
        file.is_durable(name)
        file.close()
    for name, flag in (("O_DSYNC", os.O_DSYNC), ("O_SYNC", os.O_SYNC)):
        file = Flushed(t, mount, source, name, flag)
        file.write(unflushed=False)
        file.is_durable("a write with " + name)
        file.write(length=200000, unflushed=False)
        file.is_durable("a large write with " + name)
        file.close()
    for name, flag in (("RWF_DSYNC", os.RWF_DSYNC), ("RWF_SYNC", os.RWF_SYNC)):
        file = Flushed(t, mount, source, name)
        file.write()
        os.fsync(file.fd)
        file.write(write_with(flag), unflushed=False)
        file.is_durable("a write with " + name)
        file.close()
    for name, flag in (("O_APPEND", os.O_APPEND | os.O_DSYNC),):
        file = Flushed(t, mount, source, name, flag)
        os.write(file.fd, b"appended" * 1000)
        file.content += b"appended" * 1000
        file.is_durable("appending with O_DSYNC")
        file.close()


@test(suite="full", transports="full", variants=BUDGETS)
def mapped_and_direct_survive_power_loss(t, options):
    """The same for stores through a mapping, for O_DIRECT, and for changes that are no writes; and a flush
    through one descriptor is one of what all have written."""
    source = FaultySource(t, platter=True)
    mount = t.mount(source.point, options)
    file = Flushed(t, mount, source, "mapped")
    for name, flush in (("msync", lambda mapped: mapped.flush()), ("fsync", lambda _: os.fsync(file.fd))):
        with mmap.mmap(file.fd, 40 * PAGE) as mapped:
            for page in (3, 4, 39):
                mapped[page * PAGE + 5:page * PAGE + 5 + len(name)] = name.encode()
                file.content[page * PAGE + 5:page * PAGE + 5 + len(name)] = name.encode()
            check(read_file(file.platter) != file.content, "mapped stores are durable without a flush")
            flush(mapped)
            file.is_durable(name)
    file.close()

    file = Flushed(t, mount, source, "direct", os.O_DIRECT)
    memory = mmap.mmap(-1, 8 * PAGE)
    for flag in (os.RWF_DSYNC, os.RWF_SYNC):
        memory[:] = t.rng.randbytes(8 * PAGE)
        os.pwritev(file.fd, [memory], 16 * PAGE, flag)
        file.content[16 * PAGE:24 * PAGE] = memory[:]
        file.is_durable("a direct write with flag %d" % flag)
    file.close()

    file = Flushed(t, mount, source, "changed")
    os.ftruncate(file.fd, 35 * PAGE + 7)
    del file.content[35 * PAGE + 7:]
    fallocate(file.fd, 0, 36 * PAGE, PAGE)
    file.content += bytes(37 * PAGE - len(file.content))
    file.write()
    os.fsync(file.fd)
    file.is_durable("fsync after truncation and allocation")
    file.write()
    other = os.open(file.path, os.O_RDONLY)
    os.fdatasync(other)
    os.close(other)
    file.is_durable("fdatasync through another descriptor")
    file.close()


@test(transports="full")
def names_survive_power_loss(t):
    """Names that were flushed with fsync of their directory are there after a power failure: made, linked,
    renamed, replaced, removed; and not before."""
    source = FaultySource(t, platter=True)
    mount = t.mount(source.point)

    def flush_then(names, what):
        check(sorted(os.listdir(source.durable)) != names, "%s: durable without a flush" % what)
        sync_directory(mount.point)
        equal(sorted(os.listdir(source.durable)), names, what)

    with open(mount.path("first"), "wb") as file:
        file.write(b"first content")
        file.flush()
        os.fsync(file.fileno())
    flush_then(["first"], "made")
    equal(read_file(os.path.join(source.durable, "first")), b"first content", "flushed before its name")
    os.link(mount.path("first"), mount.path("linked"))
    flush_then(["first", "linked"], "linked")
    os.mkdir(mount.path("sub"))
    flush_then(["first", "linked", "sub"], "a directory")
    with open(mount.path("new"), "wb") as file:
        file.write(b"new content")
        file.flush()
        os.fsync(file.fileno())
    os.rename(mount.path("new"), mount.path("first"))
    equal(read_file(os.path.join(source.durable, "first")), b"first content", "before the replacement is flushed")
    sync_directory(mount.point)
    equal(read_file(os.path.join(source.durable, "first")), b"new content", "replaced")
    equal(read_file(os.path.join(source.durable, "linked")), b"first content", "its other name")
    os.unlink(mount.path("linked"))
    flush_then(["first", "sub"], "removed")
    os.rename(mount.path("first"), mount.path("sub", "moved"))
    sync_directory(mount.path("sub"))
    sync_directory(mount.point)
    equal(os.listdir(source.durable), ["sub"], "moved away")
    equal(read_file(os.path.join(source.durable, "sub", "moved")), b"new content", "moved")


def flush_for_ever(path, log, flush):
    """Write records, one after the other; note in shared memory what was flushed, after it was."""
    fd = os.open(path, os.O_RDWR)
    try:
        for sequence in range(1, 1 << 30):
            os.pwrite(fd, stamped(0, sequence), sequence % 16 * PAGE)
            flush(fd)
            struct.pack_into("<Q", log, 0, sequence)
    except OSError as error:
        check(error.errno in GONE, "errno of a write or a flush: %s" % error)


@test(transports="full", timeout=60)
def power_fails_under_load(t):
    """The power fails, and the daemon with it, while four writers flush: every record that was flushed
    before is there, by whatever way."""
    source = FaultySource(t, platter=True)
    mount = t.mount(source.point, ["pool=1M", "window=256K"])
    names = ["a", "b", "c", "d"]
    for name in names:
        write_file(mount.path(name), bytes(16 * PAGE))
    sync_directory(mount.point)
    logs = [mmap.mmap(-1, PAGE) for _ in names]
    flushes = [os.fsync, os.fdatasync, os.fsync, os.fdatasync]
    writers = [t.fork(flush_for_ever, mount.path(name), log, flush)
               for name, log, flush in zip(names, logs, flushes)]
    until(lambda: all(struct.unpack_from("<Q", log)[0] >= t.rng.randrange(20, 80) for log in logs), 30,
          "every writer has flushed some")
    flushed = [struct.unpack_from("<Q", log)[0] for log in logs]
    left = [read_file(os.path.join(source.durable, name)) for name in names]
    mount.kill()
    t.join(writers)
    for name, before, content in zip(names, flushed, left):
        for sequence in range(max(1, before - 15), before + 1):
            at = sequence % 16 * PAGE
            written = set(number for _, number in stamps(content[at:at + PAGE]))
            torn = None in written
            written.discard(None)
            check(all(number >= sequence and number % 16 == sequence % 16 for number in written),
                  "%s: record %d was flushed, what is left is %s" % (name, sequence, written))
            # A page that was being written again as it was looked at may be torn, by a later record:
            # whichever of the two its first bytes are of.
            check(not torn and len(written) == 1 or max(written) > before,
                  "%s: record %d is not whole" % (name, sequence))


@test(suite="full", transports="full", timeout=60)
def power_fails_on_ext4(t):
    """A real disk: what was flushed through the mount is found by ext4's recovery in an image taken at that
    moment; what was not, is not, so the flush is what has brought it there."""
    source = t.loop_file_system("ext4", 32 * MIB)
    mount = t.mount(source)
    # Longer: to write the bytes back is not enough, it takes the file system's journal.
    old, new = make_pages(t.rng, 10), make_pages(t.rng, 14)
    for name in ("flushed", "unflushed"):
        write_file(mount.path(name), old)
    t.run(["sync", "-f", source])
    files = {name: os.open(mount.path(name), os.O_RDWR) for name in ("flushed", "unflushed")}
    for fd in files.values():
        os.pwrite(fd, new, 0)
    os.fsync(files["flushed"])
    shutil.copyfile(t.path("loop.img"), t.path("left.img"))
    left = t.make_dir("left")
    t.run(["mount", "-o", "loop", t.path("left.img"), left])
    t.at_end(lambda: t.run(["umount", left]))
    equal(read_file(left + "/flushed"), new, "flushed, after recovery")
    equal(read_file(left + "/unflushed"), old, "not flushed, after recovery")
    for fd in files.values():
        os.close(fd)
    mount.unmount()


# ---- clients that die or stop --------------------------------------------------------------------

class Stuck:
    """Calls of clients on a source that hangs, by child processes that are killed meanwhile."""

    def __init__(self, t, functions):
        self.children = []
        for function in functions:
            pid = os.fork()
            if pid == 0:
                function()
                os._exit(0)
            self.children.append(pid)

    def kill(self):
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)

    def collect(self):
        for pid in self.children:
            os.waitpid(pid, 0)


@test(transports="full", variants=BUDGETS)
def clients_killed_in_the_middle(t, options):
    """Clients are killed while their reads, writes and opens wait for a source that hangs: once it goes on
    they are gone, everybody else has the right bytes, and the mount can be unmounted at once."""
    source = FaultySource(t)
    content = make_pages(t.rng, 300)
    names = ["a", "b", "c"]
    for name in names:
        write_file(source.backing + "/" + name, content)
    mount = t.mount(source.point, options + ["pool=2M"])
    fds = [os.open(mount.path(name), os.O_RDWR) for name in names]
    source.set(0, faulty.HANG, faulty.READ | faulty.WRITE)
    new = t.rng.randbytes(9 * PAGE)
    stuck = Stuck(t, [lambda: os.pread(fds[0], 200 * PAGE, 0), lambda: os.pread(fds[1], PAGE, 9 * PAGE),
                      lambda: os.pwrite(fds[2], new, 20 * PAGE), lambda: read_file(mount.path("b"))])
    # By io_uring all that comes from one processor waits in one queue.
    until(lambda: source.applied(0) >= (2 if t.transport == "dev" else 1), 20, "calls hang")
    stuck.kill()
    source.clear(0)
    stuck.collect()
    equal(os.pread(fds[0], 300 * PAGE, 0), content, "a file whose reader was killed")
    equal(os.pread(fds[1], 300 * PAGE, 0), content, "another")
    found = os.pread(fds[2], 300 * PAGE, 0)
    equal(found, read_file(source.backing + "/c"), "a file whose writer was killed")
    check(found in (content, content[:20 * PAGE] + new + content[29 * PAGE:]), "half of a write that was killed")
    for fd in fds:
        os.close(fd)
    mount.unmount()


@test(suite="full", transports="full", variants=BUDGETS)
def signals_to_waiting_clients(t, options):
    """Signals to clients that wait, for the source or for a lock: reads and writes give all that was asked
    or EINTR, never part of a request as if it were all of the file; a wait for a lock ends with EINTR."""
    source = FaultySource(t)
    content = make_pages(t.rng, 200)
    write_file(source.backing + "/file", content)
    mount = t.mount(source.point, options + ["pool=1M"])
    holder, waiter = (os.open(mount.path("file"), os.O_RDWR) for _ in "hw")
    readers = [os.open(mount.path("file"), os.O_RDONLY) for _ in "ab"]
    fcntl.flock(holder, fcntl.LOCK_EX)
    ended = mmap.mmap(-1, PAGE)

    def interrupted(function, *args):
        """Its result, or None if a signal ended it."""
        def note(*_):
            raise InterruptedError(errno.EINTR, "a signal")
        signal.signal(signal.SIGALRM, note)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        try:
            return function(*args)
        except InterruptedError:
            return None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def reader(fd):
        found = interrupted(os.pread, fd, 200 * PAGE, 0)
        check(found is None or found == content, "a read that was interrupted gave something else")

    def locker():
        check(interrupted(lambda: fcntl.flock(waiter, fcntl.LOCK_EX) or True) is None, "the lock was given twice")
        ended[0] = 1

    def has_signal(child):
        with open("/proc/%d/status" % child.pid) as status:
            pending = next(line.split()[1] for line in status if line.startswith("ShdPnd"))
        return int(pending, 16) >> signal.SIGALRM - 1 & 1

    source.set(0, faulty.HANG, faulty.READ)
    children = [t.fork(reader, fd) for fd in readers]
    # Held back until the call returns: the kernel has told the daemon, and waits for the answer.
    until(lambda: source.applied(0) and all(map(has_signal, children)), 20, "signals came while reads hang")
    children.append(t.fork(locker))
    until(lambda: ended[0], 20, "a signal ended the wait for a lock")
    source.clear(0)
    t.join(children)
    equal(os.pread(holder, 300 * PAGE, 0), content, "afterwards")
    for fd in [holder, waiter] + readers:
        os.close(fd)
    mount.unmount()


@test(suite="full", transports="full")
def suspended_reader(t):
    """A reader is stopped in the middle of a large read, with pages mapped; writers go on and finish, the
    window is trimmed; continued, it has the new bytes in its mapping and whole pages in its read."""
    source = t.make_dir("source")
    old, new = b"o" * PAGE, b"n" * PAGE
    write_file(source + "/file", old * 2048)
    mount = t.mount(source, ["pool=1M", "window=1M"])
    progress = mmap.mmap(-1, PAGE)

    def reader():
        fd = os.open(mount.path("file"), os.O_RDONLY)
        with mmap.mmap(fd, 2048 * PAGE, prot=mmap.PROT_READ) as mapped:
            while not progress[1]:
                for part in (os.pread(fd, 2048 * PAGE, 0), mapped[:]):
                    progress[0] = 1
                    for page in range(0, 2048, 16):
                        check(part[page * PAGE:(page + 1) * PAGE] in (old, new), "page %d is torn" % page)
            equal(mapped[:], new * 2048, "its mapping")

    child = t.fork(reader)
    until(lambda: progress[0], 20, "the reader has read once")
    os.kill(child.pid, signal.SIGSTOP)

    def writer(first):
        fd = os.open(mount.path("file"), os.O_RDWR)
        for page in range(first, 2048, 2):
            os.pwrite(fd, new, page * PAGE)

    try:
        t.join([t.fork(writer, 0), t.fork(writer, 1)], seconds=30)
        equal(read_file(mount.path("file")), new * 2048, "while the reader is stopped")
    finally:
        progress[1] = 1
        os.kill(child.pid, signal.SIGCONT)
    t.join([child])


# ---- mounts that end -----------------------------------------------------------------------------

def count_for_ever(path, source_path, page, written):
    """Write counting numbers to a page until the mount is gone; the source has all that were taken."""
    fd = os.open(path, os.O_RDWR)
    number = 0
    try:
        for number in range(1, 1 << 30):
            os.pwrite(fd, b"%08d" % number, page * PAGE)
            written[page] = 1
    except OSError as error:
        check(error.errno in GONE, "errno of a write: %s" % error)
    found = int(read_file(source_path)[page * PAGE:page * PAGE + 8] or b"0")
    check(found >= number - 1, "write %d was acknowledged, the source has %d" % (number - 1, found))


@test(transports="each")
def aborted_connection(t):
    """The connection is aborted under load: clients get errors, what was acknowledged is in the source, the
    daemon ends by itself, says that the mount is dead, and leaves it there."""
    source = t.make_dir("source")
    write_file(source + "/file", bytes(8 * PAGE))
    mount = t.mount(source)
    written = mmap.mmap(-1, PAGE)
    clients = [t.fork(count_for_ever, mount.path("file"), source + "/file", page, written)
               for page in range(3)]
    mount.expect_log(ABORTED)
    until(lambda: all(written[:3]), 20, "every client writes")
    mount.expect_log(DEAD)
    abort_fuse_under(mount.point)
    t.join(clients)
    mount.ended(1)
    check(mount.is_mounted(), "the dead mount is gone")
    t.run(["umount", mount.point])


@test(suite="full", transports="full")
def forced_unmount(t):
    """umount -f of a busy mount under load: clients get errors, what was acknowledged is in the source, the dead
    mount stays, and after its unmount the place is free for another one."""
    source = t.make_dir("source")
    write_file(source + "/file", bytes(8 * PAGE))
    mount = t.mount(source)
    written = mmap.mmap(-1, PAGE)
    clients = [t.fork(count_for_ever, mount.path("file"), source + "/file", page, written)
               for page in range(3)]
    mount.expect_log(ABORTED)
    until(lambda: all(written[:3]), 20, "every client writes")
    mount.expect_log(DEAD)
    t.run(["umount", "-f", mount.point], status=None)
    t.join(clients)
    mount.ended(1)
    t.run(["umount", mount.point])
    again = t.mount(source)
    equal(read_file(again.path("file")), read_file(source + "/file"), "content through the next mount")
    again.unmount()


@test(suite="full", transports="full", variants=BUDGETS)
def lazy_unmount_while_in_use(t, options):
    """umount -l: who has files open goes on with them, mapped stores included, and the daemon ends in order
    when the last is closed."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 100)
    write_file(source + "/file", content)
    mount = t.mount(source, options)
    fd = os.open(mount.path("file"), os.O_RDWR)
    mapped = mmap.mmap(fd, 100 * PAGE)
    t.run(["umount", "-l", mount.point])
    check(not mount.is_mounted(), "still in the list of mounts")
    equal(os.pread(fd, 100 * PAGE, 0), content, "read after a lazy unmount")
    os.pwrite(fd, b"written", 5 * PAGE)
    equal(read_file(source + "/file")[5 * PAGE:5 * PAGE + 7], b"written", "in the source")
    mapped[7 * PAGE:7 * PAGE + 6] = b"stored"
    mapped.close()
    os.close(fd)
    mount.ended(0)
    equal(read_file(source + "/file")[7 * PAGE:7 * PAGE + 6], b"stored", "a mapped store, in the source")


@test(suite="full", timeout=60)
def source_hangs_at_the_end(t):
    """SIGTERM while the source hangs for good: the daemon ends within its limit with status 1 and says why,
    its clients get an error, and the mount is gone."""
    source = FaultySource(t)
    write_file(source.backing + "/file", make_pages(t.rng, 100))
    mount = t.mount(source.point, ["pool=16M"])
    mount.expect_log("does not answer: the daemon ends without waiting for it")
    fd = os.open(mount.path("file"), os.O_RDWR)
    source.set(0, faulty.HANG, faulty.READ)
    reader = t.fork(lambda: check(errno_of(os.pread, fd, 50 * PAGE, 0) in GONE, "no error"))
    until(lambda: source.applied(0), 20, "a read hangs")
    mount.process.send_signal(signal.SIGTERM)
    until(lambda: not mount.is_mounted(), 45 * t.patience, "the mount is gone")
    t.join([reader])
    check("ends without waiting" in mount.log_text(), "nothing in the log")
    # Where a FUSE source has taken a request, the kernel waits for its answer, even at the end of a process.
    source.clear(0)
    mount.ended(1)
    errno_of(os.close, fd)  # ENOTCONN: there is nobody to tell


# ---- clocks --------------------------------------------------------------------------------------

@test(suite="full", timeout=60)
def coarse_times_and_clock_jumps(t):
    """A source that keeps whole seconds is changed behind the mount several times within one of them: each
    open has the newest content; also while the daemon's clock is set back, and whatever times files have."""
    image, source = t.path("coarse.img"), t.make_dir("coarse")
    with open(image, "wb") as file:
        file.truncate(16 * MIB)
    t.run(["mkfs.ext4", "-q", "-I", "128", image])
    t.run(["mount", "-o", "loop", image, source])
    t.at_end(lambda: t.run(["umount", source]))
    write_file(source + "/file", bytes(20 * PAGE))
    if os.stat(source + "/file").st_ctime_ns % 10**9:
        t.skip("this ext4 keeps parts of a second with small inodes too")
    mount, faults = mount_faulty(t, source, ["attr_timeout=0", "entry_timeout=0", "passthrough_max=0"])
    for seconds in (0, -3600, -10**9, 0):
        faults.clock(seconds)
        for turn in range(20):
            content = t.rng.randbytes(20 * PAGE)
            with open(source + "/file", "r+b") as file:
                file.write(content)
            equal(read_file(mount.path("file")), content, "clock %+d s, change %d" % (seconds, turn))
    faults.clock(10**9)
    for when in (0, 1, 2**31 - 1, 10**9):
        os.utime(mount.path("file"), (when, when))
        equal(os.stat(mount.path("file")).st_mtime, when, "mtime, set through the mount")
        with open(mount.path("file"), "r+b") as file:
            file.write(b"%d" % when)
        equal(read_file(mount.path("file")), read_file(source + "/file"), "written after mtime %d" % when)
    mount.unmount()


# ---- the control socket --------------------------------------------------------------------------

@test(suite="full", timeout=60)
def full_control_socket(t):
    """The control socket's queue is full of clients that say nothing: foldctl comes to an end, one way or
    the other, the mount serves, and when they have gone everything is answered again."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 200)
    write_file(source + "/file", content)
    mount = t.mount(source)
    silent = []
    code = 0
    while not code and len(silent) < 200:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        silent.append(client)
        code = client.connect_ex(socket_of(mount))
    equal(code, errno.EAGAIN, "errno of one client too many, after %d" % len(silent))
    child = t.fork(lambda: t.run(t.foldctl_command() + ["status", mount.point], status=None, timeout=50))
    equal(read_file(mount.path("file")), content, "content")
    for client in silent:
        client.close()
    t.join([child])
    equal(mount.status()["mountpoint"], mount.point, "when they have gone")
