# SPDX-License-Identifier: Apache-2.0
"""Every call of foldfs to its source and for memory fails once, one by one.

A fixed list of operations with known results (class Scenario) is run for n = 1, 2, ...: the n-th call
of the chosen classes fails, until a run reaches no fault any more. Each operation gives the right
result, or the fault's errno and nothing wrong: it is then repeated and succeeds. What must not
show (EINTR, short counts, a pool or worker without memory) gives the right result at once.

`tests/crash/run --sweep` takes every n; here a stride is taken, with a random start.
"""

import contextlib
import errno
import mmap
import os
import stat
import struct

from harness import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, Failure, MIB, PAGE,
                     RENAME_EXCHANGE, check, equal, errno_of, fallocate, read_file, renameat2, test,
                     write_file)

# Classes of calls, as in tests/crash/faulty.c.
(READ, WRITE, OPEN, OPEN_PATH, HANDLE, STAT, SIZE, COPY, SYNC, NAME, ATTRIBUTE, DIRECTORY, ALLOCATION,
 THREAD) = (1 << bit for bit in range(14))
SOURCE = ALLOCATION - 1
CONTROL = struct.Struct("<IIiIIIq")
STRIDE = int(os.environ.get("FOLDFS_SWEEP_STRIDE", "0"))
SLOW = 60 if STRIDE else 1


class Faults:
    """What foldfs-faulty is told."""

    def __init__(self, path):
        write_file(path, bytes(PAGE))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), PAGE)

    def arm(self, classes, nth, code):
        CONTROL.pack_into(self.memory, 0, 0, nth, code, 0, 0, 0, self.clock())
        struct.pack_into("<I", self.memory, 0, classes)

    def disarm(self):
        struct.pack_into("<I", self.memory, 0, 0)

    def applied(self):
        return CONTROL.unpack_from(self.memory, 0)[4]

    def hit(self):
        return CONTROL.unpack_from(self.memory, 0)[5]

    def clock(self, seconds=None):
        """Set how far CLOCK_REALTIME is ahead of the truth, or tell."""
        if seconds is not None:
            struct.pack_into("<q", self.memory, 24, seconds)
        return CONTROL.unpack_from(self.memory, 0)[6]


def mount_faulty(t, source, options, **kwargs):
    program = os.path.join(t.build, "tests", "crash", "foldfs-faulty")
    if not os.access(program, os.X_OK):
        t.skip("foldfs-faulty is not built here (not for ThreadSanitizer, not without unit tests)")
    faults = Faults(t.path("faults-of-calls"))
    os.environ["FOLDFS_FAULTS"] = t.path("faults-of-calls")
    command = t.foldfs_command()
    t.foldfs_command = lambda: command[:-1] + [program]
    return t.mount(source, options, **kwargs), faults


class Fault:
    """A kind of fault: which calls, what they say, and which errnos the user may see of it."""

    def __init__(self, classes, code, visible=None):
        self.classes = classes
        self.code = code
        self.visible = {code} if visible is None else visible


# What an errno of the source becomes where it cannot be told from it: a page that is mapped and
# cannot be read is EFAULT to a system call.
IMPLIED = {errno.EFAULT}
FAULTS = {
    "EIO": Fault(SOURCE, errno.EIO),
    "ENOSPC": Fault(WRITE | SIZE | COPY | SYNC | NAME | ATTRIBUTE | OPEN, errno.ENOSPC),
    "EDQUOT": Fault(WRITE | SIZE | COPY | SYNC | NAME, errno.EDQUOT),
    "EMFILE": Fault(OPEN | OPEN_PATH | THREAD, errno.EMFILE),
    "EINTR": Fault(READ | WRITE | OPEN | SIZE | COPY | SYNC, errno.EINTR, set()),
    "short": Fault(READ | WRITE | COPY, 0, set()),
    "ENOMEM": Fault(ALLOCATION, errno.ENOMEM),
}


class Scenario:
    """The operations. Each is repeated after the fault; `model` is what files must hold."""

    def __init__(self, mount, source, faults, fault, rng):
        self.top = mount.path("scenario")
        self.below = os.path.join(source, "scenario")
        self.faults = faults
        self.fault = fault
        self.rng = rng
        self.model = {}
        self.open = {}

    def path(self, name):
        return os.path.join(self.top, name)

    def do(self, what, call, *args, done=None, content=False, failed=None):
        """CALL(*ARGS), once more if the fault hit it. DONE: errno that says that it was done the first
        time. CONTENT: of an open file, which does not depend on memory. FAILED() checks what a failure
        leaves, before the call is repeated."""
        try:
            return call(*args)
        except OSError as error:
            code = error.errno
        except Failure as failure:
            raise Failure("%s: %s" % (what, failure))
        name = errno.errorcode.get(code, code)
        check(self.faults.applied(), "%s: %s, and nothing had failed" % (what, name))
        check(code in self.fault.visible | (IMPLIED if self.fault.visible else set()),
              "%s: %s shows, of a fault in class %d" % (what, name, self.faults.hit()))
        check(not (content and self.fault.code == errno.ENOMEM), "%s: fails without memory" % what)
        if failed:
            failed()
        try:
            return call(*args)
        except OSError as error:
            check(error.errno == done, "%s: %s when repeated" % (
                what, errno.errorcode.get(error.errno, error.errno)))

    def close(self, fd):
        """Closed whatever it says: close(2) tells of an error, and is never repeated."""
        code = errno_of(os.close, fd)
        check(not code or self.faults.applied() and code in self.fault.visible, "close: errno %d" % code)

    # -- pieces of content

    def create(self, name):
        def call():
            self.open[name] = os.open(self.path(name), os.O_RDWR | os.O_CREAT, 0o644)
        self.do("create " + name, call)
        self.model[name] = bytearray()

    def serves_the_source(self, name):
        """Whatever a change that failed has left: the mount has what the source has."""
        self.drop_cache(name)
        wanted = read_file(os.path.join(self.below, name))
        equal(os.pread(self.open[name], len(wanted) + PAGE, 0), wanted, "%s after a change that failed" % name)

    def write(self, name, length, at):
        part = self.rng.randbytes(length)

        def call():
            done = 0
            while done < length:
                done += os.pwrite(self.open[name], part[done:], at + done)
        self.do("write %s" % name, call, content=True, failed=lambda: self.serves_the_source(name))
        model = self.model[name]
        if len(model) < at + length:
            model += bytes(at + length - len(model))
        model[at:at + length] = part

    def read(self, name, length, at, fd=None):
        fd = self.open[name] if fd is None else fd
        wanted = bytes(self.model[name][at:at + length])

        def call():
            found = os.pread(fd, length, at)
            # A read that runs into an error gives what is before it.
            if len(found) < len(wanted) and self.faults.applied() and self.fault.visible and \
                    self.fault.code != errno.ENOMEM and wanted.startswith(found):
                found = os.pread(fd, length, at)
            equal(found, wanted, "content of " + name)
        self.do("read %s" % name, call, content=True)

    def drop_cache(self, name):
        os.posix_fadvise(self.open[name], 0, 0, os.POSIX_FADV_DONTNEED)

    # -- the list

    def run(self):
        self.do("mkdir", os.mkdir, self.top, done=errno.EEXIST)
        self.small_file()
        self.big_file()
        self.mapped()
        self.sizes()
        self.names()
        self.attributes()
        self.compare()
        self.remove()

    def small_file(self):
        self.create("small")
        self.write("small", 100, 0)
        self.read("small", 200, 0)
        equal(self.do("stat", os.stat, self.path("small")).st_size, 100, "size")
        self.do("fsync", os.fsync, self.open["small"])
        # Reopened with O_TRUNC.
        def truncate():
            os.close(os.open(self.path("small"), os.O_WRONLY | os.O_TRUNC))
        self.do("open with O_TRUNC", truncate)
        self.model["small"] = bytearray()
        self.read("small", 100, 0)
        self.write("small", 5000, 0)
        # Whether a failing append has appended is told by the size.
        def append():
            if os.stat(self.path("small")).st_size == 5000:
                os.write(fd, b"appended")
        fd = self.do("open with O_APPEND", os.open, self.path("small"), os.O_WRONLY | os.O_APPEND)
        self.do("append", append)
        self.close(fd)
        self.model["small"] += b"appended"
        self.read("small", 6000, 0)

    def big_file(self):
        self.create("big")
        self.write("big", 300 * 1024, 0)
        self.read("big", 400 * 1024, 0)
        self.write("big", 5000, 12345)
        self.drop_cache("big")
        fd = self.do("open again", os.open, self.path("big"), os.O_RDONLY)
        for at in range(0, 300 * 1024, 100 * 1024):
            self.read("big", 100 * 1024, at, fd)
        self.close(fd)
        self.create("twin")
        part = bytes(self.model["big"])
        def copy():
            os.pwrite(self.open["twin"], part, 0)
        self.do("write the same", copy, content=True)
        self.model["twin"] = bytearray(part)
        self.drop_cache("twin")
        self.read("twin", 400 * 1024, 0)
        self.write("twin", 3 * PAGE, 7 * PAGE)
        self.drop_cache("twin")
        self.read("twin", 20 * PAGE, 0)

    def mapped(self):
        name = "big"
        self.drop_cache(name)
        with mmap.mmap(self.open[name], 300 * 1024) as mapped, \
                contextlib.closing(open(os.memfd_create("sweep"), "r+b", buffering=0)) as memory:
            view = memoryview(mapped)
            for page in (0, 30, 74):
                wanted = bytes(self.model[name][page * PAGE:(page + 1) * PAGE])
                # By a system call, which a page that cannot be read fails; a touch would be SIGBUS.
                def touch():
                    os.pwrite(memory.fileno(), view[page * PAGE:(page + 1) * PAGE], 0)
                    equal(os.pread(memory.fileno(), PAGE, 0), wanted, "a mapped page")
                self.do("touch a mapped page", touch, content=True)
                part = self.rng.randbytes(100)
                os.pwrite(memory.fileno(), part, 0)
                def store():
                    os.preadv(memory.fileno(), [view[page * PAGE + 50:page * PAGE + 150]], 0)
                    mapped.flush(page * PAGE, PAGE)
                self.do("store to a mapped page", store, content=True)
                self.model[name][page * PAGE + 50:page * PAGE + 150] = part
            view.release()
        self.read(name, 300 * 1024, 0)

    def sizes(self):
        fd, model = self.open["twin"], self.model["twin"]
        def same():
            self.serves_the_source("twin")
        self.do("truncate down", os.ftruncate, fd, 150 * 1024 + 77, failed=same)
        del model[150 * 1024 + 77:]
        self.do("truncate up", os.ftruncate, fd, 200 * 1024)
        model += bytes(200 * 1024 - len(model))
        self.read("twin", 250 * 1024, 0)
        for mode in (FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, FALLOC_ZERO_RANGE):
            self.do("fallocate mode %d" % mode, fallocate, fd, mode, 10000, 30000, failed=same)
            model[10000:40000] = bytes(30000)
            self.drop_cache("twin")
            self.read("twin", 250 * 1024, 0)
            self.write("twin", 30000, 10000)
        self.do("fallocate", fallocate, fd, 0, 0, 220 * 1024)
        model += bytes(220 * 1024 - len(model))
        self.do("lseek", os.lseek, fd, 0, os.SEEK_HOLE)
        def copy():
            done = 0
            while done < 50000:
                done += os.copy_file_range(self.open["big"], fd, 50000 - done, 3000 + done, 77000 + done)
        self.do("copy_file_range", copy, failed=same)
        model[77000:127000] = self.model["big"][3000:53000]
        self.do("fdatasync", os.fdatasync, fd)
        self.drop_cache("twin")
        self.read("twin", 250 * 1024, 0)

    def names(self):
        self.do("link", os.link, self.path("small"), self.path("linked"), done=errno.EEXIST)
        self.do("rename", os.rename, self.path("linked"), self.path("moved"), done=errno.ENOENT)
        self.create("victim")
        self.write("victim", 9000, 0)
        victim, self.open["victim"] = self.open["victim"], None
        self.do("rename over a file", os.rename, self.path("moved"), self.path("victim"))
        self.read("victim", 10000, 0, victim)
        self.close(victim)
        del self.model["victim"]
        del self.open["victim"]
        # An exchange that was done but reported as failed would be undone by a second one.
        before = os.stat(os.path.join(self.below, "big")).st_ino
        def exchange():
            if os.stat(os.path.join(self.below, "big")).st_ino == before:
                renameat2(self.path("big"), self.path("twin"), RENAME_EXCHANGE)
        for _ in "ab":
            self.do("exchange", exchange)
            before = os.stat(os.path.join(self.below, "big")).st_ino
        self.do("remove a link", os.unlink, self.path("victim"), done=errno.ENOENT)
        self.do("symlink", os.symlink, "target", self.path("symlink"), done=errno.EEXIST)
        equal(self.do("readlink", os.readlink, self.path("symlink")), "target", "symlink")
        self.do("mknod", os.mknod, self.path("fifo"), stat.S_IFIFO | 0o600, done=errno.EEXIST)
        wanted = {"small", "big", "twin", "symlink", "fifo"}
        equal(set(self.do("listdir", os.listdir, self.top)), wanted, "names")
        for name in wanted:
            self.do("lstat " + name, os.lstat, self.path(name))

    def attributes(self):
        path = self.path("small")
        self.do("chmod", os.chmod, path, 0o640)
        self.do("utime", os.utime, path, (1000, 2000))
        self.do("setxattr", os.setxattr, path, "user.name", b"value")
        equal(self.do("getxattr", os.getxattr, path, "user.name"), b"value", "an attribute")
        check("user.name" in self.do("listxattr", os.listxattr, path), "listxattr")
        self.do("removexattr", os.removexattr, path, "user.name", done=errno.ENODATA)
        found = self.do("stat", os.stat, path)
        equal((found.st_mode & 0o777, found.st_mtime), (0o640, 2000), "mode and time")
        self.do("statvfs", os.statvfs, self.top)
        def sync():
            fd = os.open(self.top, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        self.do("fsync of a directory", sync)

    def compare(self):
        for name, model in self.model.items():
            self.drop_cache(name)
            self.read(name, len(model) + 1, 0)
            equal(read_file(os.path.join(self.below, name)), bytes(model), "%s in the source" % name)

    def remove(self):
        for name in ("small", "big", "twin", "symlink", "fifo"):
            self.do("unlink " + name, os.unlink, self.path(name), done=errno.ENOENT)
        for name, model in self.model.items():
            self.read(name, len(model) + 1, 0)
            self.close(self.open[name])
        self.open.clear()
        self.do("rmdir", os.rmdir, self.top, done=errno.ENOENT)


def clean_up(mount, source):
    for path in (source, mount.point):
        equal(os.listdir(path), ["filler"], "what the scenario leaves in " + path)


def sweep(t, mount, source, faults, kind):
    """Every STRIDE-th fault of a kind. Returns how many applied."""
    fault = FAULTS[kind]
    stride = STRIDE or (60 if t.suite == "full" else 150)
    nth = 1 + t.rng.randrange(stride) if stride > 1 else 1
    applied = 0
    while True:
        faults.arm(fault.classes, nth, fault.code)

        def run():
            try:
                Scenario(mount, source, faults, fault, t.rng).run()
            except BaseException:
                print("the fault: %s in call %d, class %d" % (kind, nth, faults.hit()))
                raise

        t.rng.random()  # other bytes in each run: the pool must not know them yet
        t.join([t.fork(run)], seconds=20)
        faults.disarm()
        clean_up(mount, source)
        if not faults.applied():
            return applied
        applied += 1
        nth += stride


def fail_every_call(t, options, descriptors=None):
    source = t.make_dir("source")
    t.make_dir("source", "filler")
    for number in range(60):
        write_file("%s/filler/%d" % (source, number), b"x")
    common = ["pool=1M", "attr_timeout=0", "entry_timeout=0", "passthrough_max=0"]
    mount, faults = mount_faulty(t, source, common + options, limit_nofile=descriptors)
    kept = [os.open(mount.path("filler", str(number)), os.O_PATH) for number in range(60 if descriptors else 0)]
    total = 0
    for kind in FAULTS:
        applied = sweep(t, mount, source, faults, kind)
        print("%s: %d faults" % (kind, applied), flush=True)
        check(applied or STRIDE != 1, "no fault of kind %s applied" % kind)
        total += applied
    check(total > 3, "only %d faults applied" % total)
    for fd in kept:
        os.close(fd)
    mount.unmount()  # which audits: no frame is lost
    return "%d faults of %d kinds, each followed by a full comparison" % (total, len(FAULTS)) if STRIDE else None


@test(timeout=60 * SLOW, transports="full")
def every_call_fails_once(t):
    """Each call to the source, and each allocation, fails once: no wrong byte, no hang, no frame lost, an
    errno only where there is one to tell, and everything works afterwards."""
    return fail_every_call(t, ["window=0"])


@test(suite="full", timeout=60 * SLOW, transports="full")
def every_call_fails_once_behind_the_window(t):
    """The same with the kernel's cache in between, which is trimmed meanwhile."""
    return fail_every_call(t, ["window=256K"])


@test(suite="full", timeout=60 * SLOW, transports="full")
def every_call_fails_once_with_handles(t):
    """The same with so few descriptors that most inodes are found again by their handle."""
    return fail_every_call(t, ["window=0"], descriptors=64)
