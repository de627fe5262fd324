# SPDX-License-Identifier: Apache-2.0
"""Reading: every byte of the mount equals the source, whatever the way and the budgets."""

import mmap
import os
import random
import shutil
import time

from counting import cached_bytes, cached_bytes_of
from harness import (MIB, PAGE, check, check_tree, equal, make_pages, make_tree, read_file, sync_source, test, until,
                     write_file)

BUDGETS = {
    "default": [],
    "direct": ["window=0"],
    "small-window": ["window=1M"],
    "tiny-pool": ["pool=1M", "window=1M"],
    "tiny-pool-direct": ["pool=1M", "window=0"],
    "tiny-maps": ["maps=64K", "pool=32M", "window=1M"],
}


def slices(rng, size, count):
    """Offsets and lengths that meet page and request edges as well as odd places."""
    for _ in range(count):
        kind = rng.randrange(4)
        if kind == 0:
            yield rng.randrange(size + PAGE), rng.randrange(3 * PAGE)
        elif kind == 1:
            yield rng.randrange(size + PAGE) // PAGE * PAGE, PAGE * rng.randrange(1, 40)
        elif kind == 2:
            yield max(0, rng.randrange(size + PAGE) // PAGE * PAGE - 1), rng.choice((1, 2, PAGE + 2))
        else:
            yield rng.randrange(size + 1), rng.randrange(2 * MIB)


def check_slices(rng, path, content, count):
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset, length in slices(rng, len(content), count):
            equal(os.pread(fd, length, offset), content[offset:offset + length],
                  "%s: %d bytes at %d" % (path, length, offset))
    finally:
        os.close(fd)


def check_mapped(rng, path, content, count):
    if not content:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        for offset, length in slices(rng, len(content), count):
            equal(mapped[offset:offset + length], content[offset:offset + length],
                  "%s mapped: %d bytes at %d" % (path, length, offset))
        tail = mapped[len(content) // PAGE * PAGE:]
        equal(tail, content[len(content) // PAGE * PAGE:], path + " mapped: last page")


@test(timeout=60, transports="full", variants=BUDGETS)
def every_byte(t, options):
    """Files of every awkward size, read whole, at random and mapped, twice: cold and from the pool.

    Invariant 3: under eviction (tiny-pool) a reader never sees a frame's next life.
    Invariant 5: a pool too small for one request is no reason to fail.
    """
    source = t.make_dir("source")
    tree = make_tree(t.rng, source)
    mount = t.mount(source, options)
    count = t.scaled(60, 15)
    for turn in ("first", "second"):
        names = list(tree)
        t.rng.shuffle(names)
        for name in names:
            check_slices(t.rng, mount.path(name), tree[name], count)
            check_mapped(t.rng, mount.path(name), tree[name], count // 2)
        check_tree(mount.point, tree, turn + " turn")
    equal(sorted(os.listdir(mount.point)), sorted(tree), "names")
    mount.unmount()
    check_tree(source, tree, "source afterwards")


@test(transports="each", variants={"window": [], "direct": ["window=0"]})
def sendfile_and_splice(t, options):
    """sendfile(2) and splice(2) give the same bytes; after a write the new ones."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 300) + b"tail"
    write_file(source + "/file", content)
    mount = t.mount(source, options)
    fd = os.open(mount.path("file"), os.O_RDWR)
    for turn in range(3):
        equal(by_sendfile(t, fd, len(content)), content, "sendfile, turn %d" % turn)
        equal(by_splice(fd, len(content)), content, "splice, turn %d" % turn)
        at = t.rng.randrange(len(content) - 9000)
        part = t.rng.randbytes(9000)
        os.pwrite(fd, part, at)
        content = content[:at] + part + content[at + len(part):]
    os.close(fd)


def by_sendfile(t, fd, size):
    out = os.open(t.path("out"), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    done = 0
    while done < size:
        part = os.sendfile(out, fd, done, size - done)
        check(part > 0, "sendfile ended at %d of %d" % (done, size))
        done += part
    os.close(out)
    return read_file(t.path("out"))


def by_splice(fd, size):
    reader, writer = os.pipe()
    content = b""
    while len(content) < size:
        part = os.splice(fd, writer, 65536, offset_src=len(content))
        check(part > 0, "splice ended at %d of %d" % (len(content), size))
        while part:
            piece = os.read(reader, part)
            content += piece
            part -= len(piece)
    os.close(reader)
    os.close(writer)
    return content


@test(transports="full")
def direct_io_reads(t):
    """O_DIRECT on the client's side: aligned and, as FUSE allows them, unaligned lengths."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 400) + t.rng.randbytes(1000)
    write_file(source + "/file", content)
    mount = t.mount(source)
    fd = os.open(mount.path("file"), os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 2 * MIB)
    for _ in range(100):
        offset = t.rng.randrange(len(content)) // PAGE * PAGE
        length = t.rng.randrange(1, 300) * PAGE
        with memoryview(buffer)[:length] as view:
            done = os.preadv(fd, [view], offset)
            equal(bytes(view[:done]), content[offset:offset + length], "%d at %d" % (length, offset))
    os.close(fd)


@test(transports="full", variants={"window": [], "direct": ["window=0"]})
def execute(t, options):
    """A program is executed from the mount (execve maps it)."""
    source = t.make_dir("source")
    shutil.copy("/bin/true", source + "/true")
    shutil.copy("/usr/bin/sha256sum", source + "/sha256sum")
    mount = t.mount(source, options)
    t.run([mount.path("true")])
    expected = t.run(["sha256sum", "/bin/true"]).stdout
    equal(t.run([mount.path("sha256sum"), "/bin/true"]).stdout, expected, "output of a program on it")


def random_reader(t, point, tree, seed, seconds, with_mmap):
    rng = random.Random(seed)
    names = [name for name, content in tree.items() if content]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name = rng.choice(names)
        path = os.path.join(point, name)
        check_slices(rng, path, tree[name], t.scaled(10, 3))
        if with_mmap:
            check_mapped(rng, path, tree[name], t.scaled(3, 1))


@test(timeout=40, transports="full", variants=BUDGETS)
def readers_at_once(t, options):
    """Eight readers, half of them also by mmap, while window and pool are trimmed all the time.

    Invariant 3: frames are immutable and reused only after a grace period.
    """
    source = t.make_dir("source")
    tree = make_tree(t.rng, source, scale=2)
    mount = t.mount(source, options)
    seconds = 5 if t.suite == "full" else 1.5
    t.join([t.fork(random_reader, t, mount.point, tree, t.rng.random(), seconds, reader % 2)
            for reader in range(8)])
    mount.unmount()


def source_cached(source):
    return sum(cached_bytes(os.path.join(source, name)) for name in os.listdir(source))


@test(timeout=60, transports="each", alone=True)
def window_keeps_its_budget(t):
    """Invariant 6: the kernel's cache of the mount comes down to the budget, and what status says of it
    is no less than what the kernel has."""
    source = t.make_dir("source")
    for number in range(4):
        write_file("%s/%d" % (source, number), make_pages(t.rng, 4096))
    sync_source(source)
    budget = 8 * MIB
    mount = t.mount(source, ["window=8M"])
    descriptors = [os.open(mount.path(str(number)), os.O_RDONLY) for number in range(4)]

    def cached():
        return sum(cached_bytes_of(fd, 4096 * PAGE) for fd in descriptors)

    for number, fd in enumerate(descriptors):
        equal(os.pread(fd, 4096 * PAGE, 0), read_file("%s/%d" % (source, number)), "content")
    slack = MIB  # read-ahead of a region or two that came last
    until(lambda: cached() <= budget + slack, 10 * t.patience,
          lambda: "cache of the mount within %d; it is %d, window: %s" % (
              budget + slack, cached(), mount.status()["window"]))
    window = mount.status()["window"]
    equal(window["budget_bytes"], budget, "window.budget_bytes")
    check(window["bytes"] <= budget, "window.bytes is %d" % window["bytes"])
    check(window["bytes"] + slack >= cached(), "the kernel has %d, counted are %d" % (
        cached(), window["bytes"]))
    check(window["trimmed_bytes"] >= 50 * MIB, "window.trimmed_bytes is %d" % window["trimmed_bytes"])
    for fd in descriptors:
        os.close(fd)


@test()
def kernel_keeps_few_changed_pages(t):
    """The trimmer waits for each page that was changed through a mapping to be written back: of those the
    kernel keeps an eighth of the window."""
    source = t.make_dir("source")
    for window, is_limited in (("8M", True), ("0", False)):
        mount = t.mount(source, ["window=" + window], name="mnt-" + window)
        device = os.stat(mount.point).st_dev
        path = "/sys/class/bdi/%d:%d/max_bytes" % (os.major(device), os.minor(device))
        if not os.access(path, os.W_OK):
            t.skip("no max_bytes in /sys/class/bdi: Linux is older than 6.2, or /sys is read-only")
        # The kernel rounds to parts of a millionth of memory.
        equal(int(read_file(path)) <= MIB, is_limited, "at most 1 MiB in %s with window=%s" % (path, window))


@test(transports="full")
def window_zero_caches_nothing(t):
    """window=0: nothing of what was read stays in the kernel's cache."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 1024)
    write_file(source + "/file", content)
    mount = t.mount(source, ["window=0"])
    equal(read_file(mount.path("file")), content, "content")
    equal(cached_bytes(mount.path("file")), 0, "bytes in the kernel's cache")
    equal(mount.status()["window"]["budget_bytes"], 0, "window.budget_bytes")


@test(transports="full")
def source_is_not_cached_twice(t):
    """Invariant 6: source pages do not stay in the kernel's cache as a second copy."""
    source = t.make_dir("source")
    for number in range(3):
        write_file("%s/%d" % (source, number), make_pages(t.rng, 2048))
    sync_source(source)
    t.run(["python3", "-c", "import os,sys\nfor n in sys.argv[1:]:\n f=os.open(n,os.O_RDONLY);"
           "os.posix_fadvise(f,0,0,os.POSIX_FADV_DONTNEED)"] + ["%s/%d" % (source, n) for n in range(3)])
    equal(source_cached(source), 0, "source in the cache before")
    mount = t.mount(source, ["passthrough_max=0"])
    for number in range(3):
        read_file(mount.path(str(number)))
    for number in range(2):
        with open(mount.path(str(number)), "r+b") as file:
            for _ in range(50):
                os.pwrite(file.fileno(), t.rng.randbytes(5000), t.rng.randrange(8 * MIB))
            os.fsync(file.fileno())
    mount.unmount()
    until(lambda: source_cached(source) <= MIB // 2, 10,
          lambda: "at most 512 KiB of 24 MiB of the source cached; %d bytes are" % source_cached(source))


@test(timeout=60, alone=True, presets=("release", "debug", "digest8"))
def memory_is_bounded(t):
    """Invariant 6: with a pool far smaller than the data the daemon's memory stays within what it counts,
    and what it counts within the budgets."""
    source = t.make_dir("source")
    for number in range(6):
        write_file("%s/%d" % (source, number), make_pages(t.rng, 4096))
    sync_source(source)
    mount = t.mount(source, ["pool=16M", "window=4M", "maps=1M"])
    for _ in range(2):
        for number in range(6):
            equal(read_file(mount.path(str(number))), read_file("%s/%d" % (source, number)), "content")
    status = mount.status()
    memory = status["memory"]
    parts = sum(memory[key] for key in ("pool_bytes", "maps_bytes", "index_bytes", "transport_bytes"))
    check(memory["total_bytes"] >= parts, "memory: total %d is less than its parts %d" % (
        memory["total_bytes"], parts))
    check(memory["pool_bytes"] <= 18 * MIB, "memory.pool_bytes %d" % memory["pool_bytes"])
    check(memory["maps_bytes"] <= 2 * MIB, "memory.maps_bytes %d" % memory["maps_bytes"])
    resident = mount.daemon_memory()
    check(resident <= memory["total_bytes"] + 16 * MIB,
          "the daemon has %d resident and counts %d" % (resident, memory["total_bytes"]))
    equal(status["frames_total"] * status["frame_bytes"], 16 * MIB, "pool size by frames")


@test(transports="full")
def zero_pages_take_no_frame(t):
    """Zeroes and holes are answered without a frame, and their maps cost next to nothing."""
    source = t.make_dir("source")
    size = t.scaled(256, 64) * MIB
    with open(source + "/hole", "wb") as file:
        file.truncate(size)
    with open(source + "/data", "wb") as file:
        file.write(bytes(4 * MIB))
    mount = t.mount(source)
    with open(mount.path("hole"), "rb") as file:
        while part := file.read(4 * MIB):
            check(not any(part), "a hole that is not zero")
    equal(read_file(mount.path("data")), bytes(4 * MIB), "written zeroes")
    status = mount.status()
    equal(status["frames_used"], 0, "frames_used")
    equal(status["zero_pages"], (size + 4 * MIB) // PAGE, "zero_pages")

    def maps_bytes():
        return mount.status()["memory"]["maps_bytes"]

    # Nodes that have become one stretch of zeroes are counted until a grace period has passed.
    until(lambda: maps_bytes() < 256 * 1024, 10 * t.patience, lambda: "maps of zeroes take %d bytes" % maps_bytes())


@test(transports="each", timeout=40)
def hits_are_counted(t):
    """hits and misses add up to the pages read: first all misses or read ahead, then all hits."""
    source = t.make_dir("source")
    pages = 2048
    write_file(source + "/file", make_pages(t.rng, pages))
    sync_source(source)
    mount = t.mount(source, ["window=0"])
    fd = os.open(mount.path("file"), os.O_RDONLY)
    buffer = mmap.mmap(-1, MIB)  # aligned: otherwise neighbouring requests share a page

    def read_all():
        for at in range(0, pages * PAGE, MIB):
            equal(os.preadv(fd, [buffer], at), MIB, "bytes read at %d" % at)

    read_all()

    def counted(pages_read):  # a read is counted after its reply
        status = mount.status()
        return status if status["hits"] + status["misses"] >= pages_read else None

    first = until(lambda: counted(pages), 5, lambda: "%d pages counted: %s" % (pages, mount.status()))
    check(first["misses"] > 0, "no miss in a first read")
    equal(first["hits"] + first["misses"], pages, "hits + misses after the first read")
    read_all()
    second = until(lambda: counted(2 * pages), 5, lambda: "%d pages counted: %s" % (2 * pages, mount.status()))
    equal(second["misses"], first["misses"], "misses after the second read")
    equal(second["hits"] - first["hits"], pages, "hits of the second read")
    os.close(fd)


@test(transports="full", timeout=40)
def growing_and_sparse_at_the_end(t):
    """What lies between an old and a new end reads as zeroes, in the window and from the pool."""
    source = t.make_dir("source")
    model = bytearray(t.rng.randbytes(PAGE + 100))
    write_file(source + "/file", model)
    mount = t.mount(source)
    fd = os.open(mount.path("file"), os.O_RDWR)
    for _ in range(t.scaled(40, 12)):
        equal(os.pread(fd, len(model) + PAGE, 0), bytes(model), "content")
        at = len(model) + t.rng.randrange(3 * PAGE)
        part = t.rng.randbytes(t.rng.randrange(1, 2 * PAGE))
        os.pwrite(fd, part, at)
        model += bytes(at - len(model)) + part
    os.close(fd)
    mount.unmount()
    equal(read_file(source + "/file"), bytes(model), "source")
