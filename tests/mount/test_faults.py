# SPDX-License-Identifier: Apache-2.0
"""Bad input and faults: of the source, of the pool, of the control socket."""

import errno
import json
import mmap
import os
import signal
import socket
import time

import faulty
from faulty import FaultySource
from harness import (GONE, MIB, PAGE, Gate, check, check_tree, equal, errno_of, fails_with, make_pages,
                     make_tree, read_file, socket_identity, socket_of, sync_source, test, until, write_file)
from processes import has_ended
from test_trust_others import Crowd
from users import USER, become

BUDGETS = {"window": [], "direct": ["window=0"]}


# ---- the source changes behind the mount ---------------------------------------------------------

@test(transports="full", variants=BUDGETS)
def source_shrinks_while_open(t, options):
    """A source file gets shorter behind the mount: reads end there, without error, and a file that is
    opened anew has the new size; the client is not killed and the daemon lives."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 512)
    write_file(source + "/file", content)
    mount = t.mount(source, options + ["attr_timeout=0"])
    fd = os.open(mount.path("file"), os.O_RDONLY)
    equal(os.pread(fd, 64 * PAGE, 0), content[:64 * PAGE], "before")
    os.truncate(source + "/file", 100 * PAGE + 7)
    part = os.pread(fd, 512 * PAGE, 90 * PAGE)
    equal(part, content[90 * PAGE:100 * PAGE + 7], "across the new end")
    equal(os.pread(fd, PAGE, 300 * PAGE), b"", "behind the new end")
    os.close(fd)
    equal(read_file(mount.path("file")), content[:100 * PAGE + 7], "opened anew")


@test(transports="full", variants=BUDGETS)
def source_grows_while_open(t, options):
    """A source file gets longer behind the mount: what was added can be read."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 50) + b"ragged end"
    write_file(source + "/file", content)
    mount = t.mount(source, options + ["attr_timeout=0"])
    fd = os.open(mount.path("file"), os.O_RDONLY)
    equal(os.pread(fd, len(content) + PAGE, 0), content, "before")
    added = t.rng.randbytes(70 * PAGE)
    with open(source + "/file", "ab") as file:
        file.write(added)
    until(lambda: os.fstat(fd).st_size == len(content) + len(added), 5, "the new size is seen")
    equal(os.pread(fd, len(content) + len(added), 0), content + added, "through the open descriptor")
    os.close(fd)
    equal(read_file(mount.path("file")), content + added, "opened anew")


@test(transports="full", variants=BUDGETS)
def source_vanishes_while_open(t, options):
    """A source file is removed behind the mount: who has it open goes on reading and writing it, its name
    is gone, and a new file of that name is a new file."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 300)
    write_file(source + "/file", content)
    mount = t.mount(source, options + ["entry_timeout=0", "attr_timeout=0"])
    fd = os.open(mount.path("file"), os.O_RDWR)
    equal(os.pread(fd, 10 * PAGE, 0), content[:10 * PAGE], "before")
    os.unlink(source + "/file")
    equal(os.pread(fd, 300 * PAGE, 0), content, "open, without a name")
    os.pwrite(fd, b"still", 5)
    equal(os.pread(fd, 5, 5), b"still", "written without a name")
    fails_with(errno.ENOENT, "open of a removed name", os.open, mount.path("file"), os.O_RDONLY)
    write_file(source + "/file", b"another")
    equal(read_file(mount.path("file")), b"another", "a new file of that name")
    equal(os.pread(fd, 5, 5), b"still", "the old file")
    os.close(fd)


@test(transports="full")
def source_turns_unreadable(t):
    """A source file loses its permissions while open: who has it open reads on; root's daemon or not, a
    caller without permission gets EACCES at the next open."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 300)
    write_file(source + "/file", content)
    mount = t.mount(source, ["attr_timeout=0", "entry_timeout=0"])

    def other_user():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        fd = os.open(mount.path("file"), os.O_RDONLY)
        equal(os.pread(fd, 10 * PAGE, 0), content[:10 * PAGE], "before")
        asked.open()
        answered.wait()
        equal(os.pread(fd, 300 * PAGE, 0), content, "after, by the open descriptor")
        fails_with(errno.EACCES, "open without permission", os.open, mount.path("file"), os.O_RDONLY)

    asked, answered = Gate(), Gate()
    child = t.fork(other_user)
    asked.wait(child)
    os.chmod(source + "/file", 0)
    answered.open()
    t.join([child])


@test(transports="each", timeout=40)
def changed_behind_while_read(t):
    """The source is written behind the mount while four readers read: no error, and once it is quiet and
    opened anew every byte is the source's."""
    source = t.make_dir("source")
    write_file(source + "/file", make_pages(t.rng, 400))
    mount = t.mount(source, ["attr_timeout=0"])
    end = time.monotonic() + 2

    def reader():
        while time.monotonic() < end:
            read_file(mount.path("file"))

    readers = [t.fork(reader) for _ in range(4)]
    while time.monotonic() < end:
        with open(source + "/file", "r+b") as file:
            os.pwrite(file.fileno(), t.rng.randbytes(3 * PAGE), t.rng.randrange(390 * PAGE))
            if not t.rng.randrange(10):
                os.ftruncate(file.fileno(), t.rng.randrange(300, 500) * PAGE)
        time.sleep(0.01)
    t.join(readers)
    time.sleep(0.05)  # file times move in steps of a clock tick
    os.utime(source + "/file")
    equal(read_file(mount.path("file")), read_file(source + "/file"), "afterwards")


def is_dropping_pages(pid):
    """Whether a process waits in the kernel for a page that its open has to drop."""
    try:
        with open("/proc/%d/stack" % pid) as stack:
            return "invalidate_inode_pages2" in stack.read()
    except OSError:
        return False


@test(transports="none")
def changed_behind_and_opened_twice_at_once(t):
    """The kernel caches pages of a file that was changed behind the mount, and a reader whose request waits
    holds one locked, so that an open which has to drop them takes as long as we like. Another open meanwhile
    reads no old page.

    On /dev/fuse alone: on io_uring the read that waits may stand in the way of the opens' own requests."""
    source = FaultySource(t)
    old, new = make_pages(t.rng, 64), make_pages(t.rng, 64)
    write_file(source.backing + "/file", old)
    mount = t.mount(source.point, ["attr_timeout=0"], transport="dev")
    fd = os.open(mount.path("file"), os.O_RDONLY)
    equal(os.pread(fd, len(old), PAGE), old[PAGE:], "all but the first page, before")
    source.set(0, faulty.HANG, faulty.READ, 0, PAGE - 1)
    held = t.fork(os.pread, fd, PAGE, 0)
    until(lambda: source.applied(0), 10, "a read of the first page on its way")
    # Not by truncation, which would change the size.
    with open(source.backing + "/file", "r+b") as file:
        file.write(new)

    def opens():
        with open(mount.path("file"), "rb", buffering=0) as file:
            equal(os.pread(file.fileno(), PAGE, 50 * PAGE), new[50 * PAGE:51 * PAGE], "a page of the new content")

    openers = []
    for _ in range(3):
        child = t.fork(opens)
        openers.append(child)
        until(lambda: is_dropping_pages(child.pid) or child.ended(), 10, "opened, or waiting for it")
    source.clear(0)
    t.join(openers + [held])
    os.close(fd)
    equal(read_file(mount.path("file")), new, "afterwards")


# ---- the source fails ----------------------------------------------------------------------------

@test(transports="each", variants=BUDGETS)
def read_error_of_a_range(t, options):
    """EIO of the source for a range: the mount gives EIO for that range, the bytes before it, and
    everything elsewhere; once the source is well again, so is the mount.

    Invariant 5: only an error of the source is an error of the mount, and it is that errno, for that range.
    """
    source = FaultySource(t)
    content = make_pages(t.rng, 1000)
    write_file(source.backing + "/file", content)
    mount = t.mount(source.point, options)
    bad = range(500, 504)
    source.set(0, faulty.ERROR, faulty.READ, bad.start * PAGE, bad.stop * PAGE - 1, errno.EIO)
    fd = os.open(mount.path("file"), os.O_RDONLY)
    for page in list(range(0, 1000, 50)) + list(range(495, 510)):
        if page in bad:
            fails_with(errno.EIO, "page %d" % page, os.pread, fd, PAGE, page * PAGE)
        else:
            equal(os.pread(fd, PAGE, page * PAGE), content[page * PAGE:(page + 1) * PAGE], "page %d" % page)
    part = os.pread(fd, 400 * PAGE, 300 * PAGE)
    equal(part, content[300 * PAGE:300 * PAGE + len(part)], "a read that runs into it")
    check(len(part) == 200 * PAGE, "a read that runs into the bad range gave %d pages, not 200" % (
        len(part) // PAGE))
    check(source.applied(0) > 0, "the fault never applied")
    source.clear(0)
    equal(os.pread(fd, 1000 * PAGE, 0), content, "once the source is well again")
    os.close(fd)


@test(transports="full")
def read_error_of_a_mapped_page(t):
    """A bad page that is mapped gives SIGBUS to who touches it, and to nobody else; later it reads."""
    source = FaultySource(t)
    content = make_pages(t.rng, 400)
    write_file(source.backing + "/file", content)
    mount = t.mount(source.point)
    source.set(0, faulty.ERROR, faulty.READ, 200 * PAGE, 201 * PAGE - 1, errno.EIO)
    with open(mount.path("file"), "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        equal(mapped[10 * PAGE:11 * PAGE], content[10 * PAGE:11 * PAGE], "a good page")
        pid = os.fork()
        if pid == 0:
            os._exit(mapped[200 * PAGE] & 0)
        _, status = os.waitpid(pid, 0)
        check(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS,
              "touching a bad page: wait status %d, SIGBUS expected" % status)
        equal(mapped[300 * PAGE:301 * PAGE], content[300 * PAGE:301 * PAGE], "a good page behind it")
        source.clear(0)
        equal(mapped[:], content, "once the source is well again")


@test(transports="full", variants=BUDGETS)
def other_errors_keep_their_number(t, options):
    """Other errors of the source arrive as they are: ENOSPC, EDQUOT and EROFS of a write, EIO of an fsync,
    EACCES of an open."""
    source = FaultySource(t)
    content = make_pages(t.rng, 100)
    write_file(source.backing + "/file", content)
    mount = t.mount(source.point, options)
    equal(read_file(mount.path("file")), content, "before")
    fd = os.open(mount.path("file"), os.O_RDWR)
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        source.set(0, faulty.ERROR, faulty.WRITE, error=code)
        fails_with(code, "write", os.pwrite, fd, b"x" * 5000, 12345)
        equal(os.pread(fd, 100 * PAGE, 0), content, "after a write that failed")
        source.clear(0)
    source.set(0, faulty.ERROR, faulty.FSYNC, error=errno.EIO)
    fails_with(errno.EIO, "fsync", os.fsync, fd)
    source.set(0, faulty.ERROR, faulty.OPEN, error=errno.EACCES)
    fails_with(errno.EACCES, "open", os.open, mount.path("file"), os.O_RDONLY)
    source.clear(0)
    os.pwrite(fd, b"now", 7)
    os.close(fd)
    equal(read_file(mount.path("file"))[7:10], b"now", "a later write")
    equal(read_file(source.backing + "/file")[7:10], b"now", "a later write, in the source")


@test(transports="full", variants=BUDGETS)
def write_that_fails_half_way(t, options):
    """A source that takes the first part of a write and refuses the rest: the mount says no more than the
    source took, and reads what the source has.

    Invariant 1: what is acknowledged is in the source, what is not is not served either.
    """
    source = FaultySource(t)
    content = make_pages(t.rng, 600)
    write_file(source.backing + "/file", content)
    mount = t.mount(source.point, options)
    equal(read_file(mount.path("file")), content, "before")
    source.set(0, faulty.ERROR, faulty.WRITE, 300 * PAGE, 301 * PAGE - 1, errno.ENOSPC)
    fd = os.open(mount.path("file"), os.O_RDWR)
    part = t.rng.randbytes(500 * PAGE)
    done = 0
    code = 0
    try:
        while done < len(part):
            done += os.pwrite(fd, part[done:], 50 * PAGE + done)
    except OSError as error:
        code = error.errno
    equal(code, errno.ENOSPC, "errno of the write")
    check(done <= 250 * PAGE, "%d bytes acknowledged across the fault" % done)
    behind = read_file(source.backing + "/file")
    equal(behind[50 * PAGE:50 * PAGE + done], part[:done], "acknowledged bytes in the source")
    os.close(fd)
    equal(read_file(mount.path("file")), behind, "mount and source")
    source.clear(0)


def fill_up(t, mount, source):
    """Write until the source is full; what was acknowledged must be there, and space must come back."""
    content = make_pages(t.rng, 100)
    write_file(mount.path("kept"), content)
    model = bytearray()
    fd = os.open(mount.path("big"), os.O_RDWR | os.O_CREAT)
    code = 0
    for _ in range(1000):
        part = t.rng.randbytes(256 * 1024)
        try:
            done = os.write(fd, part)
        except OSError as error:
            code = error.errno
            break
        model += part[:done]
    equal(code, errno.ENOSPC, "errno once the source is full")
    equal(read_file(mount.path("big")), bytes(model), "what was acknowledged")
    equal(read_file(source + "/big"), bytes(model), "what was acknowledged, in the source")
    equal(read_file(mount.path("kept")), content, "another file")
    os.pwrite(fd, b"overwritten", 0)
    equal(os.pread(fd, 11, 0), b"overwritten", "overwriting needs no space")
    os.close(fd)
    os.unlink(mount.path("big"))
    # FUSE tells of the last close after the fact, so the space comes back a moment later.
    until(lambda: errno_of(write_file, mount.path("again"), content) == 0, 10, "a write once there is space again")
    equal(read_file(source + "/again"), content, "a write once there is space again")


@test(transports="full")
def full_source_tmpfs(t):
    """ENOSPC from a small tmpfs is passed on; everything else goes on."""
    source = t.tmpfs("8m")
    mount = t.mount(source)
    fill_up(t, mount, source)
    mount.unmount()


@test(transports="full", timeout=60)
def full_source_ext4(t):
    """ENOSPC from a small ext4 is passed on; everything else goes on."""
    source = t.loop_file_system("ext4", 24 * MIB)
    mount = t.mount(source)
    fill_up(t, mount, source)
    mount.unmount()


@test(suite="full", transports="full", timeout=90, variants={"xfs": "xfs", "btrfs": "btrfs", "ext4": "ext4", "tmpfs": "tmpfs"})
def other_source_file_systems(t, kind):
    """Every byte equals the source on file systems with and without RWF_DONTCACHE and reflinks."""
    size = {"xfs": 320, "btrfs": 256, "ext4": 64, "tmpfs": 0}[kind]
    source = t.tmpfs() if kind == "tmpfs" else t.loop_file_system(kind, size * MIB)
    tree = make_tree(t.rng, source)
    mount = t.mount(source, ["window=1M", "pool=4M"])
    for turn in ("first", "second"):
        check_tree(mount.point, tree, turn)
    for name in ("base", "clone", "sparse"):
        model = bytearray(tree[name])
        with open(mount.path(name), "r+b") as file:
            for _ in range(30):
                at = t.rng.randrange(len(model) - 9000)
                part = t.rng.randbytes(t.rng.randrange(1, 9000))
                os.pwrite(file.fileno(), part, at)
                model[at:at + len(part)] = part
            os.fsync(file.fileno())
        tree[name] = bytes(model)
    check_tree(mount.point, tree, "after writes")
    mount.unmount()
    check_tree(source, tree, "source after writes")


# ---- the source hangs ----------------------------------------------------------------------------

@test(transports="each", variants=BUDGETS)
def status_while_the_source_hangs(t, options):
    """The source hangs in a read: foldctl status answers, and shows that the mount goes on once the
    source does."""
    source = FaultySource(t)
    content = make_pages(t.rng, 400)
    write_file(source.backing + "/file", content)
    mount = t.mount(source.point, options)
    source.set(0, faulty.HANG, faulty.READ)
    readers = [t.fork(lambda: equal(read_file(mount.path("file")), content, "content")) for _ in range(4)]
    until(lambda: source.applied(0) > 0, 10, "a read hangs")
    for _ in range(3):
        started = time.monotonic()
        equal(mount.status()["mountpoint"], mount.point, "mountpoint of the status")
        check(time.monotonic() - started < 2 * t.patience, "status took long")
    source.clear(0)
    t.join(readers)
    mount.unmount()


@test(transports="full")
def status_while_everything_hangs(t):
    """The source hangs in every call, the mount with it: foldctl status still answers."""
    source = FaultySource(t)
    write_file(source.backing + "/file", make_pages(t.rng, 100))
    mount = t.mount(source.point, ["attr_timeout=0", "entry_timeout=0"])
    calls = faulty.READ | faulty.WRITE | faulty.FSYNC | faulty.GETATTR | faulty.OPEN
    source.set(0, faulty.HANG, calls)
    stuck = [t.fork(os.stat, mount.path("file")), t.fork(os.listdir, mount.point),
             t.fork(read_file, mount.path("file"))]
    until(lambda: source.applied(0) > 0, 10, "a call hangs")
    time.sleep(0.2)
    equal(mount.status()["mountpoint"], mount.point, "mountpoint of the status")
    text = t.run(t.foldctl_command() + ["status", mount.point], timeout=10).stdout
    check(mount.point in text, "foldctl status for people names the mount point")
    source.clear(0)
    t.join(stuck)


@test()
def hits_do_not_wait_for_a_hanging_miss(t):
    """On /dev/fuse pages in the pool are answered while three reads of the source hang."""
    source = FaultySource(t)
    content = make_pages(t.rng, 300)
    for name in ("hot", "cold1", "cold2", "cold3"):
        write_file(source.backing + "/" + name, content if name == "hot" else make_pages(t.rng, 300))
    mount = t.mount(source.point, ["window=0"], transport="dev")
    equal(read_file(mount.path("hot")), content, "hot")
    hot = os.open(mount.path("hot"), os.O_RDONLY)
    cold = [os.open(mount.path("cold%d" % number), os.O_RDONLY) for number in (1, 2, 3)]
    source.set(0, faulty.HANG, faulty.READ)
    stuck = [t.fork(os.pread, fd, 20 * PAGE, 100 * PAGE) for fd in cold]
    until(lambda: source.applied(0) >= 3, 10, "three reads hang")

    def hits():
        for page in range(300):
            equal(os.pread(hot, PAGE, page * PAGE), content[page * PAGE:(page + 1) * PAGE], "a hit")

    try:
        t.join([t.fork(hits)], seconds=5)
    finally:
        source.clear(0)
    t.join(stuck)
    for fd in cold + [hot]:
        os.close(fd)


def use_what_is_there(mount, hot, content):
    """What needs no byte of the source's content."""
    for page in range(300):
        equal(os.pread(hot, PAGE, page * PAGE), content[page * PAGE:(page + 1) * PAGE], "a hit")
    check(os.stat(mount.path("hot")).st_size, "stat")
    os.close(os.open(mount.path("hot"), os.O_RDONLY))
    equal(sorted(os.listdir(mount.point)), ["cold", "hot"], "a list")


@test(timeout=120, variants={"root": 0, "a user": USER})
def hits_do_not_wait_for_ones_own_misses(t, uid):
    """On /dev/fuse one user has more misses than threads may wait for him: what is in the pool he gets all the
    same, stats, opens and lists too. What waits is read in the end."""
    source = FaultySource(t)
    content, cold = make_pages(t.rng, 300), make_pages(t.rng, 400)
    write_file(source.backing + "/hot", content)
    write_file(source.backing + "/cold", cold)
    mount = t.mount(source.point, ["window=0", "attr_timeout=0", "entry_timeout=0"], transport="dev")
    equal(read_file(mount.path("hot")), content, "hot")
    hot = os.open(mount.path("hot"), os.O_RDONLY)
    fd = os.open(mount.path("cold"), os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    source.set(0, faulty.HANG, faulty.READ)
    crowd = Crowd(t, uid, [lambda at=page * PAGE: equal(os.pread(fd, PAGE, at), cold[at:at + PAGE], "a miss")
                           for page in range(400)])
    try:
        until(lambda: mount.status()["serving"]["parked"] > 0, 60, "requests are parked")
        until(lambda: sum(mount.status()["serving"][key] for key in ("handled", "parked")) >= 400, 60, "all wait")

        def as_user():
            become(uid)
            use_what_is_there(mount, hot, content)

        t.join([t.fork(as_user)], seconds=20)
        equal(crowd.ended(), 0, "misses that did not wait")
    finally:
        source.clear(0)
    crowd.join()
    equal(set(crowd.errors[:crowd.count]), {255}, "how they ended")
    for each in (fd, hot):
        os.close(each)


@test(transports="each")
def killed_while_the_source_hangs(t):
    """kill -9 of a daemon whose source hangs: its clients get an error, and nothing hangs for ever."""
    source = FaultySource(t)
    write_file(source.backing + "/file", make_pages(t.rng, 100))
    mount = t.mount(source.point)
    source.set(0, faulty.HANG, faulty.READ)
    reader = t.fork(lambda: check(errno_of(read_file, mount.path("file")) in GONE, "no error"))
    until(lambda: source.applied(0) > 0, 10, "a read hangs")
    serving = mount.serving_pid()
    mount.process.kill()
    time.sleep(0.2)
    source.clear(0)
    mount.process.wait(20)
    until(lambda: has_ended(serving), 20, "the process that served leaves the source")
    t.join([reader])
    t.run(["umount", "-l", mount.point])


# ---- the pool ------------------------------------------------------------------------------------

@test(transports="each", timeout=60, variants={"window": ["window=256K"], "direct": ["window=0"]})
def no_free_frame(t, options):
    """A pool of 1 MiB under sixteen readers of requests as large as it: everything reads right, and what
    found no frame is counted.

    Invariant 5: the pool is never a reason to fail.
    """
    source = t.make_dir("source")
    contents = [make_pages(t.rng, 1024) for _ in range(4)]
    for number, content in enumerate(contents):
        write_file("%s/%d" % (source, number), content)
    sync_source(source)
    mount = t.mount(source, ["pool=1M"] + options)

    def reader(number):
        fd = os.open(mount.path(str(number % 4)), os.O_RDONLY)
        for _ in range(t.scaled(6, 1)):
            equal(os.pread(fd, 1024 * PAGE, 0), contents[number % 4], "file %d" % (number % 4))

    t.join([t.fork(reader, number) for number in range(16)])
    status = mount.status()
    equal(status["frames_total"], 256, "frames_total")
    check(status["evictions"] + status["bypassed"] > 0, "neither evicted nor bypassed")
    check(status["memory"]["pool_bytes"] <= 2 * MIB, "pool_bytes %d" % status["memory"]["pool_bytes"])


# ---- the control socket --------------------------------------------------------------------------

def ask(path, request, then_close=True):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        try:
            client.sendall(request)
            if then_close:
                client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the daemon may have answered and closed already
        answer = b""
        try:
            while part := client.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
        return answer


@test()
def hostile_messages(t):
    """Damaged, huge, slow and nonsensical requests on the control socket: each gets a JSON answer or a
    closed connection, and the next honest one is answered."""
    source = t.make_dir("source")
    write_file(source + "/file", b"content")
    mount = t.mount(source)
    path = socket_of(mount)
    equal(os.stat(path).st_mode & 0o777, 0o600, "mode of the socket")
    equal(json.loads(ask(path, b'{"request":"status"}\n'))["mountpoint"], mount.point, "an honest request")
    hostile = [
        b"", b"\n", b"\0" * 100 + b"\n", b"status\n", b"{}\n", b"[]\n", b"null\n", b'"status"\n',
        b'{"request":1}\n', b'{"request":"shutdown"}\n', b'{"request":null}\n', b'{"request":"status"',
        b'{"request":"status","request":"x"}\n', b"{" * 4000 + b"\n", b"[" * 4095 + b"\n",
        b'{"request":"' + b"A" * 4000 + b'"}\n', b"A" * 100000, b"A" * 100000 + b"\n", b"\xff\xfe\xfd\n",
        b'{"request":"\\ud800"}\n', b'{"request":"status\\u0000x"}\n', b"1e999999\n",
    ] + [t.rng.randbytes(t.rng.randrange(1, 6000)) + b"\n" for _ in range(t.scaled(100, 20))]
    for request in hostile:
        answer = ask(path, request)
        if answer:
            check(answer.endswith(b"\n") and answer.count(b"\n") == 1, "one line: %r" % answer[:100])
            check("error" in json.loads(answer), "%r was answered %r" % (request[:60], answer[:100]))
    equal(json.loads(ask(path, b'{"request":"status"}\nmore'))["mountpoint"], mount.point, "more behind it")
    for _ in range(50):  # connections that say nothing and go
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    equal(mount.status()["mountpoint"], mount.point, "afterwards")
    equal(read_file(mount.path("file")), b"content", "the mount afterwards")


@test(timeout=40)
def silent_clients(t):
    """Clients that connect and say nothing, or never read, hold up an honest one for a bounded time."""
    source = t.make_dir("source")
    mount = t.mount(source)
    path = socket_of(mount)
    silent = []
    for number in range(3):
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        if number:
            client.send(b'{"request":')
        silent.append(client)
    started = time.monotonic()
    equal(mount.status()["mountpoint"], mount.point, "behind three silent clients")
    check(time.monotonic() - started < 15, "an honest client waited %d s" % (time.monotonic() - started))
    for client in silent:
        client.close()


@test()
def socket_is_for_root_and_owner(t):
    """Another user neither reaches the socket nor gets an answer through foldctl."""
    source = t.make_dir("source")
    mount = t.mount(source)
    path = socket_of(mount)
    made = socket_identity(path)

    def other_user():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX) as client:
            fails_with(errno.EACCES, "connect as another user", client.connect, path)

    t.join([t.fork(other_user)])
    result = t.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] + t.foldctl_command() +
                   ["status", mount.point], status=1)
    check(len(result.stderr.strip().splitlines()) == 1, "one sentence: %r" % result.stderr)
    mount.unmount()
    check(socket_identity(path) != made, "the socket is still there after unmount")
