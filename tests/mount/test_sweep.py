# SPDX-License-Identifier: Apache-2.0
"""Every call of foldfs to its source, for memory and for what it needs besides fails once, one by one.

`tests/crash/run --sweep` takes every n; here a stride is taken, with a random start. See sweep.py.
"""

import contextlib
import errno
import glob
import mmap
import os
import shutil
import stat

from harness import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, Failure, PAGE, RENAME_EXCHANGE,
                     check, equal, errno_of, fallocate, make_clone, read_file, renameat2, test, until, write_file)
from sweep import (ALLOCATION, CATALOGUE, Fault, IMPLIED, MACHINERY, MDB_MAP_FULL, OPEN, OPEN_PATH, READ, REPORT,
                   SLOW, SOURCE, START, Scenario, THREAD, fail_every_call, faulty, strides, tell)
from plans import scan


class Changes(Scenario):
    """Everything that changes content, names and attributes, served from the window."""

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


@test(timeout=60 * SLOW, transports="full")
def every_call_fails_once(t):
    """Each call to the source, and each allocation, fails once: no wrong byte, no hang, no frame lost, an
    errno only where there is one to tell, and everything works afterwards."""
    return fail_every_call(t, Changes, ["window=0"])


@test(suite="full", timeout=60 * SLOW, transports="full")
def every_call_fails_once_behind_the_window(t):
    """The same with the kernel's cache in between, which is trimmed meanwhile."""
    return fail_every_call(t, Changes, ["window=256K"])


@test(suite="full", timeout=60 * SLOW, transports="full")
def every_call_fails_once_with_handles(t):
    """The same with so few descriptors that most inodes are found again by their handle."""
    return fail_every_call(t, Changes, ["window=0"], descriptors=64)


# ---- rows beyond the window ----------------------------------------------------------------------

class Known(Scenario):
    """Files that are there before; they make fewer calls."""

    directory = "known"
    leaves = {"known"}
    strides = {"quick": 25, "full": 15}

    @classmethod
    def begin(cls, t, source):
        t.make_dir("source", "known")


class Own(Known):
    """Files that the kernel serves by itself: one that the user named, and one that a scan found to share nothing."""

    kinds = ("EIO", "ENOSPC", "EMFILE", "EINTR", "ENOMEM", "machinery EIO", "machinery ENOMEM", "catalogue full")
    options = ("pool=1M", "attr_timeout=0", "entry_timeout=0", "passthrough=asked")

    @classmethod
    def prepare(cls, t, source):
        for name in ("asked", "unique"):
            write_file(os.path.join(source, "known", name), t.rng.randbytes(30 * PAGE))
        scan(t, source)

    def run(self):
        self.known("asked", "unique")
        for name, again in (("asked", 1), ("unique", 0)):
            self.opened_for_all(name)
            self.settled()
            # What was written is not known any more.
            until(lambda: self.opened_in_own(name, again), 10, "plan of %s when opened again" % name)
            self.read_all(name)
            self.close(self.open[name])
            self.opened(name, os.O_RDWR)
            self.write(name, 100, 20 * PAGE - 50)
            self.read_all(name)
            self.close(self.open[name])
            self.settled()
        self.as_in_the_source()

    def opened_in_own(self, name, files):
        """Open it. The kernel has the source file open for writing for a moment after the last release, and until
        then it stays in passthrough; if that is not to be, it is closed again."""
        self.opened(name)
        if self.faults.armed() or self.mount.status()["plans"]["own"] == files:
            return True
        self.close(self.open[name])
        self.settled()
        return False

    def opened_for_all(self, name):
        reader = self.opened(name)
        self.proves_plan("own", 1)
        self.read_all(name)
        writer = self.opened(name, os.O_RDWR)
        self.write(name, 5000, 3000)
        self.read_all(name, reader)
        with mmap.mmap(reader, len(self.model[name]), prot=mmap.PROT_READ) as mapped:
            self.read_mapped(name, mapped)
        self.do("truncate", os.ftruncate, writer, 20 * PAGE + 9, failed=lambda: self.serves_the_source(name))
        del self.model[name][20 * PAGE + 9:]
        equal(self.do("fstat", os.fstat, reader).st_size, 20 * PAGE + 9, "size")
        self.do("fsync", os.fsync, writer)
        self.read_all(name, reader)
        self.close(writer)
        self.close(reader)


class SharedReadOnly(Known):
    """Files that a scan found equal, in a read-only mount: all from one of them."""

    kinds = ("EIO", "EMFILE", "ENOMEM", "machinery EIO", "machinery ENOMEM", "catalogue full")
    options = ("ro", "pool=1M", "attr_timeout=0", "entry_timeout=0")
    equals = ("a", "b", "c")

    @classmethod
    def begin(cls, t, source):
        super().begin(t, source)
        content = t.rng.randbytes(30 * PAGE)
        for name in cls.equals:
            write_file(os.path.join(source, "known", name), content)
        write_file(os.path.join(source, "known", "nearly"), content[:-1] + bytes([content[-1] ^ 1]))
        scan(t, source)

    def run(self):
        self.known("nearly", *self.equals)
        self.several_at_once()
        self.settled()
        self.one_by_one()
        equal(set(self.do("listdir", os.listdir, self.top)), set(self.model), "names")

    def several_at_once(self):
        fds = {name: self.opened(name) for name in self.model}
        self.proves_plan("shared", len(self.equals))
        maps = {name: mmap.mmap(fd, len(self.model[name]), prot=mmap.PROT_READ) for name, fd in fds.items()}
        for name, fd in fds.items():
            self.read_all(name, fd)
            self.read_mapped(name, maps[name])
            equal(self.do("fstat", os.fstat, fd).st_size, len(self.model[name]), "size")
            again = self.opened(name)
            self.read_all(name, again)
            self.close(again)
        for name, fd in fds.items():
            self.close(fd)
            self.read_mapped(name, maps[name])
            maps[name].close()

    def one_by_one(self):
        for name in self.model:
            fd = self.opened(name)
            self.read_all(name, fd)
            self.close(fd)
            self.settled()


class Overlay(Known):
    """The same where one can write: from a copy that is kept, and who writes gets an inode of its own."""

    kinds = ("EIO", "ENOSPC", "EMFILE", "EINTR", "short", "ENOMEM", "machinery EIO", "machinery ENOMEM",
             "catalogue full")
    options = ("coherence=overlay", "pool=1M", "attr_timeout=0", "entry_timeout=0")
    equals = ("a", "b", "c")
    seconds = 60
    log = "cannot keep a copy of equal files"

    @classmethod
    def begin(cls, t, source):
        super().begin(t, source)
        cls.state = t.path("state")

    @classmethod
    def prepare(cls, t, source):
        content = t.rng.randbytes(30 * PAGE)
        for name in cls.equals:
            write_file(os.path.join(source, "known", name), content)
        scan(t, source)
        for path in cls.kept():
            os.unlink(path)

    @classmethod
    def kept(cls):
        return glob.glob(os.path.join(cls.state, "*", "objects", "*"))

    def run(self):
        self.known(*self.equals)
        until(self.keeps_a_copy, 40, "a copy is kept")
        old = bytes(self.model["a"])
        readers = {name: self.opened(name) for name in self.equals}
        self.proves_plan("shared", len(self.equals))
        maps = {name: mmap.mmap(fd, len(old), prot=mmap.PROT_READ) for name, fd in readers.items()}
        for name, fd in readers.items():
            self.read_all(name, fd)
        self.changed()
        for name, fd in readers.items():
            self.keeps_what_it_opened(name, fd, maps[name], old)
        for name in self.equals:
            fd = self.opened(name)
            self.read_all(name, fd)
            self.close(fd)
        self.as_in_the_source()

    def keeps_a_copy(self):
        """What fails once is wished for again by the next open. A copy has its name before it is used."""
        self.opened("a")
        self.read_all("a")
        shared = self.files_shared()
        self.close(self.open["a"])
        self.settled()
        return shared

    def files_shared(self):
        try:
            return self.mount.status()["plans"]["shared"]
        except Failure:
            check(self.faults.applied(), "no status, and nothing had failed")
            return 0

    def changed(self):
        self.opened("a", os.O_RDWR)
        self.write("a", 5000, 7000)
        self.read_all("a")
        self.do("truncate", os.truncate, self.path("b"), 5 * PAGE + 1)
        del self.model["b"][5 * PAGE + 1:]
        self.close(self.open["a"])

    def keeps_what_it_opened(self, name, fd, mapped, old):
        # Without a shared file, for a fault, who has it open sees what is written, as in any mount.
        seen = self.do("read " + name, os.pread, fd, len(old), 0, content=True)
        if seen != bytes(self.model[name]) or not self.faults.applied():
            equal(seen, old, name + ", by who had it open")
            self.read_mapped(name, mapped, old)
        self.close(fd)
        mapped.close()


class Watched(Known):
    """A source that others change: seen, whatever fails of the watch or of what follows."""

    kinds = ("EIO", "EMFILE", "EINTR", "ENOMEM", "machinery EIO", "machinery ENOMEM")
    options = ("watch", "pool=1M", "attr_timeout=3600", "entry_timeout=3600", "passthrough_max=0")

    @classmethod
    def prepare(cls, t, source):
        write_file(os.path.join(source, "known", "file"), t.rng.randbytes(30 * PAGE))

    def run(self):
        self.known("file")
        self.sees("file", "what is there", self.holds_the_model)
        fd = self.opened("file")
        with mmap.mmap(fd, 30 * PAGE, prot=mmap.PROT_READ) as mapped, \
                open(os.path.join(self.below, "file"), "r+b", buffering=0) as behind:
            self.read_mapped("file", mapped)
            self.changed_behind(behind, 5000, 3 * PAGE - 10)
            self.read_mapped("file", mapped)
            self.changed_behind(behind, 2 * PAGE, 30 * PAGE)
        self.sees("file", "a size", lambda: os.fstat(fd).st_size == len(self.model["file"]))
        self.names_behind()
        self.close(fd)
        self.as_in_the_source()

    def changed_behind(self, behind, length, at):
        part = self.rng.randbytes(length)
        os.pwrite(behind.fileno(), part, at)
        self.model["file"][at:at + length] = part
        self.sees("file", "a change", self.holds_the_model)

    def holds_the_model(self):
        return read_file(self.path("file")) == bytes(self.model["file"])

    def sees(self, name, what, condition):
        until(lambda: self.do("see %s of %s" % (what, name), condition), 10, "seen of %s: %s" % (name, what))

    def names_behind(self):
        made, moved = os.path.join(self.below, "made"), os.path.join(self.below, "moved")
        write_file(made, b"made")
        self.sees("made", "it", lambda: errno_of(os.stat, self.path("made")) == 0)
        os.chmod(made, 0o600)
        self.sees("made", "its mode", lambda: os.stat(self.path("made")).st_mode & 0o777 == 0o600)
        os.rename(made, moved)
        self.sees("moved", "it", lambda: set(os.listdir(self.top)) == {"file", "moved"})
        self.sees("made", "its end", lambda: errno_of(os.stat, self.path("made")) == errno.ENOENT)
        os.unlink(moved)
        self.sees("moved", "its end", lambda: errno_of(os.stat, self.path("moved")) == errno.ENOENT)


class Clones(Known):
    """Files whose pages a scan found equal at the same places: read once for all, until they are written."""

    kinds = ("EIO", "ENOSPC", "EMFILE", "EINTR", "short", "ENOMEM", "machinery EIO", "machinery ENOMEM",
             "catalogue full")
    options = ("pool=2M", "attr_timeout=0", "entry_timeout=0", "passthrough_max=0")
    clones = ("one", "other", "third")

    @classmethod
    def prepare(cls, t, source):
        base = t.rng.randbytes(128 * PAGE)
        for name in cls.clones:
            write_file(os.path.join(source, "known", name), make_clone(t.rng, base, 5))
        scan(t, source)

    def run(self):
        self.known(*self.clones)
        before = self.mount.status()["adopted"] if not self.faults.armed() else 0
        for name in self.clones[:2]:
            self.opened(name, os.O_RDWR)
            self.read_all(name)
        self.proves("adopted", lambda status: status["adopted"], lambda found: found > before)
        # Before it has adopted what is cut first.
        self.opened("third", os.O_RDWR)
        self.read("third", 100, 0)
        # While the others still have the pages that it has no more.
        for name in reversed(self.clones):
            self.cut(name)
            self.read_all(name)
        for name in self.clones:
            self.drop_cache(name)
            self.read_all(name)
            self.close(self.open[name])
        self.as_in_the_source()

    def cut(self, name):
        fd, model = self.open[name], self.model[name]

        def same():
            self.serves_the_source(name)
        self.write(name, 8 * PAGE, 100 * PAGE)
        self.write(name, 5000, 3 * PAGE + 7)
        self.do("punch", fallocate, fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 50 * PAGE + 9, 40000, failed=same)
        model[50 * PAGE + 9:50 * PAGE + 9 + 40000] = bytes(40000)
        self.do("truncate", os.ftruncate, fd, 120 * PAGE + 5, failed=same)
        del model[120 * PAGE + 5:]
        self.do("truncate up", os.ftruncate, fd, 125 * PAGE, failed=same)
        model += bytes(125 * PAGE - len(model))


@test(suite="full", timeout=60 * SLOW, transports="full")
def own_passthrough_fails_at_every_call(t):
    """Every call fails once while the kernel serves files by itself, and when they are opened, closed and opened
    again: what passthrough and the catalogue take is never a reason to fail."""
    return fail_every_call(t, Own, [])


@test(timeout=60 * SLOW, transports="full")
def shared_passthrough_fails_at_every_call(t):
    """The same of equal files in a read-only mount, opened and mapped all at once, and one by one."""
    return fail_every_call(t, SharedReadOnly, [])


@test(suite="full", timeout=120 * SLOW, transports="full")
def overlay_fails_at_every_call(t):
    """The same with coherence=overlay: making the copy fails at every call, readers keep what they opened, and a
    writer's open is answered ESTALE without anybody's seeing it."""
    return fail_every_call(t, Overlay, [])


@test(suite="full", timeout=60 * SLOW, transports="full")
def watch_fails_at_every_call(t):
    """The same with -o watch: what others change is seen, be it that a report is lost and everything is asked anew."""
    return fail_every_call(t, Watched, [])


@test(suite="full", timeout=60 * SLOW, transports="full")
def adopting_fails_at_every_call(t):
    """The same of clones that a scan knows: pages adopted from the family, and cut out of the kin by changes."""
    return fail_every_call(t, Clones, ["window=0"])


# ---- the start and the end -----------------------------------------------------------------------

START_KINDS = {
    "EIO": Fault(SOURCE | MACHINERY | START, errno.EIO),
    "EMFILE": Fault(OPEN | OPEN_PATH | THREAD | START, errno.EMFILE),
    "EINTR": Fault(READ | OPEN | REPORT, errno.EINTR, set()),
    "short": Fault(READ, 0, set()),
    "ENOMEM": Fault(ALLOCATION | MACHINERY | START, errno.ENOMEM),
    "catalogue full": Fault(CATALOGUE, MDB_MAP_FULL),
}
# What a mount says that goes on without what failed.
SAID = "no catalogue of|cannot scan|scan=background|moved aside|shares nothing|cannot keep a copy"


def refused(t, faults, mount):
    """A mount that ended at its start, which is for a fault and said so."""
    check(faults.applied(), "it ends, and nothing had failed: " + mount.log_text())
    equal(mount.process.wait(20), 1, "exit status of a mount that refuses: " + mount.log_text())
    check(mount.log_text().strip() and not mount.is_mounted(), "it ends without a word, or stays mounted")
    t.mounts.remove(mount)


def mounted_under_a_fault(t, source, options, faults):
    """The mount, when its scan is over; None if it refused."""
    try:
        mount = t.mount(source, options)
    except Failure:
        mount = t.mounts[-1]
        if mount.process.poll() is None:
            raise
    # One that was there for a moment may end yet; and a scan has the lowest priority of all.
    until(lambda: mount.process.poll() is not None or scan_is_over(mount, faults), 60 * t.patience,
          "the scan is over")
    if mount.process.poll() is None:
        return mount
    refused(t, faults, mount)
    return None


def scan_is_over(mount, faults):
    try:
        return mount.status()["memory"]["scan_bytes"] == 0
    except Failure:
        check(faults.applied(), "no status, and nothing had failed")
        return False


def start_once(t, source, options, files, faults, fault, nth):
    """Mount, wait for the end of the scan, read, unmount: with the fault anywhere in that."""
    faults.arm(fault.classes, nth, fault.code)
    mount = mounted_under_a_fault(t, source, options, faults)
    if mount:
        read_and_unmount(t, mount, files, faults, fault)
        check(faults.applied() or not mount.log_text(), "nothing had failed, but something is in the log")
    faults.disarm()


def read_and_unmount(t, mount, files, faults, fault):
    before = faults.applied()
    for name, content in files.items():
        code = errno_of(lambda: equal(read_file(mount.path(name)), content, name))
        check(not code or not before and code in fault.visible | IMPLIED, "%s: errno %d" % (name, code))
    faults.disarm()
    for name, content in files.items():
        equal(read_file(mount.path(name)), content, name)
    mount.audit()
    mount.audited = False
    faults.arm_again(fault.classes)
    mount.expect_log(SAID)
    mount.unmount()
    t.mounts.remove(mount)


@test(suite="full", timeout=120 * SLOW, transports="full", variants={"plain": ["ro"], "everything": [
    "watch", "coherence=overlay", "scan=background"]})
def start_fails_at_every_call(t, options):
    """Every call from the start of a mount to its end fails once, with a scan in the background, a watch and kept
    copies: it refuses and says why, or serves every byte; the catalogue it leaves is one that the next can use."""
    source, faults = t.make_dir("source"), faulty(t)
    content = t.rng.randbytes(80 * PAGE)
    files = {"a": content, "b": content, "clone": make_clone(t.rng, content, 5), "small": b"x",
             "zeroes": bytes(3 * PAGE)}
    for name, bytes_ in files.items():
        write_file(os.path.join(source, name), bytes_)
    applied = {}
    for kind, fault in START_KINDS.items():
        for applied[kind], nth in enumerate(strides(t)):
            shutil.rmtree(t.path("state"), ignore_errors=True)
            if nth % 2:
                scan(t, source)
            try:
                start_once(t, source, options, files, faults, fault, nth)
            except Failure as failure:
                raise Failure("%s in call %d, class %d: %s" % (kind, nth, faults.hit(), failure))
            if not faults.applied():
                break
    return tell(t, applied)
