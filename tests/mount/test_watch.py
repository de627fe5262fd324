# SPDX-License-Identifier: Apache-2.0
"""-o watch: what others change in the source is seen at once, and our own changes are nobody else's.

Attributes and names are kept for an hour here, and files stay open: nothing but the watch can bring the
news. "At once" is not timed: each test waits, generously, until the news is there.
"""

import mmap
import os
import random
import signal
import stat
import time

from harness import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, MIB, PAGE, Failure, Gate, check, equal, fallocate, libc_call,
                     make_pages, read_file, test, until, write_file)
from faulty import FaultySource
from users import become

BUDGETS = {"window": [], "direct": ["window=0"]}
AT_SYMLINK_FOLLOW = 0x400
KEPT = ["watch", "attr_timeout=3600", "entry_timeout=3600"]


def seen(t, condition, what):
    until(condition, 10 * t.patience, what, every=0.002)


def watch_of(mount):
    return mount.status()["watch"]


def handled_so_far(t, mount, source):
    """Reports are read in order: once a change made now is followed, all earlier ones are."""
    before = watch_of(mount)["events"]
    with open(source + "/marker", "r+b") as file:
        file.write(b"x")
    seen(t, lambda: watch_of(mount)["events"] > before, "the marker's change is followed")


# ---- content -------------------------------------------------------------------------------------

def behind_write(t, path, model):
    part = t.rng.randbytes(3 * PAGE)
    with open(path, "r+b") as file:
        os.pwrite(file.fileno(), part, 60 * PAGE + 5)
    model[60 * PAGE + 5:63 * PAGE + 5] = part


def behind_store(t, path, model):
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[10 * PAGE:10 * PAGE + 6] = b"mapped"
    model[10 * PAGE:10 * PAGE + 6] = b"mapped"


def behind_shrink(t, path, model):
    os.truncate(path, 100 * PAGE + 7)
    del model[100 * PAGE + 7:]


def behind_grow(t, path, model):
    part = t.rng.randbytes(5 * PAGE)
    with open(path, "ab") as file:
        file.write(part)
    model += part


def behind_down_and_up(t, path, model):
    size = len(model)
    os.truncate(path, 3 * PAGE + 1)
    os.truncate(path, size)
    model[3 * PAGE + 1:] = bytes(size - 3 * PAGE - 1)


def behind_punch(t, path, model):
    with open(path, "r+b") as file:
        fallocate(file.fileno(), FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 5 * PAGE + 1, 4 * PAGE)
    model[5 * PAGE + 1:9 * PAGE + 1] = bytes(4 * PAGE)


def behind_copy(t, path, model):
    with open(path, "r+b") as file:
        done = os.copy_file_range(file.fileno(), file.fileno(), 4 * PAGE, 20 * PAGE, 90 * PAGE)
    model[90 * PAGE:90 * PAGE + done] = model[20 * PAGE:20 * PAGE + done]


WAYS = [behind_write, behind_store, behind_punch, behind_copy, behind_shrink, behind_grow, behind_down_and_up]


@test(transports="each", variants=BUDGETS)
def content_is_followed(t, options):
    """A file that is open and mapped through the mount is written, stored to through a mapping, punched,
    copied into, shortened and grown behind it: read, mapping, sendfile and size follow each of them."""
    source = t.make_dir("source")
    model = bytearray(make_pages(t.rng, 600) + b"ragged")
    write_file(source + "/file", model)
    other = bytes(model)
    write_file(source + "/other", other)
    mount = t.mount(source, KEPT + options)
    fd = os.open(mount.path("file"), os.O_RDONLY)
    sink = os.open(t.path("sink"), os.O_RDWR | os.O_CREAT)

    def by_sendfile():
        os.ftruncate(sink, 0)
        os.lseek(sink, 0, os.SEEK_SET)
        while os.sendfile(sink, fd, os.lseek(sink, 0, os.SEEK_CUR), MIB):
            pass
        return os.pread(sink, 4 * MIB, 0)

    def follows():
        # Not to the end first: there foldfs would look at the source by itself.
        if mapped[:64 * PAGE] != model[:64 * PAGE] or os.pread(fd, 64 * PAGE, 0) != model[:64 * PAGE]:
            return False
        if os.fstat(fd).st_size != len(model) or os.pread(fd, 4 * MIB, 0) != model:
            return False
        with mmap.mmap(fd, len(model), prot=mmap.PROT_READ) as anew:
            return anew[:] == model and by_sendfile() == model

    with mmap.mmap(fd, 64 * PAGE, prot=mmap.PROT_READ) as mapped:
        check(follows(), "the mount before any change")
        equal(read_file(mount.path("other")), other, "the other file")
        for way in WAYS:
            way(t, source + "/file", model)
            seen(t, follows, "the file after " + way.__name__)
    os.close(fd)
    os.close(sink)
    equal(read_file(mount.path("other")), other, "the file that shared its pages")


@test()
def content_without_watch(t):
    """What the test above shows is the watch's doing: without it the open file stays as it was read."""
    source = t.make_dir("source")
    write_file(source + "/file", b"a" * PAGE)
    mount = t.mount(source, KEPT[1:])
    fd = os.open(mount.path("file"), os.O_RDONLY)
    equal(os.pread(fd, PAGE, 0), b"a" * PAGE, "before")
    write_file(source + "/other", b"")
    with open(source + "/file", "r+b") as file:
        file.write(b"b" * PAGE)
    equal(os.pread(fd, PAGE, 0), b"a" * PAGE, "while it stays open")
    os.close(fd)
    equal(read_file(mount.path("file")), b"b" * PAGE, "at the next open")
    equal(watch_of(mount), {"events": 0, "own": 0, "overflows": 0, "compared": 0, "given_up": 0}, "figures without watch")


@test(transports="full")
def names_and_attributes_are_followed(t):
    """Behind the mount files are made, replaced by rename, removed, given another mode and another link:
    names and attributes that the kernel may keep for an hour follow."""
    source = t.make_dir("source")
    os.mkdir(source + "/sub")
    for name in ("file", "never-opened", "sub/gone", "sub/replaced"):
        write_file(source + "/" + name, b"first")
    mount = t.mount(source, KEPT)
    equal(os.stat(mount.path("never-opened")).st_size, 5, "size")
    with open(source + "/never-opened", "ab") as file:
        file.write(b" and more")
    seen(t, lambda: os.stat(mount.path("never-opened")).st_size == 14, "the size of a file that nobody has opened here")
    for name in ("file", "sub/gone", "sub/replaced"):
        equal(read_file(mount.path(name)), b"first", name)
        os.stat(mount.path(name))
    os.unlink(source + "/sub/gone")
    seen(t, lambda: not os.path.exists(mount.path("sub/gone")), "a removed name is gone")
    write_file(source + "/new", b"second")
    os.rename(source + "/new", source + "/sub/replaced")
    seen(t, lambda: read_file(mount.path("sub/replaced")) == b"second", "the file that took a name")
    os.chmod(source + "/file", 0o600)
    seen(t, lambda: stat.S_IMODE(os.stat(mount.path("file")).st_mode) == 0o600, "a mode")
    os.utime(source + "/file", (5, 5))
    seen(t, lambda: os.stat(mount.path("file")).st_mtime == 5, "a time")
    os.link(source + "/file", source + "/sub/link")
    seen(t, lambda: os.stat(mount.path("file")).st_nlink == 2, "a link count")
    os.mkdir(source + "/sub/inner")
    seen(t, lambda: os.stat(mount.path("sub")).st_nlink == 3, "a directory's link count")
    os.rename(source + "/sub", source + "/moved")
    seen(t, lambda: not os.path.exists(mount.path("sub")), "a directory that moved away")
    equal(sorted(os.listdir(mount.path("moved"))), ["inner", "link", "replaced"], "where it went")


def change_in_every_way(t, mount):
    """What own_changes_are_not_others does not: to files of their own, so that the pages of the others stay."""
    path = mount.path("d")
    with open(path, "w+b", buffering=0) as file:
        fallocate(file.fileno(), 0, 0, 8 * PAGE)
        os.pwrite(file.fileno(), t.rng.randbytes(3 * PAGE), 0)
        fallocate(file.fileno(), FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, PAGE, PAGE)
        equal(os.copy_file_range(file.fileno(), file.fileno(), PAGE, 0, 5 * PAGE), PAGE, "bytes copied")
    os.close(os.open(path, os.O_RDWR | os.O_TRUNC))
    os.link(path, path + ".link")
    os.setxattr(path, "trusted.mark", b"value")
    os.removexattr(path, "trusted.mark")
    os.utime(path, (5, 5))
    os.chown(path, 1, 1)
    os.symlink("d", path + ".symbolic")
    fd = os.open(mount.point, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"no name yet")
    libc_call("linkat", -100, b"/proc/self/fd/%d" % fd, -100, os.fsencode(path + ".named"), AT_SYMLINK_FOLLOW)
    os.close(fd)
    for name in (path, path + ".link", path + ".symbolic", path + ".named"):
        os.unlink(name)


@test(transports="each", variants=BUDGETS)
def own_changes_are_not_others(t, options):
    """Every kind of change made through the mount is reported as well, and passed over: nothing is
    forgotten for it, what the pool holds stays."""
    source = t.tmpfs()  # nobody else is on it
    base = make_pages(t.rng, 200)
    for name in ("a", "b"):
        write_file(source + "/" + name, base)
    write_file(source + "/marker", b"-")
    mount = t.mount(source, KEPT + options)
    for name in ("a", "b", "marker"):
        read_file(mount.path(name))
    sharing = lambda: mount.status()["pages_sharing"]
    seen(t, lambda: sharing() == 200, "all pages are shared")
    with open(mount.path("a"), "r+b", buffering=0) as file:
        for page in range(0, 40, 4):
            os.pwrite(file.fileno(), t.rng.randbytes(PAGE), page * PAGE)
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[100 * PAGE] ^= 1
            mapped.flush()
        os.fchmod(file.fileno(), 0o640)
        os.ftruncate(file.fileno(), 190 * PAGE)
    os.rename(mount.path("a"), mount.path("c"))
    os.mkdir(mount.path("directory"))
    os.rmdir(mount.path("directory"))
    change_in_every_way(t, mount)
    equal(watch_of(mount)["events"], 0, "changes that are taken for others'")
    before = mount.status()
    handled_so_far(t, mount, source)
    after = mount.status()
    check(after["watch"]["own"] >= 1, "no report of our own changes: %s" % after["watch"])
    # The marker, made of one page, changed and was closed: two reports at most.
    check(after["watch"]["events"] <= 2, "changes that are taken for others': %s" % after["watch"])
    equal(after["watch"]["overflows"], 0, "overflows")
    equal(after["pages_sharing"], before["pages_sharing"], "pages that share frames")
    check(sharing() >= 200 - 10 - 1 - 10, "the pool forgot: %d pages share frames" % sharing())
    equal(read_file(mount.path("b")), base, "the other file")


@test(transports="full")
def own_changes_in_passthrough(t):
    """In passthrough the kernel writes in the client's name, so such a write is reported as somebody else's: it is
    right all the same, and costs no other file its pages."""
    source = t.tmpfs()
    base = make_pages(t.rng, 100)
    for name in ("own", "b", "c"):
        write_file(source + "/" + name, base)
    mount = t.mount(source, KEPT + ["passthrough=own"])
    for name in ("own", "b", "c"):
        read_file(mount.path(name))
    sharing = lambda: mount.status()["pages_sharing"]
    seen(t, lambda: sharing() == 100, "all pages of the other two are shared")
    model = bytearray(base)
    with open(mount.path("own"), "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"x" * 9000, 5)
        model[5:9005] = b"x" * 9000
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[50 * PAGE] = model[50 * PAGE] = model[50 * PAGE] ^ 1
            mapped.flush()
        os.ftruncate(file.fileno(), 90 * PAGE)
        del model[90 * PAGE:]
    change_in_every_way(t, mount)
    seen(t, lambda: watch_of(mount)["events"] and watch_of(mount)["own"], "reports of both kinds")
    equal(read_file(mount.path("own")), bytes(model), "the file in passthrough")
    equal(read_file(source + "/own"), bytes(model), "the source")
    equal(os.stat(mount.path("own")).st_size, len(model), "its size")
    equal(sharing(), 100, "pages that share frames")
    equal(watch_of(mount)["overflows"], 0, "overflows")


def foreign_writer(path, pages, seed, rounds):
    """Bytes 0 to 15 of every page are this writer's."""
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDWR)
    for _ in range(rounds):
        os.pwrite(fd, rng.randbytes(16), rng.randrange(pages) * PAGE)
    os.close(fd)


@test(transports="each", timeout=40, variants={"window": [], "direct": ["window=0"],
                                               "tiny-pool": ["pool=1M", "window=256K"]})
def others_write_while_we_write(t, options):
    """Through the mount and behind it two writers change different bytes of the same pages, readers read
    them: once both are done, the mount shows what the source has.

    Without the watch this is the case that nobody can tell: a page written here that had been changed there.
    """
    source = t.make_dir("source")
    pages = 48
    write_file(source + "/file", make_pages(t.rng, pages))
    write_file(source + "/clone", read_file(source + "/file"))
    clone = read_file(source + "/clone")
    mount = t.mount(source, KEPT + options)
    equal(read_file(mount.path("clone")), clone, "the clone")
    fd = os.open(mount.path("file"), os.O_RDWR)
    direct = os.open(mount.path("file"), os.O_RDWR | os.O_DIRECT)
    equal(os.pread(fd, MIB, 0), clone, "before")
    rounds = t.scaled(3000, 600)
    children = [t.fork(foreign_writer, source + "/file", pages, t.rng.random(), rounds)]
    block = mmap.mmap(-1, PAGE)
    for _ in range(rounds):
        at = t.rng.randrange(pages) * PAGE
        # By the block: part of a page that the kernel caches would be read by the kernel first.
        os.preadv(direct, [block], at)
        os.pwrite(fd, t.rng.randbytes(16), at + 2048)
    t.join(children)
    seen(t, lambda: os.pread(fd, MIB, 0) == read_file(source + "/file"), "mount and source agree")
    equal(read_file(mount.path("clone")), clone, "the clone at the end")
    os.close(fd)
    os.close(direct)


def stands_still(pid):
    states = []
    for thread in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/stat" % (pid, thread)) as file:
            states.append(file.read().rpartition(")")[2].split()[0])
    return set(states) == {"T"}


@test(suite="full", presets=("release", "asan"), timeout=60)
def lost_reports(t):
    """More changes than the kernel's queue holds while the daemon stands still: what was lost is not
    missed, for all files are compared."""
    source = t.tmpfs()
    names = ["file%d" % number for number in range(20)]
    for name in names:
        write_file(source + "/" + name, b"a" * PAGE)
    mount = t.mount(source, KEPT)
    fds = [os.open(mount.path(name), os.O_RDONLY) for name in names]
    for fd in fds:
        equal(os.pread(fd, PAGE, 0), b"a" * PAGE, "before")
    with open("/proc/sys/fs/fanotify/max_queued_events") as limit:
        queue = int(limit.read())
    if queue > 100000:
        t.skip("the kernel's queue holds %d reports" % queue)
    os.kill(mount.serving_pid(), signal.SIGSTOP)
    seen(t, lambda: stands_still(mount.serving_pid()), "the daemon stands still")
    try:
        os.mkdir(source + "/many")
        for number in range(queue + 10):
            os.symlink("x", source + "/many/%d" % number)
        for name in names:
            write_file(source + "/" + name, b"b" * PAGE)
        os.rename(source + "/file0", source + "/moved")
    finally:
        os.kill(mount.serving_pid(), signal.SIGCONT)
    seen(t, lambda: watch_of(mount)["overflows"], "an overflow is counted")
    for name, fd in zip(names, fds):
        seen(t, lambda: os.pread(fd, PAGE, 0) == b"b" * PAGE, name)
        os.close(fd)
    seen(t, lambda: not os.path.exists(mount.path("file0")), "a name that went")
    equal(read_file(mount.path("moved")), b"b" * PAGE, "where it went")


# ---- floods --------------------------------------------------------------------------------------

STRANGER = 70001
QUEUE_LIMIT = "/proc/sys/fs/fanotify/max_queued_events"


def small_queue(t, source, options, **kwargs):
    """A mount whose queue is soon full. The limit is taken when the watch begins, and is then put back."""
    with open(QUEUE_LIMIT) as file:
        before = file.read()
    try:
        with open(QUEUE_LIMIT, "w") as file:
            file.write("64")
        return t.mount(source, KEPT + options, **kwargs)
    finally:
        with open(QUEUE_LIMIT, "w") as file:
            file.write(before)


def flood(directory, ready):
    """As a stranger, make and remove files until ended."""
    become(STRANGER)
    names = [directory + "/%d" % number for number in range(200)]
    while True:
        for name in names:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600))
        for name in names:
            os.unlink(name)
        if ready:
            ready.open()
            ready = None


def begin_flood(t, directory):
    os.mkdir(directory)
    os.chown(directory, STRANGER, STRANGER)
    ready = Gate()
    child = t.fork(flood, directory, ready, may_die_of=signal.SIGKILL)
    ready.wait(child)
    return child


def end_flood(t, child):
    os.kill(child.pid, signal.SIGKILL)
    t.join([child])


def settled(t, path):
    """A stamp that is taken from now on is relied upon by itself."""
    seen(t, lambda: time.time() - os.stat(path).st_ctime > 1.1, "the file is a second old")


@test(transports="full", timeout=60, alone=True)
def a_flood_does_not_make_it_forget(t):
    """A stranger makes and removes files elsewhere on the source's file system, more than are read: what is known of
    files that nobody changes stays; a change behind the mount, made while it lasts, is seen while it lasts."""
    beside = t.tmpfs()
    source = beside + "/source"
    os.mkdir(source)
    model = bytearray(make_pages(t.rng, 1000))
    write_file(source + "/kept", model)
    write_file(source + "/changed", model)
    for name in ("mode", "gone"):
        write_file(source + "/" + name, b"x")
    settled(t, source + "/gone")
    mount = small_queue(t, source, [])
    fds = {name: os.open(mount.path(name), os.O_RDWR) for name in ("kept", "changed")}
    for fd in fds.values():
        equal(os.pread(fd, 4 * MIB, 0), model, "before")
    for name in ("mode", "gone"):
        read_file(mount.path(name))
    seen(t, lambda: mount.status()["pages_sharing"] == 1001, "all is shared")
    child = begin_flood(t, beside + "/flood")
    seen(t, lambda: watch_of(mount)["overflows"] >= 3, "reports are lost, again and again")
    seen(t, lambda: watch_of(mount)["compared"] >= 3, "files are compared")
    equal(watch_of(mount)["given_up"], 0, "files given up that nobody changed")
    os.chmod(source + "/mode", 0o640)
    os.unlink(source + "/gone")
    seen(t, lambda: stat.S_IMODE(os.stat(mount.path("mode")).st_mode) == 0o640, "the change of a mode")
    seen(t, lambda: not os.path.exists(mount.path("gone")), "the name that went")
    rounds = []

    def change():
        """Some reports are lost, some are not."""
        behind_write(t, source + "/changed", model)
        seen(t, lambda: os.pread(fds["changed"], 4 * MIB, 0) == model, "a change of content")
        rounds.append(watch_of(mount)["given_up"])
        return len(rounds) > 2 and rounds[-1] > rounds[0]

    seen(t, change, "a change of which the report was lost")
    end_flood(t, child)
    misses = mount.status()["misses"]
    direct = os.open(mount.path("kept"), os.O_RDONLY | os.O_DIRECT)
    block = mmap.mmap(-1, 1000 * PAGE)
    equal(os.preadv(direct, [block], 0), 1000 * PAGE, "bytes read")
    equal(block[:], read_file(source + "/kept"), "the file that nobody changed")
    equal(mount.status()["misses"], misses, "pages of it that had to be read again")
    os.close(direct)
    for fd in fds.values():
        os.close(fd)


@test(transports="full", timeout=60, alone=True)
def a_flood_does_not_make_it_forget_what_we_wrote(t):
    """What was written through the mount is relied upon as well, once it is known that no report of the time of
    that write was lost."""
    beside = t.tmpfs()
    source = beside + "/source"
    os.mkdir(source)
    base = make_pages(t.rng, 500)
    write_file(source + "/file", base)
    settled(t, source + "/file")
    mount = small_queue(t, source, [])
    fd = os.open(mount.path("file"), os.O_RDWR)
    equal(os.pread(fd, 4 * MIB, 0), base, "before")
    os.pwrite(fd, b"ours", 7 * PAGE)
    wrote = time.monotonic()
    # Two seconds after the last report the watch looks once more: from then on it knows that nothing was lost.
    seen(t, lambda: time.monotonic() - wrote > 3.5, "the write is some seconds old")
    child = begin_flood(t, beside + "/flood")
    seen(t, lambda: watch_of(mount)["compared"] >= 1, "the file is compared")
    equal(watch_of(mount)["given_up"], 0, "files given up that nobody else changed")
    os.pwrite(fd, b"ours", 9 * PAGE)
    seen(t, lambda: watch_of(mount)["given_up"] >= 1, "a write that reports may have been lost beside is doubted")
    end_flood(t, child)
    model = bytearray(base)
    for page in (7, 9):
        model[page * PAGE:page * PAGE + 4] = b"ours"
    equal(os.pread(fd, 4 * MIB, 0), bytes(model), "at the end")
    os.close(fd)


@test(transports="one", timeout=60, alone=True, presets=("release",))
def a_flood_costs_the_daemon_little(t):
    """The longer a flood lasts, the longer are the pauses between two sweeps."""
    beside = t.tmpfs()
    source = beside + "/source"
    os.mkdir(source)
    write_file(source + "/file", b"x")
    settled(t, source + "/file")
    mount = small_queue(t, source, [])
    fd = os.open(mount.path("file"), os.O_RDONLY)
    equal(os.pread(fd, 1, 0), b"x", "before")
    child = begin_flood(t, beside + "/flood")
    began = time.monotonic()
    seen(t, lambda: watch_of(mount)["compared"] >= 5, "five sweeps")
    # 0 + 0.1 + 0.2 + 0.4 + 0.8 s: a machine that is busy only makes this longer.
    check(time.monotonic() - began >= 1.4, "sweeps came one after the other")
    end_flood(t, child)
    os.close(fd)


# ---- where it cannot be --------------------------------------------------------------------------

def refused(t, source, what, user=None):
    try:
        t.mount(source, KEPT, user=user)
    except Failure as failure:
        check("status 1" in str(failure) and what in str(failure), "how it is refused: %s" % failure)
    else:
        raise Failure("mounted")
    t.mounts.pop()


@test(transports="full")
def refused_where_it_cannot_be(t):
    """Without root's rights, or on a source that reports nothing, watch is refused at the mount, by cause."""
    source = t.make_dir("source")
    os.chmod(source, 0o777)
    refused(t, source, "watch needs root's rights", user="nobody")
    refused(t, FaultySource(t).point, "does not report changes")
