# SPDX-License-Identifier: Apache-2.0
"""Clients that are killed, interrupted or suspended in the middle of a request.

The source hangs in just the call that a request needs, so that its client is at it for as long as we like.
What others ask meanwhile is answered. Once the source goes on, the client is gone, what it was at has
happened as a whole or not at all, the mount shows the source, and nothing of the client is left open.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import signal

import faulty
from faulty import FaultySource
from harness import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, MIB, PAGE, Gate, Skip, check, equal, fails_with,
                     fallocate, make_pages, read_file, test, until, write_file)

PAGES = 40
LARGE = 3 * MIB  # more than one request


class Place:
    """A directory of one client, and what is in it."""

    def __init__(self, mount, source, name, rng):
        self.point = mount.path(name)
        self.behind = os.path.join(source.backing, name)
        self.under = "/" + name
        self.tree = {"file": make_pages(rng, PAGES), "other": make_pages(rng, PAGES)}
        self.new = rng.randbytes(LARGE)
        os.mkdir(self.behind)
        for each, content in self.tree.items():
            write_file(os.path.join(self.behind, each), content)

    def path(self, name="file"):
        return os.path.join(self.point, name)

    def open(self, flags=os.O_RDWR, name="file"):
        return os.open(self.path(name), flags)

    def changed(self, **files):
        """The tree with these files changed; None: without it."""
        tree = dict(self.tree, **files)
        return {name: content for name, content in tree.items() if content is not None}

    def file_with(self, part, offset):
        file = self.tree["file"]
        return self.changed(file=file[:offset] + part + file[offset + len(part):])


# ---- what a client is at -------------------------------------------------------------------------
#
# Each gets a place and says: in which call of the source the client is to hang, what it does (made ready in
# the client, before the source hangs), and the trees that may be found afterwards, of which the last is that
# where it has been done.

def opening(p):
    return faulty.OPEN, lambda: lambda: p.open(), [p.tree]


def opening_truncating(p):
    return faulty.TRUNCATE, lambda: lambda: p.open(os.O_RDWR | os.O_TRUNC), [p.tree, p.changed(file=b"")]


def opening_to_truncate(p):
    return faulty.OPEN, lambda: lambda: p.open(os.O_RDWR | os.O_TRUNC), [p.tree, p.changed(file=b"")]


def creating(p):
    return faulty.CREATE, lambda: lambda: p.open(os.O_RDWR | os.O_CREAT | os.O_EXCL, "new"), [
        p.tree, p.changed(new=b"")]


def reading(p):
    def ready():
        fd = p.open(os.O_RDONLY)
        return lambda: os.pread(fd, PAGES * PAGE, 0)
    return faulty.READ, ready, [p.tree]


def faulting(p):
    def ready():
        mapped = mmap.mmap(p.open(), 0)
        mapped.madvise(mmap.MADV_RANDOM)
        return lambda: mapped[10 * PAGE]
    return faulty.READ, ready, [p.tree]


def writing(p):
    def ready():
        fd = p.open()
        return lambda: equal(os.pwrite(fd, p.new[:2 * PAGE], 5 * PAGE + 9), 2 * PAGE, "bytes written")
    # Whole pages of it, if it is killed in between.
    return faulty.WRITE, ready, [p.file_with(p.new[:size], 5 * PAGE + 9)
                                 for size in (0, PAGE - 9, 2 * PAGE - 9, 2 * PAGE)]


def writing_much(p):
    """The second of its requests hangs: what there is may be any number of whole pages."""
    def ready():
        fd = p.open()
        buffer = mmap.mmap(-1, LARGE)
        buffer[:] = p.new

        def write():
            done = 0
            while done < LARGE:
                done += os.pwrite(fd, memoryview(buffer)[done:], done)
        return write
    return (faulty.WRITE, MIB), ready, [p.file_with(p.new[:size], 0) for size in range(0, LARGE + 1, PAGE)]


def synchronising(p):
    def ready():
        fd = p.open()
        os.pwrite(fd, b"synchronised", 7)
        return lambda: os.fsync(fd)
    return faulty.FSYNC, ready, [p.file_with(b"synchronised", 7)]


def storing(p):
    def ready():
        mapped = mmap.mmap(p.open(), 0)
        mapped[8 * PAGE + 5:8 * PAGE + 11] = b"stored"
        return mapped.flush
    return faulty.WRITE, ready, [p.file_with(b"stored", 8 * PAGE + 5)]


def closing(p):
    def ready():
        fd = p.open()
        os.pwrite(fd, b"closed", 3 * PAGE)
        return lambda: os.close(fd)
    return faulty.FLUSH, ready, [p.file_with(b"closed", 3 * PAGE)]


def closing_with_stores(p):
    def ready():
        fd = p.open()
        mapped = mmap.mmap(fd, 0)

        def store_and_close():
            mapped[8 * PAGE + 5:8 * PAGE + 11] = b"stored"
            os.close(fd)
        return store_and_close
    return faulty.WRITE, ready, [p.tree, p.file_with(b"stored", 8 * PAGE + 5)]


def truncating(p):
    def ready():
        fd = p.open()
        return lambda: os.ftruncate(fd, 20 * PAGE + 1)
    return faulty.TRUNCATE, ready, [p.tree, p.changed(file=p.tree["file"][:20 * PAGE + 1])]


def punching(p):
    def ready():
        fd = p.open()
        return lambda: fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 10 * PAGE, 5 * PAGE)
    return faulty.FALLOCATE, ready, [p.tree, p.file_with(bytes(5 * PAGE), 10 * PAGE)]


def copying(p):
    def ready():
        fd, other = p.open(), p.open(os.O_RDONLY, "other")
        return lambda: equal(os.copy_file_range(other, fd, 4 * PAGE, 0, 30 * PAGE), 4 * PAGE, "bytes copied")
    return faulty.WRITE, ready, [p.tree, p.file_with(p.tree["other"][:4 * PAGE], 30 * PAGE)]


def renaming(p):
    return faulty.RENAME, lambda: lambda: os.rename(p.path(), p.path("other")), [
        p.tree, p.changed(file=None, other=p.tree["file"])]


def unlinking(p):
    return faulty.UNLINK, lambda: lambda: os.unlink(p.path()), [p.tree, p.changed(file=None)]


def asking(p):
    return faulty.GETATTR, lambda: lambda: os.stat(p.path()), [p.tree]


def listing(p):
    def ready():
        fd = os.open(p.point, os.O_RDONLY)
        return lambda: equal(sorted(os.listdir(fd)), sorted(p.tree), "what is listed")
    return faulty.READDIR, ready, [p.tree]


ACTS = (opening, opening_truncating, opening_to_truncate, creating, reading, faulting, writing, writing_much,
        synchronising, storing, closing, closing_with_stores, truncating, punching, copying, renaming,
        unlinking, asking, listing)


# ---- who is at it, and who else is there ---------------------------------------------------------

class Rest:
    """A directory of others, and what they may want meanwhile."""

    def __init__(self, mount, source, rng):
        self.mount = mount
        self.content = make_pages(rng, 2 * len(ACTS))
        self.turns = 0
        behind = os.path.join(source.backing, "rest")
        os.mkdir(behind)
        write_file(behind + "/shared", self.content)

    def path(self, name):
        return self.mount.path("rest", name)

    def use(self, turn):
        fd = os.open(self.path("shared"), os.O_RDWR)
        at = turn * PAGE
        equal(os.pread(fd, PAGE, at), self.content[at:at + PAGE], "a page that nobody has read yet")
        os.pwrite(fd, b"beside", len(self.content) + 6 * turn)
        os.fsync(fd)
        os.close(fd)
        write_file(self.path("new"), b"new")
        os.rename(self.path("new"), self.path("moved"))
        os.truncate(self.path("moved"), 1)
        equal(os.stat(self.path("moved")).st_size, 1, "a size for somebody else")
        # faulty_source hides a file that is removed while its last release is on the way.
        names = [name for name in os.listdir(self.path(".")) if not name.startswith(".fuse_hidden")]
        equal(sorted(names), ["moved", "shared"], "what is listed for somebody else")
        os.unlink(self.path("moved"))

    def is_served(self, t):
        t.join([t.fork(self.use, self.turns)], seconds=20)
        self.turns += 1


def open_in_the_source(mount, source):
    """Descriptors of the daemon through which it could read or write the source."""
    found = []
    for number in os.listdir("/proc/%d/fd" % mount.serving_pid()):
        try:
            target = os.readlink("/proc/%d/fd/%s" % (mount.serving_pid(), number))
            with open("/proc/%d/fdinfo/%s" % (mount.serving_pid(), number)) as info:
                flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags:"))
        except FileNotFoundError:
            continue  # closed meanwhile
        if target.startswith(source.point + "/") and not flags & os.O_PATH:
            found.append(target)
    return found


def tree_of(directory):
    return {name: read_file(os.path.join(directory, name)) for name in os.listdir(directory)}


def read_directly(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, LARGE + MIB)
    length = os.preadv(fd, [buffer], 0)
    os.close(fd)
    return buffer[:length]


def read_mapped(path):
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            return mapped[:]


def check_whole(place, trees, what):
    """The place is in one of these states, and the mount shows the source."""
    for name in os.listdir(place.point):
        fd = os.open(place.path(name), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    found = tree_of(place.behind)
    check(found in trees, "%s: a state that is neither the old nor the new one: %s" % (
        what, {name: len(content) for name, content in found.items()}))
    equal(sorted(os.listdir(place.point)), sorted(found), what + ": names")
    for name, content in found.items():
        for read in (read_file, read_directly, read_mapped):
            equal(read(place.path(name)), content, "%s: %s, by %s" % (what, name, read.__name__))
        mine, behind = os.stat(place.path(name)), os.stat(os.path.join(place.behind, name))
        for field in ("st_mode", "st_size", "st_nlink", "st_mtime_ns"):
            equal(getattr(mine, field), getattr(behind, field), "%s: %s of %s" % (what, field, name))


def state_of(pid):
    with open("/proc/%d/stat" % pid) as stat:
        return stat.read().rsplit(")", 1)[1].split()[0]


def wchan_of(pid):
    """What it waits for in the kernel."""
    with open("/proc/%d/wchan" % pid) as file:
        return file.read()


class Client:
    """A process that is at something in its place, where the source hangs."""

    def __init__(self, t, source, place, act, processor, may_die_of=None):
        self.source = source
        call, ready, self.trees = act(place)
        self.reader, writer = os.pipe()
        goes, go = os.pipe()

        def work():
            os.sched_setaffinity(0, {processor})
            signal.signal(signal.SIGUSR1, lambda number, frame: None)
            doing = ready()
            os.write(writer, b"r")
            os.read(goes, 1)
            try:
                doing()
                os.write(writer, b"d")
            except InterruptedError:
                os.write(writer, b"i")

        self.child = t.fork(work, may_die_of=may_die_of)
        os.close(writer)
        os.close(goes)
        equal(os.read(self.reader, 1), b"r", "the client is ready")
        call, first = call if isinstance(call, tuple) else (call, 0)
        source.set(0, faulty.HANG, call, first=first, under=place.under)
        os.write(go, b"g")
        os.close(go)
        until(lambda: source.applied(0) or self.child.ended(), 10 * t.patience, "%s hangs" % act.__name__)
        check(source.applied(0), "%s never came to the source" % act.__name__)

    def is_suspended(self):
        return state_of(self.child.pid) == "T"

    def end(self, t):
        """Once the source goes on: whether it has done it; None if it was killed."""
        self.source.clear(0)
        t.join([self.child])
        done = os.read(self.reader, 1)
        os.close(self.reader)
        return {b"d": True, b"i": False, b"": None}[done]


def processors_of():
    """One for the client and one for all others: a ring of io_uring answers what comes from one in turn."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        raise Skip("two processors are needed")
    return processors[:2]


def at_each(t, options, stop_short, may_die_of=None):
    """Have clients at everything (in the quick suite: at some of it), one by one. STOP_SHORT does so to them,
    and tells whether what the client was at has been done in the end; None: it was killed."""
    mine, others = processors_of()
    source = FaultySource(t)
    acts = ACTS if t.suite == "full" else t.rng.sample(ACTS, 4)
    mount = t.mount(source.point, options + ["attr_timeout=0"])
    rest = Rest(mount, source, t.rng)
    os.sched_setaffinity(0, {others})
    for act in acts:
        what = act.__name__
        place = Place(mount, source, what, t.rng)
        client = Client(t, source, place, act, mine, may_die_of)
        rest.is_served(t)
        done = stop_short(client, place, rest)
        equal(done is None, may_die_of is not None, what + ": killed")
        check_whole(place, {None: client.trees, True: client.trees[-1:], False: client.trees[:1]}[done], what)
        until(lambda: not open_in_the_source(mount, source), 10 * t.patience,
              lambda: "%s: nothing is left open: %s" % (what, open_in_the_source(mount, source)))
        equal(set(mount.status()["plans"].values()), {0}, what + ": plans of what nobody has open")


WAYS = {"window": ["passthrough_max=0"], "direct": ["passthrough_max=0", "window=0"],
        "passthrough": ["passthrough=*"]}


@test(transports="full", timeout=180, variants=WAYS)
def killed_at_everything(t, options):
    """kill -9 of a client within each kind of request: it is gone once the source goes on."""
    def kill(client, place, rest):
        os.kill(client.child.pid, signal.SIGKILL)
        rest.is_served(t)
        return client.end(t)

    at_each(t, options, kill, signal.SIGKILL)


@test(suite="full", transports="full", timeout=180, variants=WAYS)
def interrupted_at_everything(t, options):
    """A signal with a handler, without SA_RESTART: the call is done, or says EINTR and has done nothing."""
    def interrupt(client, place, rest):
        os.kill(client.child.pid, signal.SIGUSR1)
        rest.is_served(t)
        return client.end(t)

    at_each(t, options, interrupt)


@test(suite="full", transports="full", timeout=180, variants=WAYS)
def suspended_at_everything(t, options):
    """A client that is suspended within a request holds up nobody once the source goes on: neither in its
    directory, nor with a file that it uses."""
    def change(place):
        with open(place.path("other"), "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"beside", 3)
            os.fsync(file.fileno())
            os.ftruncate(file.fileno(), 9)
        equal(read_file(place.path("other"))[3:], b"beside", "what was written beside who is suspended")
        check("other" in os.listdir(place.point), "a list beside who is suspended")
        os.rename(place.path("other"), place.path("other.moved"))
        os.rename(place.path("other.moved"), place.path("other"))

    def suspend(client, place, rest):
        os.kill(client.child.pid, signal.SIGSTOP)
        rest.is_served(t)
        client.source.clear(0)
        try:
            until(client.is_suspended, 10 * t.patience, "the client is suspended")
            t.join([t.fork(change, place)], seconds=20)
            for tree in client.trees:
                tree["other"] = tree["other"][:3] + b"beside"
        finally:
            os.kill(client.child.pid, signal.SIGCONT)
        return client.end(t)

    at_each(t, options, suspend)


@test(transports="full", timeout=60, variants=WAYS)
def suspended_with_locks(t, options):
    """A client that is suspended has locks, and has stored through a mapping: others see that, change the
    file, and have its pages dropped; they get other locks at once, and his when he is killed."""
    source = t.make_dir("source")
    content = make_pages(t.rng, PAGES)
    write_file(source + "/file", content)
    mount = t.mount(source, options + ["pool=1M"])
    path = mount.path("file")
    told = Gate()

    def hold():
        fd = os.open(path, os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        fcntl.lockf(fd, fcntl.LOCK_EX, PAGE, 0)
        mapped = mmap.mmap(fd, 0)
        mapped[5:11] = b"stored"
        told.open()
        signal.pause()

    holder = t.fork(hold, may_die_of=signal.SIGKILL)
    told.wait(holder)
    os.kill(holder.pid, signal.SIGSTOP)
    until(lambda: state_of(holder.pid) == "T", 10 * t.patience, "the holder is suspended")

    def others():
        fd = os.open(path, os.O_RDWR)
        fails_with(errno.EAGAIN, "his lock", fcntl.flock, fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fails_with(errno.EAGAIN, "his range", fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        fcntl.lockf(fd, fcntl.LOCK_EX, PAGE, PAGE)
        equal(os.pread(fd, 11, 0), content[:5] + b"stored", "what he stored")
        os.pwrite(fd, b"beside", 7 * PAGE)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.fsync(fd)
        os.ftruncate(fd, 20 * PAGE)
        os.rename(path, path + ".moved")
        equal(read_file(path + ".moved"), content[:5] + b"stored" + content[11:7 * PAGE] + b"beside" +
              content[7 * PAGE + 6:20 * PAGE], "the file, changed beside him")
        os.close(fd)

    def wait():
        fd = os.open(path + ".moved", os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        fcntl.lockf(fd, fcntl.LOCK_EX, PAGE, 0)

    try:
        t.join([t.fork(others)], seconds=20)
        waiting = t.fork(wait)
        # In the kernel, or in the daemon (locks=source).
        until(lambda: "lock" in wchan_of(waiting.pid) or mount.status()["locks"]["waiting"], 10 * t.patience,
              "somebody waits for his lock")
    finally:
        os.kill(holder.pid, signal.SIGKILL)
    t.join([holder, waiting], seconds=20)
    equal(read_file(source + "/file.moved"), read_file(path + ".moved"), "the source")
    told.close()


@test(transports="one")
def threads_stay(t):
    """One client asks for one thing at a time, on the processor that answers him: he is served by the threads that
    are there. One that has answered but was interrupted by him before it reads again is as good as a reader."""
    source = t.make_dir("source")
    write_file(source + "/file", b"")
    mount = t.mount(source, ["transport=dev"])
    tasks = "/proc/%d/task" % mount.serving_pid()

    def ask(count):
        """With little to do in between: it is by what he uses of it that the processor goes to others."""
        for _ in range(count):
            try:
                os.getxattr("file", "user.none")
            except OSError:
                pass

    def act():
        os.chdir(mount.point)
        processor = {min(os.sched_getaffinity(0))}
        os.sched_setaffinity(0, processor)
        for task in os.listdir(tasks):
            # The one that tells the starter ends just now.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task), processor)
        ask(1000)
        before = set(os.listdir(tasks))
        ask(30000)
        # The one that tells the starter may have ended only now.
        equal(set(os.listdir(tasks)) - before, set(), "threads that the daemon has started")

    t.join([t.fork(act)])
